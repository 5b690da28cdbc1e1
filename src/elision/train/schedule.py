"""Learning-rate schedules: the share of the peak that a step uses, a pure function of the step."""

import dataclasses
import math

from elision.errors import InputError


@dataclasses.dataclass(frozen=True)
class Linear:
    """Linear warm-up, then linear decay to zero over all steps."""

    warmup: float = 0.01
    """steps of warm-up; below 1: the share of all steps"""
    kink: bool = False
    """as in the BERT code: the decay is counted from step 0 and does not act during warm-up, so the rate drops from the
    peak to peak * (1 - warmup / steps) when warm-up ends"""

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)

    def share(self, step: int, steps: int) -> float:
        """Return the share of the peak rate at `step`, counted from 0."""
        warmup = _warmup_steps(self.warmup, steps)
        if step < warmup:
            # The released code counts from 0, so its first update has rate 0 and changes nothing.
            return step / warmup if self.kink else (step + 1) / warmup
        if self.kink:
            return max(0.0, 1 - step / steps)
        return max(0.0, (steps - step) / max(1, steps - warmup))


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Linear warm-up, then a half cosine down to `final_share` of the peak."""

    warmup: float = 0.01
    """steps of warm-up; below 1: the share of all steps"""
    final_share: float = 0.1
    """share of the peak at the last step"""

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)

    def share(self, step: int, steps: int) -> float:
        """Return the share of the peak rate at `step`, counted from 0."""
        warmup = _warmup_steps(self.warmup, steps)
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, steps - warmup))
        return self.final_share + (1 - self.final_share) * 0.5 * (1 + math.cos(math.pi * progress))


Schedule = Linear | Cosine


def _warmup_steps(warmup: float, steps: int) -> int:
    # Rounded first: 0.07 * 100 is a little more than 7.
    return math.ceil(round(warmup * steps, 6)) if warmup < 1 else int(warmup)


def _check_warmup(warmup: float) -> None:
    if warmup < 0:
        raise InputError(f"warmup is {warmup}: give a share below 1 or a number of steps")
