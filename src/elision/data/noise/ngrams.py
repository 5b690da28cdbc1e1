"""Masks over runs of words: ALBERT's noise."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import NO_TARGET, Example
from elision.data.noise.settings import check_budget, check_fates, check_share
from elision.data.noise.tokens import rewrite_tokens
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary


def draw_num_words(size: int, max_words: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `size` lengths n from 1 to `max_words` with probability proportional to 1 / n; int64 [size]."""
    lengths = np.arange(1, max_words + 1)
    weights = 1 / lengths
    return rng.choice(lengths, size, p=weights / weights.sum())


def pick_ngrams(
    candidates: np.ndarray, continues_word: np.ndarray, num_picked: int, max_words: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw runs of up to `max_words` whole words at random until `num_picked` positions are taken; sorted.

    candidates: int [c], sorted positions. continues_word: bool [c], True where a candidate belongs to the word of the
    candidate before it. The words are tried as beginnings in random order, each with a length of its own. A run that
    would exceed the budget loses words from its end; one that still does, or that touches a place already taken, is
    passed over. So a few positions of the budget can stay unused.
    """
    if not len(candidates):
        return candidates
    begins = ~continues_word
    begins[0] = True
    starts = np.flatnonzero(begins)
    num_words = len(starts)
    bounds = [*starts.tolist(), len(candidates)]
    taken = np.zeros(len(candidates), bool)
    left = num_picked
    lengths = draw_num_words(num_words, max_words, rng).tolist()
    for word, length in zip(rng.permutation(num_words).tolist(), lengths):
        if left == 0:
            break
        begin, last = bounds[word], min(word + length, num_words)
        while last > word + 1 and bounds[last] - begin > left:
            last -= 1
        end = bounds[last]
        if end - begin > left or taken[begin:end].any():
            continue
        taken[begin:end] = True
        left -= end - begin
    return candidates[taken]


@dataclasses.dataclass(frozen=True)
class NgramMask:
    """ALBERT's masking: runs of 1 to 3 whole words, until 15 % of the tokens are targets; of these 80/10/10.

    Lan et al. 2020, section 3.1 and equation 1: p(n) is proportional to 1 / n. As in the released code each piece draws
    its own fate, the budget counts special symbols though none is ever picked, and a run may go on behind a separator.

    A worked example, with mask id 4: of the words 10 11+12 13 (11+12 is one word of two pieces), two words from the
    second on are drawn: inputs 2 10 4 4 4 3, targets -100 -100 11 12 13 -100.
    """

    rate: float = 0.15
    """share of the tokens that become targets"""
    max_targets: int | None = 20
    """at most so many targets in an example (the released scripts: 20, even at length 512); None = no cap"""
    max_words: int = 3
    """words in the longest run"""
    mask_share: float = 0.8
    """share of the targets that become [MASK]"""
    random_share: float = 0.1
    """share of the targets that become a random token; the rest stay as they are"""

    needs_roles: ClassVar[frozenset[str]] = frozenset({"mask"})
    restores: ClassVar[str] = "masked"
    lookahead: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check_share(self, "rate")
        check_fates(self)
        check_budget(self)
        if self.max_words < 1:
            raise InputError(f"max_words is {self.max_words}: it must be at least 1")

    def check(self, vocabulary: Vocabulary) -> None:
        """Raise InputError when the vocabulary lacks the mask symbol."""
        vocabulary.require("mask")

    def __call__(self, example: Example, vocabulary: Vocabulary, rng: np.random.Generator) -> Example:
        """Return the example with noised inputs and with targets at the picked positions."""
        candidates = np.flatnonzero(~example.special)
        budget = max(1, round(self.rate * len(example)))
        if self.max_targets is not None:
            budget = min(budget, self.max_targets)
        # A word never continues across a special symbol, so a gap between candidates starts a new one.
        continues = vocabulary.continues_word[example.inputs[candidates]] & (np.diff(candidates, prepend=-2) == 1)
        picked = pick_ngrams(candidates, continues, budget, self.max_words, rng)
        targets = np.full(len(example), NO_TARGET, np.int64)
        targets[picked] = example.inputs[picked]
        inputs = rewrite_tokens(
            example.inputs, picked, vocabulary.mask, vocabulary.size, self.mask_share, self.random_share, rng
        )
        return dataclasses.replace(example, inputs=inputs, targets=targets)
