"""ELECTRA's masks: positions drawn one by one, with replacement."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import NO_TARGET, Example
from elision.data.noise.settings import check_budget, check_share
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class ElectraMask:
    """ELECTRA's masking: 15 % of the tokens are drawn, 85 % of the draws leave a mask; no token becomes a random one.

    Clark et al. 2020, as in the released code: round(rate * T) draws for T tokens, special symbols counted but never
    drawn. They are drawn with replacement, which the paper does not say: at length 128 some 13.8 % of the tokens are
    hit (22 % at a rate of 25 %). A place is masked if any of its draws says so.

    One departure: there, a place that was drawn twice counts twice in the generator's loss, and what the discriminator
    reads at it is the mean of two sampled ids, which is a third token. Here such a place is one target, with one sample.

    A worked example, with mask id 4: of the tokens 2 10 11 12 3 (2 and 3 special) one is drawn, say the second: inputs
    2 4 11 12 3 (or, in 15 % of the cases, 2 10 11 12 3), targets -100 10 -100 -100 -100.
    """

    rate: float = 0.15
    """draws, as a share of the tokens"""
    with_replacement: bool = True
    """whether a place can be drawn again, as in the released code"""
    mask_share: float = 0.85
    """share of the draws that leave a mask; the rest leave the token as it is"""
    max_targets: int | None = None
    """at most so many draws in an example; the released code's cap, (rate + 0.005) * max_length, only binds when that is
    short"""

    needs_roles: ClassVar[frozenset[str]] = frozenset({"mask"})
    restores: ClassVar[str] = "masked"
    lookahead: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check_share(self, "rate")
        check_share(self, "mask_share")
        check_budget(self)

    def check(self, vocabulary: Vocabulary) -> None:
        """Raise InputError when the vocabulary lacks the mask symbol."""
        vocabulary.require("mask")

    def __call__(self, example: Example, vocabulary: Vocabulary, rng: np.random.Generator) -> Example:
        """Return the example with masked inputs and with targets at the drawn places."""
        candidates = np.flatnonzero(~example.special & (example.inputs != vocabulary.mask))
        num_draws = max(1, round(self.rate * len(example)))
        if self.max_targets is not None:
            num_draws = min(num_draws, self.max_targets)
        drawn = pick_draws(candidates, num_draws, self.with_replacement, rng)
        inputs, targets = example.inputs.copy(), np.full(len(example), NO_TARGET, np.int64)
        targets[drawn] = example.inputs[drawn]
        inputs[drawn[rng.random(len(drawn)) < self.mask_share]] = vocabulary.mask
        return dataclasses.replace(example, inputs=inputs, targets=targets)


def pick_draws(candidates: np.ndarray, num_draws: int, with_replacement: bool, rng: np.random.Generator) -> np.ndarray:
    """Draw `num_draws` of the candidate positions in the order they come; fewer when there are not so many to draw."""
    if not len(candidates):
        return candidates
    if with_replacement:
        return candidates[rng.integers(0, len(candidates), num_draws)]
    return rng.permutation(candidates)[:num_draws]
