"""Masks over runs of words, each inside a context of its own: DeBERTa's noise."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import NO_TARGET, Example
from elision.data.noise.ngrams import draw_num_words
from elision.data.noise.settings import check_budget, check_fates, check_share
from elision.data.noise.tokens import rewrite_tokens
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary


def mark_in_contexts(num_words: int, window: int, max_words: int, rng: np.random.Generator) -> np.ndarray:
    """Mark runs of words, one in each context; bool [num_words].

    A run of n words (p(n) proportional to 1 / n, at most `max_words`) has a context of `window` * n words and begins
    anywhere in it with equal probability, so its end can lie beyond. The next context begins after both. The last context
    is what is left.

    >>> mark_in_contexts(4, 1, 1, np.random.default_rng(0))
    array([ True,  True,  True,  True])
    """
    marked = np.zeros(num_words, bool)
    # As many as there can be: a context has at least `window` words.
    most = -(-num_words // window)
    lengths = draw_num_words(most, max_words, rng).tolist()
    shares = rng.random(most).tolist()
    begin = 0
    for length, share in zip(lengths, shares):
        if begin >= num_words:
            break
        context = min(window * length, num_words - begin)
        first = begin + int(share * context)
        marked[first : first + length] = True
        begin = max(begin + context, first + length)
    return marked


def keep_within(marked: np.ndarray, sizes: np.ndarray, budget: int, rng: np.random.Generator | None) -> np.ndarray:
    """Return the marked words that a budget of tokens is spent on, in ascending order.

    sizes: int [num_words], tokens of each word. Words are taken until the budget is reached, so the last may exceed it:
    from left to right, or in random order where a generator is given.
    """
    words = np.flatnonzero(marked)
    if rng is not None:
        words = rng.permutation(words)
    spent = np.cumsum(sizes[words])
    return np.sort(words[: int(np.searchsorted(spent, budget)) + 1])


@dataclasses.dataclass(frozen=True)
class ContextNgramMask:
    """DeBERTa's masking: runs of 1 to 3 words, each in a context six times as long, until 15 % of the tokens are targets.

    As in the released code (the paper says nothing of it). The contexts cover more than the budget pays for, since 1/6
    exceeds 0.15, and it is spent from left to right: up to the last 48 tokens of 512 are never targets.
    `randomise_survivors` spends it in random order instead. With `max_words` 1 (the code's BERT baseline, and DeBERTa-v3)
    single pieces are what is drawn, else whole words. Each piece draws its own fate.

    A worked example, with mask id 4 and single pieces: of the tokens 2 10 11 12 13 14 15 3 the six between the special
    symbols are one context, of which say the second is drawn: inputs 2 10 4 12 13 14 15 3, targets -100 -100 11 -100 ...
    """

    rate: float = 0.15
    """share of the tokens that become targets"""
    max_targets: int | None = 80
    """about as many targets in an example at most; a word is taken whole. None = no cap"""
    max_words: int = 3
    """words in the longest run; 1 = single pieces of words"""
    randomise_survivors: bool = False
    """spend the budget on the drawn runs in random order, so that every place is as likely"""
    mask_share: float = 0.8
    """share of the targets that become [MASK]"""
    random_share: float = 0.1
    """share of the targets that become a random token; the rest stay as they are"""

    needs_roles: ClassVar[frozenset[str]] = frozenset({"mask"})
    restores: ClassVar[str] = "masked"
    lookahead: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check_share(self, "rate")
        if self.rate == 0:
            raise InputError("rate is 0: give a share above 0, so that there is something to restore")
        check_fates(self)
        check_budget(self)
        if self.max_words < 1:
            raise InputError(f"max_words is {self.max_words}: it must be at least 1")

    def check(self, vocabulary: Vocabulary) -> None:
        """Raise InputError when the vocabulary lacks the mask symbol."""
        vocabulary.require("mask")

    def __call__(self, example: Example, vocabulary: Vocabulary, rng: np.random.Generator) -> Example:
        """Return the example with noised inputs and with targets at the picked positions."""
        # As in the released code, symbols such as [UNK] inside the text are not drawn either.
        candidates = np.flatnonzero(~(example.special | vocabulary.special[example.inputs]))
        budget = max(1, round(self.rate * len(example)))
        if self.max_targets is not None:
            budget = min(budget, self.max_targets)
        if self.max_words > 1:
            # A word never continues across a special symbol, so a gap between candidates starts a new one.
            begins = ~vocabulary.continues_word[example.inputs[candidates]] | (np.diff(candidates, prepend=-2) != 1)
        else:
            begins = np.ones(len(candidates), bool)
        sizes = np.diff(np.append(np.flatnonzero(begins), len(candidates)))
        marked = mark_in_contexts(len(sizes), int(1 / self.rate), self.max_words, rng)
        words = keep_within(marked, sizes, budget, rng if self.randomise_survivors else None)
        chosen = np.zeros(len(sizes), bool)
        chosen[words] = True
        picked = candidates[np.repeat(chosen, sizes)]
        targets = np.full(len(example), NO_TARGET, np.int64)
        targets[picked] = example.inputs[picked]
        inputs = rewrite_tokens(
            example.inputs, picked, vocabulary.mask, vocabulary.size, self.mask_share, self.random_share, rng
        )
        return dataclasses.replace(example, inputs=inputs, targets=targets)
