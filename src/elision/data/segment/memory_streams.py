"""Overlapping rows of one stream, for models that remember: the segmenter of XLNet."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import Example
from elision.data.order import generator
from elision.data.store import Split
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class MemoryStreams:
    """XLNet's examples: a stretch of text that goes into the memory, then two segments, A [SEP] B [SEP] [CLS].

    Yang et al. 2019, section 2.5, built as in the released code. All documents make one stream, each with the end-of-text
    symbol behind it. An example takes `reuse_length` tokens of it, and gives the rest of its length to A, which follows at
    once, and B: with probability `random_probability` (or when A has no end of a sentence in it to be cut at) B is from
    elsewhere, else what follows A. Where A ends is drawn among the ends of sentences. The longer of the two loses tokens
    at its end until they fit. The next example begins where the reused tokens end, so it reads A again, and what a model
    remembers of the reused tokens is what came right before.

    One departure: the released code draws B from the same row of a batch, here it comes from anywhere in the split,
    since how the split is cut into rows is the loader's affair.

    A worked example, with max_length 9, reuse_length 3 and 4 [SEP], 3 [CLS]: the stream 10 11 12 13 14 15 16 17 18, whose
    sentences begin at 10, 13 and 15, becomes 10 11 12 | 13 14 4 15 4 3 with segments 0 0 0 | 0 0 0 1 1 2; the next
    one begins with 13 14 15.
    """

    max_length: int = 512
    """tokens in an example, special symbols included"""
    reuse_length: int = 256
    """tokens at the start of an example that come before its segments, and after which the next example begins"""
    random_probability: float = 0.5
    """probability that B comes from elsewhere"""
    labels: bool = False
    """say of each example whether B came from elsewhere (label 1), for NextSentence; XLNet itself does not ask"""

    needs_roles: ClassVar[frozenset[str]] = frozenset({"cls", "sep", "eos"})
    label: ClassVar[str] = "next"
    num_types: ClassVar[int] = 3
    contiguous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.reuse_length < 1:
            raise InputError(f"reuse_length is {self.reuse_length}: it must be at least 1")
        if self.max_length < self.reuse_length + 5:
            raise InputError(
                f"max_length is {self.max_length}: after the {self.reuse_length} tokens of reuse_length, A [SEP] B [SEP] "
                f"[CLS] needs at least 5 more"
            )
        if not 0 <= self.random_probability <= 1:
            raise InputError(
                f"random_probability is {self.random_probability}: it is a probability, give a number from 0 to 1"
            )

    @property
    def num_labels(self) -> int:
        """How many labels there are."""
        return len(self.label_meanings)

    @property
    def label_meanings(self) -> tuple[str, ...]:
        """What each label says."""
        if not self.labels:
            return ()
        return (
            "Does B follow A? Yes: B is what comes next in the text",
            "Does B follow A? No: B was drawn from elsewhere",
        )

    def plan(self, split: Split, vocabulary: Vocabulary, seed: int, lookahead: int = 0) -> "MemoryStreamPlan":
        """Count the examples."""
        assert lookahead == 0
        return MemoryStreamPlan(self, split, vocabulary, seed)


class MemoryStreamPlan:
    """Examples by arithmetic: example i starts at token i * reuse_length of the stream."""

    contiguous = True

    def __init__(self, settings: MemoryStreams, split: Split, vocabulary: Vocabulary, seed: int):
        self._settings, self._split, self._seed = settings, split, seed
        self._cls, self._sep, self._eos = (vocabulary.require(role) for role in ("cls", "sep", "eos"))
        # Where each document begins in the stream, and where the last one's end of text is past.
        self._starts = split.document_starts + np.arange(split.num_documents + 1)
        self._stream = int(self._starts[-1])
        # A text that is shorter than one example makes a short one.
        self._reuse = min(settings.reuse_length, self._stream // 2)
        self._room = min(settings.max_length - settings.reuse_length - 3, self._stream - self._reuse)
        if self._room < 2:
            raise InputError(f"split {split.name!r} of the store holds no text: prepare a larger corpus")

    def __len__(self) -> int:
        return (self._stream - self._room) // self._reuse

    def example(self, index: int) -> Example:
        """Build example `index`."""
        settings, room = self._settings, self._room
        rng = generator(self._seed, "memory streams", index)
        begin = index * self._reuse
        a_begin = begin + self._reuse
        cuts, end = self._sentence_starts(a_begin, a_begin + room)
        random = len(cuts) == 0 or rng.random() < settings.random_probability
        a_end = int(rng.choice(cuts)) if len(cuts) else end
        b_begin, b_end = a_end, end
        if random:
            wanted = max(1, room - (a_end - a_begin))
            somewhere = int(rng.integers(0, self._stream - wanted + 1))
            b_begin = self._sentence_before(somewhere)
            b_end = self._sentence_starts(somewhere, somewhere + wanted)[1]
        a_end, b_end = self._fitted(a_begin, a_end, b_begin, b_end)
        size_a, size_b = a_end - a_begin, b_end - b_begin
        parts = [self._tokens(begin, a_end), [self._sep], self._tokens(b_begin, b_end), [self._sep, self._cls]]
        inputs = np.concatenate(parts).astype(np.int64)
        sizes = [self._reuse + size_a + 1, size_b + 1, 1]
        special = np.zeros(len(inputs), bool)
        special[[sizes[0] - 1, -2, -1]] = True
        return Example(
            inputs,
            special,
            type_ids=np.repeat(np.arange(3), sizes),
            label=int(random) if settings.labels else None,
            summary=len(inputs) - 1,
        )

    def _fitted(self, a_begin: int, a_end: int, b_begin: int, b_end: int) -> tuple[int, int]:
        """Return the ends of A and B when the longer one (B, when they are equal) has lost tokens until both fit."""
        size_a, size_b = a_end - a_begin, b_end - b_begin
        excess = max(0, size_a + size_b - self._room)
        from_longer = min(excess, abs(size_a - size_b))
        drop_a = (excess - from_longer) // 2 + (from_longer if size_a > size_b else 0)
        return a_end - drop_a, b_end - (excess - drop_a)

    def _tokens(self, begin: int, end: int) -> np.ndarray:
        """Return the tokens begin ... end - 1 of the stream, ends of text included."""
        first = int(np.searchsorted(self._starts, begin, side="right")) - 1
        last = int(np.searchsorted(self._starts, end, side="right")) - 1
        tokens = np.empty(end - begin, np.int64)
        # The end of text of document n stands right before document n + 1.
        is_end = np.zeros(end - begin, bool)
        is_end[self._starts[first + 1 : last + 1] - 1 - begin] = True
        tokens[is_end] = self._eos
        tokens[~is_end] = self._split.tokens(begin - first, end - last)
        return tokens

    def _sentence_starts(self, begin: int, end: int) -> tuple[np.ndarray, int]:
        """Return the places of the stream after `begin` and before `end` at which sentences start, and the first of the
        places from `end` on at which one ends."""
        sentences = self._split.sentence_starts
        first = int(np.searchsorted(sentences, self._token(begin)))
        last = min(int(np.searchsorted(sentences, self._token(end))), len(sentences) - 1)
        places = self._place(np.asarray(sentences[first : last + 1]))
        return places[(places > begin) & (places < end)], min(max(int(places[-1]), end), self._stream)

    def _sentence_before(self, place: int) -> int:
        """Return where the sentence begins that holds a place of the stream; an end of text belongs to the last one."""
        sentences = self._split.sentence_starts
        document = int(np.searchsorted(self._starts, place, side="right")) - 1
        token = min(place, int(self._starts[document + 1]) - 2) - document
        return int(self._place(np.asarray(sentences[np.searchsorted(sentences, token, side="right") - 1])))

    def _token(self, place: int) -> int:
        """Return which token of the split stands at a place of the stream, or comes next after an end of text."""
        return min(place - int(np.searchsorted(self._starts, place, side="right")) + 1, self._split.num_tokens)

    def _place(self, token: np.ndarray) -> np.ndarray:
        """Return where in the stream tokens of the split stand."""
        document = np.searchsorted(self._split.document_starts, token, side="right") - 1
        return token + np.minimum(document, self._split.num_documents - 1)
