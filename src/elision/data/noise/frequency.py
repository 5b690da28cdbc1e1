"""Masks that fall on rare tokens more often than on frequent ones: DistilBERT's noise."""

import dataclasses
import math
from typing import ClassVar

import numpy as np

from elision.data.example import NO_TARGET, Example
from elision.data.noise.settings import check_fates, check_share
from elision.data.noise.tokens import rewrite_tokens
from elision.data.store import Split
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary


def counted(vocabulary: Vocabulary, noise: object, split: Split) -> Vocabulary:
    """Return the vocabulary with the counts of the training text, where the noise asks for them (`needs_counts`)."""
    if not getattr(noise, "needs_counts", False):
        return vocabulary
    return dataclasses.replace(vocabulary, counts=split.store.token_counts)


def pick_weighted(weights: np.ndarray, num_picked: int, rng: np.random.Generator) -> np.ndarray:
    """Draw positions one after another without putting them back, each with probability proportional to its weight.

    weights: float [n]; a position of weight 0 is never drawn. Returns sorted positions, fewer than asked for when not
    enough weights are above 0. The largest of log(weight) + Gumbel noise are such a draw (Kool et al. 2019).
    """
    possible = np.flatnonzero(weights > 0)
    if num_picked >= len(possible):
        return possible
    keys = np.log(weights[possible]) + rng.gumbel(size=len(possible))
    return np.sort(possible[np.argpartition(-keys, num_picked)[:num_picked]])


@dataclasses.dataclass(frozen=True)
class FrequencyMask:
    """DistilBERT's masking: a token is a target with probability proportional to count^-power; then 80/10/10.

    Sanh et al. 2019, after Lample & Conneau 2019. Counts are those of the training text; a token that it does not
    contain counts as one. Special symbols, the unknown one included, are never picked.

    One departure: the released code draws from a whole batch at a time, here every example has its own share.

    A worked example, with mask id 4: of the tokens 2 10 11 12 3, where 10 and 11 stand a thousand times in the text and
    12 once, 12 is the target with probability 98 %: inputs 2 10 11 4 3, targets -100 -100 -100 12 -100.
    """

    rate: float = 0.15
    """share of the tokens that become targets, rounded up"""
    power: float = 0.7
    """how strongly rare tokens are preferred; 0 = not at all"""
    mask_share: float = 0.8
    """share of the targets that become [MASK]"""
    random_share: float = 0.1
    """share of the targets that become a random token; the rest stay as they are"""

    needs_roles: ClassVar[frozenset[str]] = frozenset({"mask"})
    needs_counts: ClassVar[bool] = True
    restores: ClassVar[str] = "masked"
    lookahead: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check_share(self, "rate")
        check_fates(self)
        if self.power < 0:
            raise InputError(f"power is {self.power}: it must be at least 0 (0 = all tokens alike)")

    def check(self, vocabulary: Vocabulary) -> None:
        """Raise InputError when the vocabulary lacks the mask symbol."""
        vocabulary.require("mask")

    def __call__(self, example: Example, vocabulary: Vocabulary, rng: np.random.Generator) -> Example:
        """Return the example with noised inputs and with targets at the picked positions."""
        assert vocabulary.counts is not None
        weights = np.maximum(vocabulary.counts[example.inputs], 1.0) ** -self.power
        weights[example.special | vocabulary.special[example.inputs]] = 0
        picked = pick_weighted(weights, math.ceil(self.rate * len(example)), rng)
        targets = np.full(len(example), NO_TARGET, np.int64)
        targets[picked] = example.inputs[picked]
        inputs = rewrite_tokens(
            example.inputs, picked, vocabulary.mask, vocabulary.size, self.mask_share, self.random_share, rng
        )
        return dataclasses.replace(example, inputs=inputs, targets=targets)
