"""Learning-rate schedules: the share of the peak that a step uses, a pure function of the step.

`share(step, steps, tokens_by)` has the number of the step and of all steps, and how to count both in tokens.
"""

import dataclasses
import math
from collections.abc import Callable

from elision.errors import InputError

# How many tokens the steps before a step read. `int` says: one token a step.
TokensBy = Callable[[int], int]


@dataclasses.dataclass(frozen=True)
class Linear:
    """Linear warm-up, then linear decay over all steps."""

    warmup: float = 0.01
    """steps of warm-up; below 1: the share of all steps"""
    kink: bool = False
    """as in the BERT code: the decay is counted from step 0 and does not act during warm-up, so the rate drops from the
    peak to peak * (1 - warmup / steps) when warm-up ends"""
    product: bool = False
    """as in the ELECTRA code: warm-up and decay are factors that are multiplied, both counted from step 0"""
    final_share: float = 0.0
    """share of the peak where the decay ends (XLNet: 0.001)"""

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)
        _check_share(self, "final_share")
        if self.kink and self.product:
            raise InputError("kink and product are two forms of the same schedule: set one of them")

    def share(self, step: int, steps: int, tokens_by: TokensBy = int) -> float:
        """Return the share of the peak rate at `step`, counted from 0."""
        warmup = _warmup_steps(self.warmup, steps)
        if self.product:
            return min(1.0, step / warmup if warmup else 1.0) * self._decayed(step / steps)
        if step < warmup:
            # The released code counts from 0, so its first update has rate 0 and changes nothing.
            return step / warmup if self.kink else (step + 1) / warmup
        return self._decayed(step / steps if self.kink else (step - warmup) / max(1, steps - warmup))

    def _decayed(self, progress: float) -> float:
        return self.final_share + (1 - self.final_share) * max(0.0, 1 - progress)


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Linear warm-up, then a half cosine down to `final_share` of the peak."""

    warmup: float = 0.01
    """steps of warm-up; below 1: the share of all steps"""
    final_share: float = 0.1
    """share of the peak at the last step"""

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)
        _check_share(self, "final_share")

    def share(self, step: int, steps: int, tokens_by: TokensBy = int) -> float:
        """Return the share of the peak rate at `step`, counted from 0."""
        warmup = _warmup_steps(self.warmup, steps)
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, steps - warmup))
        return self.final_share + (1 - self.final_share) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclasses.dataclass(frozen=True)
class InverseSquareRoot:
    """Linear warm-up, then the peak times sqrt(warmup / step), without an end (Vaswani et al. 2017; XLM)."""

    warmup: float = 4000
    """steps of warm-up; below 1: the share of all steps"""
    initial_share: float = 0.001
    """share of the peak at the first step (XLM: a rate of 1e-7)"""

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)
        _check_share(self, "initial_share")

    def share(self, step: int, steps: int, tokens_by: TokensBy = int) -> float:
        """Return the share of the peak rate at `step`, counted from 0."""
        warmup = max(1, _warmup_steps(self.warmup, steps))
        if step < warmup:
            return self.initial_share + (1 - self.initial_share) * step / warmup
        return math.sqrt(warmup / step)


@dataclasses.dataclass(frozen=True)
class ReciprocalSquareRoot:
    """1 / sqrt(max(step, hold)), however long the run is: T5's schedule.

    Unlike the others it gives the rate itself, not a share of a peak: the learning rate beside it is 1 (T5's is then 0.01
    for the first 10 000 steps), or a factor.
    """

    hold: int = 10_000
    """steps before the rate falls"""

    def __post_init__(self) -> None:
        if self.hold < 1:
            raise InputError(f"hold is {self.hold}: it must be at least 1 step")

    def share(self, step: int, steps: int, tokens_by: TokensBy = int) -> float:
        """Return what the learning rate is multiplied by at `step`, counted from 0."""
        return 1 / math.sqrt(max(step, self.hold))


@dataclasses.dataclass(frozen=True)
class TokenCosine:
    """Linear warm-up and a half cosine counted in tokens, then `final_share` of the peak for good (GPT-3).

    Brown et al. 2020, appendix B. A step counts as the tokens that were read when it ends, each example taken as long as it
    may be, so a batch that grows (`BatchRamp`) moves the rate on by what it holds.
    """

    warmup: float = 375e6
    """tokens of warm-up; below 1: the share of all tokens of the run"""
    decay: float = 260e9
    """tokens at which the cosine ends; up to 1: the share of all tokens of the run"""
    final_share: float = 0.1
    """share of the peak from there on"""

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)
        _check_share(self, "final_share")
        if self.decay <= 0:
            raise InputError(f"decay is {self.decay}: give a share up to 1 or a number of tokens")

    def share(self, step: int, steps: int, tokens_by: TokensBy = int) -> float:
        """Return the share of the peak rate at `step`, counted from 0."""
        tokens, total = tokens_by(step + 1), tokens_by(steps)
        warmup = self.warmup * total if self.warmup < 1 else self.warmup
        decay = self.decay * total if self.decay <= 1 else self.decay
        if tokens < warmup:
            return tokens / warmup
        progress = min(1.0, (tokens - warmup) / max(1.0, decay - warmup))
        return self.final_share + (1 - self.final_share) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclasses.dataclass(frozen=True)
class Constant:
    """Linear warm-up, then the peak for good (ELMo)."""

    warmup: float = 0.0
    """steps of warm-up; below 1: the share of all steps"""

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)

    def share(self, step: int, steps: int, tokens_by: TokensBy = int) -> float:
        """Return the share of the peak rate at `step`, counted from 0."""
        return min(1.0, (step + 1) / max(1, _warmup_steps(self.warmup, steps)))


# Closed union of what a recipe accepts.
Schedule = Linear | Cosine | InverseSquareRoot | ReciprocalSquareRoot | TokenCosine | Constant


def _warmup_steps(warmup: float, steps: int) -> int:
    # Rounded first: 0.07 * 100 is a little more than 7.
    return math.ceil(round(warmup * steps, 6)) if warmup < 1 else int(warmup)


def _check_warmup(warmup: float) -> None:
    if warmup < 0:
        raise InputError(f"warmup is {warmup}: give a share below 1 or a number of steps")


def _check_share(settings: object, name: str) -> None:
    value = getattr(settings, name)
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value}: it is a share of the peak, give a number from 0 to 1")
