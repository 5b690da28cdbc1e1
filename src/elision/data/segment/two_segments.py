"""ELECTRA's examples: sentences that follow each other, as two segments."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import Example
from elision.data.order import generator
from elision.data.segment.pairs import sections
from elision.data.store import Split
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class TwoSegments:
    """ELECTRA's examples: [CLS] A [SEP] B [SEP], where B goes on where A ends; nothing is said of the pair.

    Built as in the code of Clark et al. 2020: sentences of one document are gathered until they fill the target length
    (the full one, or with `short_probability` one drawn from 5 up to it). A takes sentences up to half of it, and the
    one that crosses the half with probability 1/2; the rest are B. With `single_probability` all are A and there is no
    B. What is too long is cut at the end of A (which has all the room) and then of B.

    One departure: there, a short sentence after those of B can still go to A, out of order; here A ends where B begins.

    A worked example: with 2 for [CLS], 3 for [SEP] and a length of 8, so that the half is 2, the sentences
    10 11 | 12 13 14 | 15 become 2 10 11 3 12 13 14 3.
    """

    max_length: int = 128
    """tokens in an example, special symbols included"""
    short_probability: float = 0.05
    """share of the examples that aim at a random shorter length"""
    single_probability: float = 0.1
    """share of the examples that have one segment only"""

    needs_roles: ClassVar[frozenset[str]] = frozenset({"cls", "sep"})
    num_labels: ClassVar[int] = 0
    label_meanings: ClassVar[tuple[str, ...]] = ()
    num_types: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.max_length < 5:
            raise InputError(f"max_length is {self.max_length}: [CLS] A [SEP] B [SEP] needs at least 5")
        for name in ("short_probability", "single_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}: it is a probability, give a number from 0 to 1")

    def plan(self, split: Split, vocabulary: Vocabulary, seed: int, lookahead: int = 0) -> "TwoSegmentsPlan":
        """Gather the sentences of every document of `split`."""
        assert lookahead == 0
        return TwoSegmentsPlan(self, split, vocabulary, seed)


class TwoSegmentsPlan:
    """The examples of a split as stretches of its sentences: 16 bytes an example."""

    contiguous = False

    def __init__(self, settings: TwoSegments, split: Split, vocabulary: Vocabulary, seed: int):
        if split.num_sentences == 0:
            raise InputError(f"split {split.name!r} of the store holds no text: prepare a larger corpus")
        self._settings, self._split, self._seed = settings, split, seed
        self._cls, self._sep = vocabulary.require("cls"), vocabulary.require("sep")
        self._first, self._num_sentences, self._goal = self._gather()

    def __len__(self) -> int:
        return len(self._first)

    def _gather(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return first sentence, number of sentences and target length of every example.

        Walk all documents side by side; each turn of the loop takes one example from each.
        """
        settings, token_at = self._settings, self._split.sentence_starts
        first, last, _ = sections(self._split)
        pieces: list[tuple[np.ndarray, ...]] = []
        walk = np.arange(len(first))
        while len(walk):
            rng = generator(self._seed, "two segments: lengths", len(pieces))
            goal = np.full(len(walk), settings.max_length)
            short = rng.random(len(walk)) < settings.short_probability
            goal[short] = rng.integers(5, settings.max_length + 1, int(short.sum()))
            start = first[walk]
            end = np.minimum(np.searchsorted(token_at, token_at[start] + goal), last[walk])
            pieces.append((start, (end - start).astype(np.int32), goal.astype(np.int32)))
            first[walk] = end
            walk = walk[end < last[walk]]
        return tuple(np.concatenate(column) for column in zip(*pieces))

    def example(self, index: int) -> Example:
        """Build example `index`: divide its sentences, cut them to length, frame them with [CLS] and [SEP]."""
        first, room = int(self._first[index]), self._settings.max_length
        starts = self._split.sentence_starts[first : first + int(self._num_sentences[index]) + 1]
        begin, end = int(starts[0]), int(starts[-1])
        middle = min(self._middle(index, starts), begin + room - 2)
        size_a, size_b = middle - begin, max(0, min(end - middle, room - 3 - (middle - begin)))
        size = size_a + 2 + (size_b + 1 if size_b else 0)
        inputs = np.full(size, self._sep, np.int64)
        inputs[0] = self._cls
        inputs[1 : size_a + 1] = self._split.tokens(begin, middle)
        special = np.zeros(size, bool)
        special[[0, size_a + 1, -1]] = True
        if size_b:
            inputs[size_a + 2 : -1] = self._split.tokens(middle, middle + size_b)
        type_ids = (np.arange(size) >= size_a + 2).astype(np.int64)
        return Example(inputs, special, type_ids=type_ids)

    def _middle(self, index: int, starts: np.ndarray) -> int:
        """Return the offset of the token where B begins."""
        rng = generator(self._seed, "two segments: halves", index)
        single, crosses = rng.random() < self._settings.single_probability, rng.random() < 0.5
        if single:
            return int(starts[-1])
        half = (int(self._goal[index]) - 3) // 2
        ends = starts[1:] - starts[0]
        num_a = max(1, int(np.searchsorted(ends, half)))
        if crosses and num_a < len(ends) and ends[num_a - 1] < half:
            num_a += 1
        return int(starts[num_a])
