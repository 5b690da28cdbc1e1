"""What a run says of itself while it runs: metrics.jsonl always, TensorBoard when it is installed."""

import json
import math
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from elision.atomic import write_text


class MetricsLog:
    """metrics.jsonl and TensorBoard, one line or point for each `write`."""

    def __init__(self, run: Path, step: int):
        """Open the log of a run that stands at `step`; what an interrupted run wrote beyond it is taken back."""
        self._path = run / "metrics.jsonl"
        _cut(self._path, step)
        self._file = self._path.open("a", encoding="utf-8")
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
        except ImportError:
            self._board = None

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Append one line: the step, which split it speaks of, and the values by name."""
        self._file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl; a half-written last line is left out."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines


def _cut(path: Path, step: int) -> None:
    if not path.exists():
        return
    lines = read_metrics(path.parent)
    kept = [line for line in lines if line["step"] <= step]
    text = "".join(json.dumps(line) + "\n" for line in kept)
    if text != path.read_text(encoding="utf-8"):
        write_text(path, text)


def peak_memory_bytes(device: torch.device) -> int:
    """Return the largest amount of memory used so far: of the device on a GPU, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def matmul_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """Measure the most floating-point operations per second that a large matrix product reaches here."""
    size = 8192 if device.type == "cuda" else 1024
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    for _ in range(2):
        left @ right
    best = math.inf
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begin = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return 2.0 * size**3 / best
