"""Masks over single tokens and whole words: BERT's noise."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import NO_TARGET, Example
from elision.data.noise.settings import check_budget, check_fates, check_share
from elision.text.vocabulary import Vocabulary


def pick_tokens(candidates: np.ndarray, num_picked: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `num_picked` of the candidate positions, each set equally likely; sorted. All of them if there are fewer."""
    if num_picked >= len(candidates):
        return candidates
    return np.sort(rng.permutation(candidates)[:num_picked])


def pick_whole_words(
    candidates: np.ndarray, continues_word: np.ndarray, num_picked: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw whole words at random until `num_picked` positions are taken; sorted.

    candidates: int [c], sorted positions. continues_word: bool [c], True where a candidate belongs to the word of the
    candidate before it. A word that would exceed the budget is passed over and the next one tried, as in the whole-word
    variant of the BERT code, so a few positions of the budget can stay unused.
    """
    if not len(candidates):
        return candidates
    begins = ~continues_word
    begins[0] = True
    starts = np.flatnonzero(begins)
    lengths = np.diff(np.append(starts, len(candidates)))
    picked: list[np.ndarray] = []
    left = num_picked
    for word in rng.permutation(len(starts)):
        if left == 0:
            break
        if lengths[word] <= left:
            left -= lengths[word]
            picked.append(candidates[starts[word] : starts[word] + lengths[word]])
    return np.sort(np.concatenate(picked)) if picked else candidates[:0]


def rewrite_tokens(
    inputs: np.ndarray,
    picked: np.ndarray,
    mask_id: int,
    vocab_size: int,
    mask_share: float,
    random_share: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return a copy of `inputs` in which each picked position draws its own fate.

    With probability `mask_share` it becomes `mask_id`, with `random_share` an id uniform over the whole vocabulary
    (special symbols included, and it may equal the original: so in the BERT code), else it stays.

    >>> rewrite_tokens(np.array([10, 11, 12, 13, 14]), np.array([1, 3]), 4, 100, 1.0, 0.0, np.random.default_rng(0))
    array([10,  4, 12,  4, 14])
    """
    fate = rng.random(len(picked))
    rewritten = inputs.copy()
    rewritten[picked[fate < mask_share]] = mask_id
    random = picked[(fate >= mask_share) & (fate < mask_share + random_share)]
    rewritten[random] = rng.integers(0, vocab_size, len(random))
    return rewritten


@dataclasses.dataclass(frozen=True)
class TokenMask:
    """BERT's masking: 15 % of the tokens are targets; of these 80 % become [MASK], 10 % a random token, 10 % stay.

    Devlin et al. 2019, section 3.1 and appendix A.1; the budget as in the released code, where the share counts the
    special symbols of the example though none of them is ever picked.

    A worked example, with mask id 4: of the tokens 2 10 11 12 3 (2 and 3 special) one is picked, say the second:
    inputs 2 4 11 12 3, targets -100 10 -100 -100 -100.
    """

    rate: float = 0.15
    """share of the tokens that become targets"""
    max_targets: int | None = 20
    """at most so many targets in an example (the released code: 20 at length 128, 77 at 512); None = no cap"""
    whole_words: bool = False
    """pick whole words instead of single pieces; each piece still draws its own fate"""
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

    def check(self, vocabulary: Vocabulary) -> None:
        """Raise InputError when the vocabulary lacks the mask symbol."""
        vocabulary.require("mask")

    def __call__(self, example: Example, vocabulary: Vocabulary, rng: np.random.Generator) -> Example:
        """Return the example with noised inputs and with targets at the picked positions."""
        candidates = np.flatnonzero(~example.special)
        budget = max(1, round(self.rate * len(example)))
        if self.max_targets is not None:
            budget = min(budget, self.max_targets)
        if self.whole_words:
            # A word never continues across a special symbol, so a gap between candidates starts a new one.
            continues = vocabulary.continues_word[example.inputs[candidates]] & (np.diff(candidates, prepend=-2) == 1)
            picked = pick_whole_words(candidates, continues, budget, rng)
        else:
            picked = pick_tokens(candidates, budget, rng)
        targets = np.full(len(example), NO_TARGET, np.int64)
        targets[picked] = example.inputs[picked]
        inputs = rewrite_tokens(
            example.inputs, picked, vocabulary.mask, vocabulary.size, self.mask_share, self.random_share, rng
        )
        return dataclasses.replace(example, inputs=inputs, targets=targets)
