"""Spans left out, a sentinel in the place of each: T5's noise."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import Example
from elision.data.noise.settings import check_share
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary


def num_left_out(length: int, rate: float, mean_length: float) -> tuple[int, int]:
    """Return how many of `length` tokens are left out, and in how many spans: fixed numbers, not drawn ones.

    At least one token is left out and one stays, and there are no more spans than tokens on either side of them.

    >>> num_left_out(568, 0.15, 3.0)
    (85, 28)
    """
    if length < 2:
        return 0, 0
    num_tokens = min(max(round(length * rate), 1), length - 1)
    num_spans = max(round(num_tokens / mean_length), 1)
    return num_tokens, min(num_spans, num_tokens, length - num_tokens)


def example_lengths(length: int, rate: float, mean_length: float) -> tuple[int, int]:
    """Return how many inputs and how many answer tokens `length` tokens become, the end symbol of each counted.

    >>> example_lengths(568, 0.15, 3.0)
    (512, 114)
    """
    num_tokens, num_spans = num_left_out(length, rate, mean_length)
    return length - num_tokens + num_spans + 1, num_tokens + max(num_spans, 1) + 1


def chunk_length(max_inputs: int, rate: float = 0.15, mean_length: float = 3.0) -> tuple[int, int]:
    """Return the longest stretch of text that becomes at most `max_inputs` inputs, and the length of its answer.

    >>> chunk_length(512), chunk_length(1024)
    ((568, 114), (1137, 229))

    Raises: InputError when there is no room for a token, a sentinel and the end symbol.
    """
    if max_inputs < 3:
        raise InputError(f"max_inputs is {max_inputs}: a token, a sentinel and the end symbol need 3")
    length = 2
    while example_lengths(length + 1, rate, mean_length)[0] <= max_inputs:
        if length > 1000 * max_inputs:
            raise InputError(f"rate is {rate}: nearly all is left out, so text of any length would fit; lower it")
        length += 1
    return length, example_lengths(length, rate, mean_length)[1]


def split_at_random(num_items: int, num_parts: int, rng: np.random.Generator) -> np.ndarray:
    """Return the sizes, int64 [num_parts], none of them 0, of a cut of `num_items`: every such cut equally likely."""
    cuts = np.sort(rng.permutation(num_items - 1)[: num_parts - 1]) + 1
    return np.diff(cuts, prepend=0, append=num_items)


def pick_random_spans(
    length: int, rate: float, mean_length: float, rng: np.random.Generator, roll: bool = False
) -> np.ndarray:
    """Return bool [length], True in the spans that are left out.

    Text and spans are both cut at random into the same number of parts, which then take turns, text first: so the first
    token always stays and the last is always left out, unless `roll` turns the whole round by a random number of places.
    """
    num_tokens, num_spans = num_left_out(length, rate, mean_length)
    if not num_tokens:
        return np.zeros(length, bool)
    spans = split_at_random(num_tokens, num_spans, rng)
    kept = split_at_random(length - num_tokens, num_spans, rng)
    mask = np.repeat(np.tile([False, True], num_spans), np.stack([kept, spans], 1).reshape(-1))
    return np.roll(mask, rng.integers(length)) if roll else mask


def begins_run(mask: np.ndarray) -> np.ndarray:
    """Return bool [n], True where a run of True in `mask` begins."""
    return mask & ~np.append(False, mask[:-1])


def with_sentinels(tokens: np.ndarray, mask: np.ndarray, sentinels: np.ndarray) -> np.ndarray:
    """Return the tokens with each run of True in `mask` replaced by one sentinel, a new one each time.

    >>> with_sentinels(np.arange(10, 16), np.array([False, True, True, False, True, False]), np.array([99, 98]))
    array([10, 99, 13, 98, 15])
    """
    begins = begins_run(mask)
    rewritten = tokens.astype(np.int64)
    rewritten[begins] = sentinels[: begins.sum()]
    return rewritten[~mask | begins]


def written_anew(example: Example, inputs: np.ndarray, answer: np.ndarray, vocabulary: Vocabulary) -> Example:
    """Return an example of other inputs and an answer, each ended by the end symbol, in the language of `example`.

    Raises: InputError when the example holds documents that must not see each other.
    """
    if example.doc_ids is not None:
        raise InputError(
            "the noise rewrites an example as a whole, which here holds several documents that must not see each other: "
            "set segmenter.cross_documents to True, or use a segmenter whose examples are of one document"
        )
    inputs, answer = (np.append(part, vocabulary.eos).astype(np.int64) for part in (inputs, answer))
    languages = [None, None]
    if example.languages is not None and len(example):
        languages = [np.full(len(part), example.languages[0]) for part in (inputs, answer)]
    return Example(
        inputs=inputs,
        special=vocabulary.special[inputs],
        answer=answer,
        languages=languages[0],
        decoder_languages=languages[1],
        label=example.label,
        summary=len(answer) - 1,
    )


def check_spans(settings: object) -> None:
    """Raise InputError unless `rate` is a share and `mean_length` at least 1."""
    check_share(settings, "rate")
    if settings.mean_length < 1:
        raise InputError(f"mean_length is {settings.mean_length}: a span has at least 1 token")


def require_sentinels(vocabulary: Vocabulary, num_needed: int, why: str) -> None:
    """Raise InputError unless the vocabulary has so many sentinels."""
    there = len(vocabulary.sentinels)
    if there < num_needed:
        raise InputError(
            f"{why} needs {num_needed} sentinel{'s' * (num_needed != 1)}, but the tokenizer has {there} (symbols "
            f"<extra_id_0>, <extra_id_1> ...): prepare the store with `--recipe t5-tiny`, whose tokenizer has 100, or "
            f"take shorter examples (segmenter.max_length) or longer spans (noise.mean_length)"
        )


@dataclasses.dataclass(frozen=True)
class SpanCorruption:
    """T5's noise: 15 % of the tokens are left out in spans of 3 on average; each becomes one sentinel of its own.

    Raffel et al. 2020, section 3.1.4, as in the released code, which differs from the paper's figure: how many tokens
    and spans there are is fixed by the length of the example; it begins with text and ends with a span; and what is to
    be written holds a sentinel for each stretch of text that stayed, then the span that follows it, so no sentinel
    closes it. Both sides end with the end symbol. 568 tokens become exactly 512 inputs and 114 to write.

    A worked example, with sentinels 99, 98 and the end 1: of 10 11 12 13 14 15 the spans 12 13 and 15 are left out:
    inputs 10 11 99 14 98 1, answer 99 12 13 98 15 1.
    """

    rate: float = 0.15
    """share of the tokens that are left out"""
    mean_length: float = 3.0
    """mean length of the spans that are left out, in tokens"""
    random_roll: bool = False
    """turn the pattern round by a random number of places, so that every token is left out equally often"""

    needs_roles: ClassVar[frozenset[str]] = frozenset({"eos"})
    restores: ClassVar[str] = "sequence"
    lookahead: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check_spans(self)

    def check(self, vocabulary: Vocabulary) -> None:
        """Raise InputError when the vocabulary has no sentinel or end symbol."""
        vocabulary.require("eos")
        require_sentinels(vocabulary, 1, "leaving out spans")

    def num_sentinels(self, length: int) -> int:
        """Return how many sentinels an example of `length` tokens uses at most."""
        return max(1, num_left_out(length, self.rate, self.mean_length)[1] + self.random_roll)

    def lengths(self, length: int) -> tuple[int, int]:
        """Return the most inputs and the most answer tokens that `length` tokens become."""
        inputs, answer = example_lengths(length, self.rate, self.mean_length)
        return inputs + self.random_roll, answer + self.random_roll

    def __call__(self, example: Example, vocabulary: Vocabulary, rng: np.random.Generator) -> Example:
        """Return the example with sentinels in the place of spans, and the spans as what is to be written.

        Raises: InputError when there are more spans than sentinels.
        """
        length, sentinels = len(example), vocabulary.sentinels
        mask = pick_random_spans(length, self.rate, self.mean_length, rng, self.random_roll)
        require_sentinels(vocabulary, self.num_sentinels(length), f"an example of {length} tokens")
        inputs, answer = (with_sentinels(example.inputs, each, sentinels) for each in (mask, ~mask))
        return written_anew(example, inputs, answer, vocabulary)
