"""Masks over contiguous spans of words: SpanBERT's noise."""

import dataclasses
import math
from typing import ClassVar

import numpy as np

from elision.data.example import NO_TARGET, Example
from elision.data.noise.settings import check_fates, check_share
from elision.data.noise.stray import Source, stray_tokens
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary


def span_length_probabilities(p: float, max_words: int) -> np.ndarray:
    """Return the probability of each length 1 ... max_words: geometric, cut off and scaled to sum to 1."""
    weights = p * (1 - p) ** np.arange(max_words)
    return weights / weights.sum()


def draw_span_lengths(probabilities: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `size` lengths in words, int64, from the probabilities of 1, 2, ..."""
    cumulative = np.cumsum(probabilities)
    return 1 + np.searchsorted(cumulative[:-1], rng.random(size), side="right")


def pick_spans(
    candidates: np.ndarray,
    begins_word: np.ndarray,
    num_picked: int,
    probabilities: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw spans of whole words until `num_picked` positions are taken; returns them sorted.

    candidates: int [c], sorted positions. begins_word: bool [c], True where a candidate begins a word. A span is as many
    words as `probabilities` (of 1, 2, ...) says, from the word on in which an evenly drawn free position lies; it ends
    where the candidates have a gap, and is cut where the budget ends. Spans may run into each other.
    """
    num_picked = min(num_picked, len(candidates))
    if num_picked == 0:
        return candidates[:0]
    # Of each candidate, the end of its word and whether the text goes on after that without a gap, by index.
    starts = np.flatnonzero(begins_word | (np.diff(candidates, prepend=candidates[0] - 2) != 1))
    word_of = (np.searchsorted(starts, np.arange(len(candidates)), side="right") - 1).tolist()
    bounds = [*starts.tolist(), len(candidates)]
    gap_before = np.append(np.diff(candidates, prepend=candidates[0] - 2)[starts] != 1, True).tolist()
    taken = bytearray(len(candidates))
    left = num_picked
    while left:
        # Enough draws at once for most examples.
        anchors = rng.integers(0, len(candidates), 32).tolist()
        lengths = draw_span_lengths(probabilities, 32, rng).tolist()
        for anchor, length in zip(anchors, lengths):
            if taken[anchor]:
                continue
            word = word_of[anchor]
            last = word + 1
            while last < word + length and not gap_before[last]:
                last += 1
            for place in range(bounds[word], bounds[last]):
                if left and not taken[place]:
                    taken[place] = 1
                    left -= 1
            if left == 0:
                break
    return candidates[np.frombuffer(taken, bool)]


def spans_of(picked: np.ndarray) -> np.ndarray:
    """Return int64 [s, 2]: begin and end (exclusive) of each run of neighbouring positions.

    >>> spans_of(np.array([3, 4, 7]))
    array([[3, 5],
           [7, 8]])
    """
    first = np.diff(picked, prepend=-2) != 1
    last = np.append(first[1:], True)[: len(picked)]
    return np.stack([picked[first], picked[last] + 1], 1)


@dataclasses.dataclass(frozen=True)
class SpanMask:
    """SpanBERT's masking: spans of whole words until 15 % of the tokens are targets, each span with one fate.

    Joshi et al. 2020, section 3.1, as in the released code: a span has 1 to `max_words` words, geometrically
    distributed (3.8 on average), and begins with the word in which an evenly drawn token lies; what would exceed the
    budget of ceil(rate * tokens) is cut. Spans that touch are one. With `mask_share` all tokens of a span become [MASK],
    with `random_share` each becomes a random token, else all stay.

    A worked example, with mask id 4: of 2 10 11 12 13 3 (2 and 3 frame the text) the span 11 12 is picked: inputs
    2 10 4 4 13 3, targets -100 -100 11 12 -100 -100, and its boundaries are the places of 10 and 13.
    """

    rate: float = 0.15
    """share of the tokens (special symbols not counted) that become targets, rounded up"""
    p: float = 0.2
    """of the geometric distribution of span lengths: the higher, the shorter"""
    max_words: int = 10
    """longest span in words"""
    mask_share: float = 0.8
    """share of the spans that become [MASK]"""
    random_share: float = 0.1
    """share of the spans whose tokens become random ones; the rest stay as they are"""
    random_from: Source = "text"
    """where random tokens come from: as often as the `text` has them, or every symbol of the `vocabulary` alike"""
    max_restored: int = 15
    """how many tokens of a span, from its first on, its boundaries are asked for (the span boundary objective)"""

    needs_roles: ClassVar[frozenset[str]] = frozenset({"mask"})
    restores: ClassVar[str] = "masked"
    lookahead: ClassVar[int] = 0
    gives_spans: ClassVar[bool] = True

    @property
    def needs_counts(self) -> bool:
        """Whether the tokens of the training text must have been counted."""
        return self.random_from == "text" and self.random_share > 0

    def __post_init__(self) -> None:
        check_share(self, "rate")
        check_fates(self)
        if not 0 < self.p < 1:
            raise InputError(f"p is {self.p}: it is the p of a geometric distribution, give a number between 0 and 1")
        for name in ("max_words", "max_restored"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be at least 1")

    def check(self, vocabulary: Vocabulary) -> None:
        """Raise InputError when the vocabulary lacks the mask symbol."""
        vocabulary.require("mask")

    def __call__(self, example: Example, vocabulary: Vocabulary, rng: np.random.Generator) -> Example:
        """Return the example with noised inputs, with targets in the spans, and with the spans that have boundaries."""
        candidates = np.flatnonzero(~example.special)
        begins_word = ~vocabulary.continues_word[example.inputs[candidates]]
        budget = math.ceil(round(self.rate * len(candidates), 9))
        probabilities = span_length_probabilities(self.p, self.max_words)
        picked = pick_spans(candidates, begins_word, budget, probabilities, rng)
        spans = spans_of(picked)
        targets = np.full(len(example), NO_TARGET, np.int64)
        targets[picked] = example.inputs[picked]
        fate = np.repeat(rng.random(len(spans)), spans[:, 1] - spans[:, 0])
        inputs = example.inputs.copy()
        inputs[picked[fate < self.mask_share]] = vocabulary.mask
        random = picked[(fate >= self.mask_share) & (fate < self.mask_share + self.random_share)]
        if len(random):
            inputs[random] = stray_tokens(self.random_from, vocabulary, len(random), rng)
        return dataclasses.replace(example, inputs=inputs, targets=targets, spans=self._with_boundaries(spans, example))

    def _with_boundaries(self, spans: np.ndarray, example: Example) -> np.ndarray:
        """Return int64 [s, 3]: the spans that have a neighbour on both sides, and where what they restore ends."""
        inside = (spans[:, 0] > 0) & (spans[:, 1] < len(example))
        spans = spans[inside]
        if example.doc_ids is not None:
            left, right = example.doc_ids[spans[:, 0] - 1], example.doc_ids[spans[:, 1]]
            spans = spans[left == right]
        return np.column_stack([spans, np.minimum(spans[:, 1], spans[:, 0] + self.max_restored)])
