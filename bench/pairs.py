"""Two sides of a comparison, each in a process of its own, measured in turns.

A machine that others use, or that changes its clock, is slow for some seconds and fast for others. So both sides run in
short rounds, A B A B, and what counts is the ratio within a round, not the time of either; the median of those ratios
is quoted with the smallest and the largest. Where even that is too restless, count processor time instead of wall time,
with one thread a side (threads that wait for each other burn it).
"""

import contextlib
import dataclasses
import multiprocessing
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, Protocol

Clock = Literal["wall", "cpu"]


class Side(Protocol):
    """What is measured: `step()` does one unit of work."""

    def step(self) -> None:
        """Do one unit of work and wait until it is done."""
        ...

    def facts(self) -> dict[str, float]:
        """Return what else the process can say of itself at the end (a measured peak, memory)."""
        ...


@dataclasses.dataclass(frozen=True)
class Pair:
    """Seconds of each round of two sides that did the same work, and what each says of itself."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    our_facts: dict[str, float]
    their_facts: dict[str, float]

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times faster ours was, round by round."""
        return tuple(theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True))

    def summary(self) -> dict[str, float]:
        """Return the median ratio with its range, and the median seconds of both."""
        return {
            "ratio": statistics.median(self.ratios),
            "ratio_min": min(self.ratios),
            "ratio_max": max(self.ratios),
            "our_seconds": statistics.median(self.ours),
            "their_seconds": statistics.median(self.theirs),
        }


@dataclasses.dataclass(eq=False)
class Worker:
    """A process that holds one side and does steps when it is told to."""

    process: multiprocessing.process.BaseProcess
    connection: Connection

    def run(self, num_steps: int, clock: Clock = "wall") -> float:
        """Do `num_steps` steps; returns the seconds that they took, on the wall or of the processor."""
        self.connection.send(num_steps)
        return self._answer()[clock]

    def facts(self) -> dict[str, float]:
        """Return what the side says of itself."""
        self.connection.send(None)
        return self._answer()

    def _answer(self) -> Any:
        try:
            kind, value = self.connection.recv()
        except EOFError:
            self.process.join()
            raise RuntimeError(f"{self.process.name} died with exit status {self.process.exitcode}") from None
        if kind == "error":
            raise RuntimeError(f"{self.process.name} failed:\n{value}")
        return value


@contextlib.contextmanager
def worker(name: str, build: Callable[..., Side], *arguments: Any) -> Iterator[Worker]:
    """Start a process that builds a side from `build(*arguments)`; it ends with the block."""
    # A fresh interpreter: a forked one would share the parent's pages, and memory could not be told apart.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, build, arguments), name=name, daemon=True)
    process.start()
    there.close()
    try:
        yield Worker(process, here)
    finally:
        here.close()
        process.join(timeout=10)
        if process.is_alive():
            process.terminate()
            process.join()


def compare(
    ours: Worker,
    theirs: Worker,
    rounds: int,
    steps_per_round: int,
    warmup_steps: int = 2,
    clock: Clock = "wall",
    advance: Callable[[], None] = lambda: None,
) -> Pair:
    """Let both sides do the same steps in turns; `advance` is called after each round."""
    sides = (ours, theirs)
    for side in sides:
        side.run(warmup_steps)
        advance()
    seconds: tuple[list[float], list[float]] = ([], [])
    for index in range(rounds):
        # Who begins changes from round to round, so that a steady drift favours neither.
        for which in (0, 1) if index % 2 == 0 else (1, 0):
            seconds[which].append(sides[which].run(steps_per_round, clock))
        advance()
    return Pair(tuple(seconds[0]), tuple(seconds[1]), ours.facts(), theirs.facts())


def resident_bytes(peak: bool) -> int:
    """Return the memory of this process that is in use, or the most that ever was.

    Linux hands the largest use on through fork and exec, so getrusage would report that of the parent where it was
    larger; /proc speaks of this program alone.
    """
    status = Path("/proc/self/status")
    if status.exists():
        name = "VmHWM:" if peak else "VmRSS:"
        line = next(line for line in status.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024
    import resource
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _serve(connection: Connection, build: Callable[..., Side], arguments: tuple[Any, ...]) -> None:
    try:
        side = build(*arguments)
        while True:
            try:
                asked = connection.recv()
            except EOFError:
                return
            if asked is None:
                connection.send(("facts", side.facts()))
                continue
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(asked):
                side.step()
            seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
            connection.send(("seconds", seconds))
    except KeyboardInterrupt:
        return
    except BaseException:
        connection.send(("error", traceback.format_exc()))
