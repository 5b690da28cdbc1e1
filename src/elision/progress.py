"""How long work looks while it runs: a bar with rate and time left on a terminal, a line now and then in a log."""

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

# Lines are not broken at a guessed width: logs and narrow terminals wrap by themselves.
console = Console(stderr=True, highlight=False, soft_wrap=True)

LOG_INTERVAL_SECONDS = 15.0


class Task:
    """One piece of long work: `advance(n)` as it gets done, `note(text)` for what to show beside the bar."""

    def __init__(self, name: str, total: float | None, unit: str, bar: Progress | None, start: float = 0):
        self._name, self._total, self._unit, self._bar = name, total, unit, bar
        self._start, self._done, self._note = start, start, ""
        self._started = self._printed = time.monotonic()
        self._id = bar.add_task(name, total=total, completed=start, rate="", note="") if bar else None

    def advance(self, amount: float = 1) -> None:
        """Count `amount` more units as done."""
        self._done += amount
        now = time.monotonic()
        # What was done before this process started says nothing of how fast it is.
        rate = (self._done - self._start) / max(now - self._started, 1e-9)
        if self._bar:
            self._bar.update(self._id, completed=self._done, rate=f"{quantity(rate)} {self._unit}/s", note=self._note)
        elif now - self._printed >= LOG_INTERVAL_SECONDS:
            self._printed = now
            of_total, left = "", ""
            if self._total:
                of_total = f" of {quantity(self._total)}"
                left = f", {duration((self._total - self._done) / max(rate, 1e-9))} left"
            done = f"{quantity(self._done)}{of_total} {self._unit}, {quantity(rate)} {self._unit}/s{left}"
            note = Text.from_markup(self._note).plain
            console.print(f"{self._name}: {done}  {note}", markup=False)

    @property
    def done(self) -> float:
        """How many units are done."""
        return self._done

    def note(self, text: str) -> None:
        """Show `text` beside the bar from the next `advance` on."""
        self._note = text

    def grow(self, total: float) -> None:
        """Correct the total when it becomes known."""
        self._total = total
        if self._bar:
            self._bar.update(self._id, total=total)


@contextlib.contextmanager
def task(name: str, total: float | None = None, unit: str = "steps", start: float = 0) -> Iterator[Task]:
    """Show progress of one piece of work; `total` None means that its end is not known yet."""
    if not console.is_terminal:
        yield Task(name, total, unit, None, start)
        return
    columns = [
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("[cyan]{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("[dim]left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    ]
    with Progress(*columns, console=console, transient=False) as bar:
        yield Task(name, total, unit, bar, start)


def quantity(value: float) -> str:
    """Write a number with three digits and a unit prefix: 12.3k, 4.56M."""
    # Rounded first: 999,999 is 1M, not 1000k.
    value = float(f"{value:.3g}")
    for limit, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Write a duration as 12s, 3m20s or 2h05m."""
    seconds = int(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
