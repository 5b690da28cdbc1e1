"""metrics.jsonl: whole lines, taken back on resume."""

import json
from pathlib import Path

import torch

from elision.train.metrics import MetricsLog, matmul_peak, peak_memory_bytes, read_metrics


def write(run: Path, step: int, *steps: int) -> None:
    log = MetricsLog(run, step)
    for number in steps:
        log.write(number, "train", {"loss": number / 3})
    log.close()


def test_lines_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    write(tmp_path, 0, 5, 10)
    lines = read_metrics(tmp_path)
    assert lines == [{"step": 5, "split": "train", "loss": 5 / 3}, {"step": 10, "split": "train", "loss": 10 / 3}]
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == lines


def test_resuming_takes_back_what_lies_beyond_the_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 0, 5, 10, 15)
    write(tmp_path, 10, 12)
    assert [line["step"] for line in read_metrics(tmp_path)] == [5, 10, 12]


def test_a_half_written_line_is_left_out_and_cut_on_resume(tmp_path: Path) -> None:
    write(tmp_path, 0, 5, 10)
    whole = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(whole + '{"step": 15, "split": "tra')
    assert [line["step"] for line in read_metrics(tmp_path)] == [5, 10]
    write(tmp_path, 15, 20)
    assert [line["step"] for line in read_metrics(tmp_path)] == [5, 10, 20]
    assert (tmp_path / "metrics.jsonl").read_text().startswith(whole)


def test_a_last_line_without_its_newline_does_not_swallow_the_next(tmp_path: Path) -> None:
    write(tmp_path, 0, 5)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().rstrip("\n"))
    write(tmp_path, 5, 10)
    assert [line["step"] for line in read_metrics(tmp_path)] == [5, 10]


def test_a_run_without_metrics_has_none(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []


def test_tensorboard_gets_the_same_points(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, 0, 5, 10)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [5, 10]


def test_the_machine_is_measured_in_plausible_numbers() -> None:
    cpu = torch.device("cpu")
    assert 1e8 < matmul_peak(cpu, torch.float32, seconds=0.02) < 1e15
    assert 1 << 20 < peak_memory_bytes(cpu) < 1 << 42
