"""RoBERTa's masks: drawn anew whenever an example is read, over every place of it."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import NO_TARGET, Example
from elision.data.noise.settings import check_fates, check_share
from elision.data.noise.stray import Source, stray_tokens
from elision.data.noise.tokens import pick_tokens
from elision.text.vocabulary import Vocabulary


def round_stochastically(number: float, rng: np.random.Generator) -> int:
    """Return one of the two whole numbers around `number`, such that the mean is `number`: floor(number + U[0, 1))."""
    return int(number + rng.random())


@dataclasses.dataclass(frozen=True)
class DynamicMask:
    """RoBERTa's masking: 15 % of all places on average, <s> and </s> among them; 80 % become <mask>, 10 % stray.

    Liu et al. 2019, section 4.1, as in the released code: floor(rate * T + U[0, 1)) of the T places of an example, each
    set of them equally likely (the paper's usual description spares the symbols that frame the text; the code does
    not). At length 512 that is 76 or 77 targets. Random tokens are never special symbols.

    A worked example, with mask id 4 and rate 0.3: of the places 2 10 11 12 3 (2 and 3 frame the text) one or two are
    picked, say the last: inputs 2 10 11 12 4, targets -100 -100 -100 -100 3.
    """

    rate: float = 0.15
    """share of all places that become targets"""
    mask_share: float = 0.8
    """share of the targets that become <mask>"""
    random_share: float = 0.1
    """share of the targets that become a random token; the rest stay as they are"""
    random_from: Source = "vocabulary"
    """where random tokens come from: every symbol of the `vocabulary` alike, or as often as the `text` has them"""

    needs_roles: ClassVar[frozenset[str]] = frozenset({"mask"})
    restores: ClassVar[str] = "masked"
    lookahead: ClassVar[int] = 0

    @property
    def needs_counts(self) -> bool:
        """Whether the tokens of the training text must have been counted."""
        return self.random_from == "text"

    def __post_init__(self) -> None:
        check_share(self, "rate")
        check_fates(self)

    def check(self, vocabulary: Vocabulary) -> None:
        """Raise InputError when the vocabulary lacks the mask symbol."""
        vocabulary.require("mask")

    def __call__(self, example: Example, vocabulary: Vocabulary, rng: np.random.Generator) -> Example:
        """Return the example with noised inputs and with targets at the picked places."""
        picked = pick_tokens(np.arange(len(example)), round_stochastically(self.rate * len(example), rng), rng)
        targets = np.full(len(example), NO_TARGET, np.int64)
        targets[picked] = example.inputs[picked]
        fate = rng.random(len(picked))
        inputs = example.inputs.copy()
        inputs[picked[fate < self.mask_share]] = vocabulary.mask
        random = picked[(fate >= self.mask_share) & (fate < self.mask_share + self.random_share)]
        inputs[random] = stray_tokens(self.random_from, vocabulary, len(random), rng)
        return dataclasses.replace(example, inputs=inputs, targets=targets)
