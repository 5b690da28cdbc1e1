"""Progress: numbers that people read, a bar on a terminal, lines in a log."""

import io

import pytest
from rich.console import Console

from elision import progress
from elision.progress import duration, quantity, task


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (7, "7"), (999, "999"), (1000, "1k"), (12_345, "12.3k"), (4_560_000, "4.56M"), (1.5e9, "1.5G"),
     (3e12, "3T"), (0.1234, "0.123"), (-2500, "-2.5k"), (999_999, "1M"), (999.9, "1k")],
)  # fmt: skip
def test_quantities_have_three_digits_and_a_prefix(value: float, text: str) -> None:
    assert quantity(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (12.9, "12s"), (60, "1m00s"), (200, "3m20s"), (3600, "1h00m"), (7500, "2h05m")]
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed where there is no terminal."""
    stream = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=stream, force_terminal=False, width=200))
    return stream


def test_in_a_log_a_line_appears_now_and_then(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with task("reading", total=1000, unit="lines") as piece:
        piece.note("loss 2.5  [dim]fast[/]")
        for _ in range(10):
            now[0] += 6
            piece.advance(50)
    lines = log.getvalue().splitlines()
    # Every 15 seconds at most: after 18, 36 and 54.
    assert len(lines) == 3
    assert lines[0] == "reading: 150 of 1k lines, 8.33 lines/s, 1m41s left  loss 2.5  fast"


def test_without_a_total_no_time_left_is_claimed(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with task("reading", unit="lines") as piece:
        now[0] = 20
        piece.advance(40)
    assert log.getvalue() == "reading: 40 lines, 2 lines/s  \n"


def test_resumed_work_does_not_count_as_speed(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with task("training", total=1000, unit="steps", start=900) as piece:
        now[0] = 20
        piece.advance(20)
    assert "920 of 1k steps, 1 steps/s, 1m20s left" in log.getvalue()


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=stream, force_terminal=True, width=160))
    with task("reading", total=10, unit="lines") as piece:
        piece.note("loss 2.5")
        piece.advance(5)
        piece.grow(5)
    shown = stream.getvalue()
    assert "reading" in shown and "loss 2.5" in shown and "100%" in shown
