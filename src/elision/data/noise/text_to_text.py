"""The objectives that T5's study compares: where tokens are left out, what is read, and what is to be written.

Three choices that multiply. The study's own combinations (Raffel et al. 2020, section 3.3) are

    span corruption      RandomSpans()       read "marked"      write "marked"
    i.i.d., sentinels    RandomTokens()      read "marked"      write "marked"
    BERT-style           RandomTokens()      read "replaced"    write "whole"
    MASS-style           RandomTokens()      read "hidden"      write "whole"
    drop corrupted       RandomTokens()      read "dropped"     write "left out"
    prefix LM            Ending()            read "dropped"     write "left out"
    deshuffling          RandomTokens(1.0)   read "shuffled"    write "whole"
    language model       RandomTokens(1.0)   read "dropped"     write "left out"
"""

import dataclasses
from typing import ClassVar, Literal

import numpy as np

from elision.data.example import Example
from elision.data.noise.settings import check_share
from elision.data.noise.span_corruption import (
    begins_run,
    check_spans,
    num_left_out,
    pick_random_spans,
    require_sentinels,
    with_sentinels,
    written_anew,
)
from elision.data.noise.stray import stray_tokens
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class RandomSpans:
    """Spans of random lengths at random places; how many tokens and spans there are is fixed (see `SpanCorruption`)."""

    rate: float = 0.15
    """share of the tokens that are left out"""
    mean_length: float = 3.0
    """mean length of the spans, in tokens"""

    def __post_init__(self) -> None:
        check_spans(self)

    def __call__(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """Return bool [length], True where a token is left out."""
        return pick_random_spans(length, self.rate, self.mean_length, rng)

    def most(self, length: int) -> tuple[int, int, int]:
        """Return the most tokens that stay, the most that are left out, and the most runs of either."""
        num_tokens, num_spans = num_left_out(length, self.rate, self.mean_length)
        return length - num_tokens, num_tokens, max(num_spans, 1)


@dataclasses.dataclass(frozen=True)
class RandomTokens:
    """A coin for every token: neighbours that are left out are one span."""

    rate: float = 0.15
    """probability that a token is left out; 1 leaves out the whole text"""

    def __post_init__(self) -> None:
        check_share(self, "rate")

    def __call__(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """Return bool [length], True where a token is left out."""
        return rng.random(length) < self.rate

    def most(self, length: int) -> tuple[int, int, int]:
        """Return the most tokens that stay, the most that are left out, and the most runs of either."""
        drawn = 0 < self.rate < 1
        return length * (self.rate < 1), length * (self.rate > 0), (length + 1) // 2 if drawn else 1


@dataclasses.dataclass(frozen=True)
class Ending:
    """All from a random place on: the text before it, 1 to n - 1 tokens alike, is what the rest goes on from."""

    def __call__(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """Return bool [length], True where a token is left out."""
        return np.arange(length) >= rng.integers(1, max(length, 2))

    def most(self, length: int) -> tuple[int, int, int]:
        """Return the most tokens that stay, the most that are left out, and the most runs of either."""
        return max(length - 1, 1), length - 1, 1


@dataclasses.dataclass(frozen=True)
class TextToText:
    """An objective of T5's study: `picked` says what is left out, `read` what stands in its place, `write` what is to be
    written. Both sides end with the end symbol. (For T5's own objective, `SpanCorruption` says it in one word.)

    Raffel et al. 2020, section 3.3, as in the released code. Tokens at random that touch share a sentinel, and where
    they make more runs than there are sentinels, the last ones stay in the text.

    A worked example, with sentinels 99, 98 and the end 1: of 10 11 12 13 14 the tokens 11 12 and 14 are left out.
    Read "marked" 10 99 13 98 1, "hidden" 10 99 99 13 99 1, "replaced" 10 99 57 13 99 1 (57 is random), "dropped" 10 13 1,
    "shuffled" 10 14 11 13 12 1. Write "marked" 99 11 12 98 14 1, "left out" 11 12 14 1, "whole" 10 11 12 13 14 1.
    """

    picked: RandomSpans | RandomTokens | Ending = RandomTokens()
    """which tokens are left out"""
    read: Literal["marked", "hidden", "replaced", "dropped", "shuffled"] = "marked"
    """what is read where they were: a sentinel for each run (marked), the first sentinel for each token (hidden) or, for
    one in ten, a random token (replaced), nothing (dropped), or they themselves in random order (shuffled)"""
    write: Literal["marked", "left out", "whole"] = "marked"
    """what is to be written: what was left out with a sentinel for each run that was not (marked), what was left out
    alone, or the whole text"""
    random_share: float = 0.1
    """share of the tokens that become random ones where they are "replaced" """

    needs_roles: ClassVar[frozenset[str]] = frozenset({"eos"})
    restores: ClassVar[str] = "sequence"
    lookahead: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check_share(self, "random_share")

    def check(self, vocabulary: Vocabulary) -> None:
        """Raise InputError when the vocabulary lacks the symbols that stand in for tokens."""
        vocabulary.require("eos")
        require_sentinels(vocabulary, self._fewest_sentinels(), f"leaving out tokens ({self.read}, {self.write})")

    def lengths(self, length: int) -> tuple[int, int]:
        """Return the most inputs and the most answer tokens that `length` tokens become."""
        kept, left_out, runs = self.picked.most(length)
        read = {"marked": min(length, kept + runs), "dropped": kept}.get(self.read, length)
        written = {"marked": max(1, min(length, left_out + runs)), "left out": left_out, "whole": length}[self.write]
        return read + 1, written + 1

    def __call__(self, example: Example, vocabulary: Vocabulary, rng: np.random.Generator) -> Example:
        """Return the example as it is to be read, with what is to be written.

        Raises: InputError when there are more spans than sentinels.
        """
        tokens, sentinels = example.inputs.astype(np.int64), vocabulary.sentinels
        mask = self.picked(len(tokens), rng)
        if "marked" in (self.read, self.write):
            if isinstance(self.picked, RandomTokens):
                # The text has at most one run more than what is left out.
                mask = mask & (np.cumsum(begins_run(mask)) < len(sentinels))
            runs = max(int(begins_run(mask).sum()), int(begins_run(~mask).sum()))
            require_sentinels(vocabulary, runs, f"an example of {len(tokens)} tokens")
        answer = tokens
        if self.write != "whole":
            answer = with_sentinels(tokens, ~mask, sentinels) if self.write == "marked" else tokens[mask]
        return written_anew(example, self._inputs(tokens, mask, vocabulary, rng), answer, vocabulary)

    def _inputs(
        self, tokens: np.ndarray, mask: np.ndarray, vocabulary: Vocabulary, rng: np.random.Generator
    ) -> np.ndarray:
        """Return what is read."""
        if self.read == "marked":
            return with_sentinels(tokens, mask, vocabulary.sentinels)
        if self.read == "dropped":
            return tokens[~mask]
        inputs = tokens.copy()
        if self.read == "shuffled":
            inputs[mask] = rng.permutation(tokens[mask])
            return inputs
        inputs[mask] = vocabulary.sentinels[0]
        if self.read == "replaced":
            random = np.flatnonzero(mask)[rng.random(mask.sum()) < self.random_share]
            inputs[random] = stray_tokens("vocabulary", vocabulary, len(random), rng)
        return inputs

    def _fewest_sentinels(self) -> int:
        """Return how many sentinels are needed whatever the example."""
        if "marked" in (self.read, self.write):
            return 2 if isinstance(self.picked, RandomTokens) else 1
        return int(self.read in ("hidden", "replaced"))
