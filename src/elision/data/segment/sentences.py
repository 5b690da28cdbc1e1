"""Whole sentences up to the full length: the examples of RoBERTa and SpanBERT."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np

from elision.data.example import Example
from elision.data.store import Split
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary

# Sentences whose examples are planned at a time, which bounds the memory that planning takes.
BLOCK_SENTENCES = 1 << 20


@dataclasses.dataclass(frozen=True)
class FullSentences:
    """RoBERTa's FULL-SENTENCES: <s> x </s>, where x is as many sentences in a row as there is room for.

    Liu et al. 2019, section 4.2. An example goes on with the next document, after one more separator that stands
    between the two. With `cross_documents=False` it ends with its document: DOC-SENTENCES there, and SpanBERT's single
    sequence (Joshi et al. 2020, section 3.3).

    The released code ends every line of its corpus with a separator; `end_sentences` does that with every sentence. It
    is off because a line there need not be a sentence, and fine-tuning has no such separators.

    A worked example, with <s> 0 and </s> 2 and a length of 8: the sentences 10 11 | 12 of one document and 13 | 14 15
    of the next become 0 10 11 12 2 13 2 (with 14 15 it would be too long) and 0 14 15 2.
    """

    max_length: int = 512
    """tokens in an example, special symbols included"""
    cross_documents: bool = True
    """go on with the next document while there is room; tokens see each other across the border"""
    long_sentences: Literal["cut", "drop"] = "cut"
    """what becomes of sentences that are longer than an example: cut into several, or left out (SpanBERT)"""
    end_sentences: bool = False
    """a separator after every sentence"""

    needs_roles: ClassVar[frozenset[str]] = frozenset({"cls", "sep"})
    num_labels: ClassVar[int] = 0
    num_types: ClassVar[int] = 0
    label_meanings: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.max_length < 3:
            raise InputError(f"max_length is {self.max_length}: <s> x </s> needs at least 3")

    def plan(self, split: Split, vocabulary: Vocabulary, seed: int, lookahead: int = 0) -> "FullSentencesPlan":
        """Gather the sentences; with `lookahead` examples are that many tokens longer."""
        return FullSentencesPlan(self, split, vocabulary, self.max_length - 2 + lookahead)


class FullSentencesPlan:
    """The examples of a split as stretches of its token stream: 16 bytes an example."""

    contiguous = False

    def __init__(self, settings: FullSentences, split: Split, vocabulary: Vocabulary, room: int):
        self._settings, self._split, self._room = settings, split, room
        self._cls, self._sep = vocabulary.require("cls"), vocabulary.require("sep")
        pieces = list(self._stretches())
        self._begins, self._ends = (
            (np.concatenate(column) for column in zip(*pieces)) if pieces else (np.empty(0, np.int64),) * 2
        )
        if not len(self):
            what = f"holds no sentence of at most {room} tokens" if split.num_sentences else "holds no text"
            raise InputError(f"split {split.name!r} of the store {what}: prepare a larger corpus")

    def __len__(self) -> int:
        return len(self._begins)

    def example(self, index: int) -> Example:
        """Build example `index`: <s>, the sentences with the separators between them, </s>."""
        begin, end = int(self._begins[index]), int(self._ends[index])
        at = self._separators(begin, end)
        size = end - begin + len(at) + 2
        special = np.zeros(size, bool)
        special[[0, -1]] = True
        special[at - begin + np.arange(len(at)) + 1] = True
        inputs = np.full(size, self._sep, np.int64)
        inputs[0] = self._cls
        inputs[~special] = self._split.tokens(begin, end)
        return Example(inputs, special)

    def _separators(self, begin: int, end: int) -> np.ndarray:
        """Return the offsets, ascending, before which a separator stands inside of an example."""
        found = [_within(self._split.document_starts, begin, end)]
        if self._settings.end_sentences:
            found.append(_within(self._split.sentence_starts, begin, end))
        return np.sort(np.concatenate(found)).astype(np.int64)

    def _stretches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (begins, ends): greedily, each stretch is as long as room and document allow.

        From every sentence it is known by arithmetic where an example that began there would end; one walk from end to
        end then picks those that do begin one.
        """
        starts, done = self._split.sentence_starts, 0
        while done < starts[-1]:
            at = int(np.searchsorted(starts, done, side="right")) - 1
            stop = min(at + BLOCK_SENTENCES, self._split.num_sentences)
            # An example that begins in this block may end in the next one: look on as far as it can reach.
            reach = int(np.searchsorted(starts, starts[stop] + self._room))
            begins, ends, documents = self._units(at, min(reach, self._split.num_sentences), done)
            within = int(np.searchsorted(begins, starts[stop]))
            done = int(starts[stop])
            if within:
                first, last = self._walk(begins, ends, documents, within)
                yield begins[first], ends[last - 1]
                done = max(done, int(ends[last[-1] - 1]))

    def _units(self, at: int, stop: int, done: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return begin, end and document of what is never torn: sentences from token `done` on, and parts of long ones."""
        starts = np.asarray(self._split.sentence_starts[at : stop + 1])
        documents = np.searchsorted(self._split.document_sentences, np.arange(at, stop), side="right") - 1
        begins, ends = starts[:-1], starts[1:]
        sizes = ends - begins
        if self._settings.long_sentences == "drop":
            kept = (sizes > 0) & (sizes <= self._room) & (begins >= done)
            return begins[kept], ends[kept], documents[kept]
        num_parts = -(-sizes // self._room)
        part = np.arange(num_parts.sum()) - np.repeat(np.cumsum(num_parts) - num_parts, num_parts)
        begins = np.repeat(begins, num_parts) + part * self._room
        ends = np.minimum(np.repeat(ends, num_parts), begins + self._room)
        kept = begins >= done
        return begins[kept], ends[kept], np.repeat(documents, num_parts)[kept]

    def _walk(
        self, begins: np.ndarray, ends: np.ndarray, documents: np.ndarray, within: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the first unit of each example and the one after its last, until one begins at `within` or later."""
        # Separators of the stream that lie before a unit's first token, and before its end.
        separators = documents.astype(np.int64)
        if self._settings.end_sentences:
            separators = separators + np.searchsorted(self._split.sentence_starts, begins, side="right")
        following = np.searchsorted(ends + separators, begins[:within] + separators[:within] + self._room, side="right")
        # The text of an example has no gap (where a sentence was dropped), nor a border between documents.
        breaks = begins[1:] != ends[:-1]
        if not self._settings.cross_documents:
            breaks = breaks | (documents[1:] != documents[:-1])
        borders = np.append(np.flatnonzero(breaks) + 1, len(begins))
        limit = borders[np.searchsorted(borders, np.arange(within), side="right")]
        jumps = np.minimum(following, limit).tolist()
        at, first = 0, []
        while at < within:
            first.append(at)
            at = jumps[at]
        chosen = np.array(first)
        return chosen, np.append(chosen[1:], at)


def _within(starts: np.ndarray, begin: int, end: int) -> np.ndarray:
    """Return the entries of ascending `starts` that lie between `begin` and `end`, both left out."""
    return np.asarray(starts[np.searchsorted(starts, begin, side="right") : np.searchsorted(starts, end)])
