"""Tokens that stand in for others: drawn evenly from the vocabulary, or as often as the training text has them."""

import functools
from typing import Literal

import numpy as np

from elision.text.vocabulary import Vocabulary

Source = Literal["text", "vocabulary"]


def stray_tokens(source: Source, vocabulary: Vocabulary, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `size` ids, int64, none of them special: from the unigram distribution of the text, or all alike.

    "text" needs `vocabulary.counts`.
    """
    ids, cumulative = _ordinary(vocabulary, source == "text")
    if cumulative is None:
        return ids[rng.integers(0, len(ids), size)]
    return ids[np.searchsorted(cumulative, rng.integers(0, cumulative[-1], size), side="right")]


@functools.lru_cache(maxsize=16)
def _ordinary(vocabulary: Vocabulary, counted: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the ids that are no special symbols, and how often they and those before them occur."""
    ids = np.flatnonzero(~vocabulary.special)
    if not counted:
        return ids, None
    assert vocabulary.counts is not None
    cumulative = np.cumsum(vocabulary.counts[ids], dtype=np.int64)
    assert cumulative[-1] > 0, "the text holds nothing but special symbols"
    return ids, cumulative
