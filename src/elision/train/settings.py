"""How a recipe is optimised, and how its run is watched and kept."""

import dataclasses
import re
from typing import Literal

from elision.data.ramp import BatchRamp
from elision.errors import InputError
from elision.train.optim import AdamW, Optimizer
from elision.train.schedule import Linear, Schedule


@dataclasses.dataclass(frozen=True)
class Train:
    """Optimisation, evaluation, checkpoints."""

    batch_size: int = 256
    """examples in a step (one update), over all microbatches"""
    ramp: BatchRamp | None = None
    """smaller batches at first, growing to batch_size (GPT-3); None = all of batch_size"""
    microbatch_size: int | None = None
    """examples in one forward and backward pass; None = the whole batch. Smaller saves memory and changes no result"""
    steps: int = 1_000_000
    """updates; the schedule is laid over them"""
    budget: str | None = None
    """instead of steps: '2000 steps', '1e9 tokens', '1e18 flops', '20min' or '2h'. Times are turned into steps by a
    short measurement at the start and then fixed, so that the run can be resumed exactly"""
    optimizer: Optimizer = AdamW()
    schedule: Schedule = Linear()
    seed: int = 1
    """of the initial weights, the order of the data, the noise and the dropout"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """of the computation (weights stay float32); auto = bfloat16 where the hardware multiplies it faster"""
    packing: bool = True
    """lay several short examples into one row, so that nothing is computed on padding"""
    compile: bool | None = None
    """compile the model with torch.compile; None = on GPUs only"""
    log_every: int = 10
    """steps between two lines of metrics.jsonl"""
    eval_every: int | None = None
    """steps between two evaluations on held-out text; None = twenty over the run"""
    eval_examples: int = 512
    """held-out examples in an evaluation, always the same with the same noise"""
    checkpoint_every: int | None = None
    """steps between two checkpoints; None = at each evaluation"""
    keep_checkpoints: int = 2
    """how many of the latest to keep, besides the best"""
    keep_every: int | None = None
    """also keep, for good, the checkpoint of every so many steps"""
    non_finite: Literal["stop", "skip"] = "stop"
    """when a loss is not finite: stop and say where, or go back to the last checkpoint and skip that batch"""

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps", "log_every", "eval_examples", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise InputError(f"train.{name} is {getattr(self, name)}: it must be at least 1")
        for name in ("microbatch_size", "eval_every", "checkpoint_every", "keep_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"train.{name} is {value}: it must be at least 1, or None")
        if self.ramp is not None and self.ramp.initial_size > self.batch_size:
            raise InputError(
                f"train.ramp.initial_size is {self.ramp.initial_size}, but train.batch_size is {self.batch_size}: batches "
                f"grow, so start with at most that"
            )
        if self.budget is not None:
            parse_budget(self.budget)


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much a run may use: `amount` of `unit`."""

    amount: float
    unit: Literal["steps", "tokens", "flops", "seconds"]


_UNITS: dict[str, tuple[str, float]] = {
    "steps": ("steps", 1), "step": ("steps", 1),
    "tokens": ("tokens", 1), "token": ("tokens", 1), "tok": ("tokens", 1),
    "flops": ("flops", 1), "flop": ("flops", 1),
    "s": ("seconds", 1), "sec": ("seconds", 1), "seconds": ("seconds", 1),
    "min": ("seconds", 60), "minutes": ("seconds", 60), "m": ("seconds", 60),
    "h": ("seconds", 3600), "hours": ("seconds", 3600), "hour": ("seconds", 3600),
    "d": ("seconds", 86400), "days": ("seconds", 86400),
}  # fmt: skip
_PREFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}


def parse_budget(text: str) -> Budget:
    """Read '2000 steps', '1e9 tokens', '300M tokens', '1e18 flops', '20min', '1.5h'.

    Raises: InputError for anything else.
    """
    number = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
    match = re.fullmatch(rf"\s*({number})\s*(?:([kKMBGT])(?=\s*[a-z]{{3}}))?\s*([a-z]+)\s*", text)
    if match is None or match[3] not in _UNITS or not 0 < float(match[1]) < 1e30:
        raise InputError(
            f"train.budget is {text!r}: write a number and a unit, such as '2000 steps', '300M tokens', '1e18 flops', "
            f"'20min' or '2h'"
        )
    unit, scale = _UNITS[match[3]]
    return Budget(float(match[1]) * _PREFIXES[match[2] or ""] * scale, unit)  # type: ignore[arg-type]
