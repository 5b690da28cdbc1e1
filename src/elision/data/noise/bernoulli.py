"""XLM's masks: a coin for every place."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import NO_TARGET, Example
from elision.data.noise.settings import check_fates, check_share
from elision.data.noise.tokens import rewrite_tokens
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class BernoulliMask:
    """XLM's masking: each place but the first is a target with probability 15 %, whatever stands there; then 80/10/10.

    Lample & Conneau 2019, section 3.2, as in the released code: separators within an example may be targets, its first
    token never is, and random tokens come from the whole vocabulary.

    A worked example, with mask id 4: of the tokens 1 10 11 1 12 each but the first is picked with probability 0.15, say
    the second separator alone: inputs 1 10 11 4 12, targets -100 -100 -100 1 -100.
    """

    rate: float = 0.15
    """probability that a place becomes a target"""
    mask_share: float = 0.8
    """share of the targets that become the mask"""
    random_share: float = 0.1
    """share of the targets that become a random token; the rest stay as they are"""

    needs_roles: ClassVar[frozenset[str]] = frozenset({"mask"})
    restores: ClassVar[str] = "masked"
    lookahead: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check_share(self, "rate")
        check_fates(self)

    def check(self, vocabulary: Vocabulary) -> None:
        """Raise InputError when the vocabulary lacks the mask symbol."""
        vocabulary.require("mask")

    def __call__(self, example: Example, vocabulary: Vocabulary, rng: np.random.Generator) -> Example:
        """Return the example with noised inputs and with targets at the picked places."""
        picked = 1 + np.flatnonzero(rng.random(len(example) - 1) < self.rate)
        targets = np.full(len(example), NO_TARGET, np.int64)
        targets[picked] = example.inputs[picked]
        inputs = rewrite_tokens(
            example.inputs, picked, vocabulary.mask, vocabulary.size, self.mask_share, self.random_share, rng
        )
        return dataclasses.replace(example, inputs=inputs, targets=targets)
