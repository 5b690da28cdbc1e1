"""Some documents of a split as a split of their own: what plans of one language read."""

import bisect
import functools
from typing import Any

import numpy as np

from elision.data.store import Split


class Selection(Split):
    """The documents of `split` with the given indices (ascending), laid end to end; no text is copied.

    It answers as `Split` does, in offsets of its own. Runs of neighbouring documents are one stretch of the text, so a
    language that was prepared in one go reads as fast as the whole. Offsets are held in memory, 8 bytes a sentence and
    16 a document.
    """

    def __init__(self, split: Split, documents: np.ndarray):
        self.store, self.name = split.store, split.name
        self._split, self._documents = split, documents = split, np.asarray(documents, np.int64)
        starts = split.document_starts
        lengths = starts[documents + 1] - starts[documents]
        self.num_documents = len(documents)
        self.num_tokens = int(lengths.sum())
        # Translations of each other are of different languages.
        self.num_pairs, self.pair_starts = 0, np.empty(0, np.int64)
        self.num_sentences = int((split.document_sentences[documents + 1] - split.document_sentences[documents]).sum())
        # Where a run of documents that are neighbours in `split` begins: its first document, here and in `split`.
        first = np.flatnonzero(np.diff(documents, prepend=-2) != 1)
        self._run_documents = np.append(first, len(documents))
        self._run_starts = [*self.document_starts[first].tolist(), self.num_tokens]
        self._run_sources = starts[documents[first]].tolist()

    def __repr__(self) -> str:
        return f"Selection({self._split!r}, {self.num_documents} documents, {self.num_tokens} tokens)"

    def __reduce__(self) -> tuple:
        return Selection, (self._split, self._documents)

    @functools.cached_property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the cleaned text."""
        return int(self._split.numbers("num_bytes")[self._documents].sum())

    @functools.cached_property
    def document_starts(self) -> np.ndarray:
        """int64 [num_documents + 1]: where each document begins in the token stream; the last entry is its end."""
        starts = self._split.document_starts
        return np.append(0, np.cumsum(starts[self._documents + 1] - starts[self._documents]))

    @functools.cached_property
    def document_sentences(self) -> np.ndarray:
        """int64 [num_documents + 1]: the index of each document's first sentence; the last entry is num_sentences."""
        first = self._split.document_sentences
        return np.append(0, np.cumsum(first[self._documents + 1] - first[self._documents]))

    @functools.cached_property
    def sentence_starts(self) -> np.ndarray:
        """int64 [num_sentences + 1]: where each sentence begins in the token stream; the last entry is its end."""
        starts = np.empty(self.num_sentences + 1, np.int64)
        starts[-1] = self.num_tokens
        bounds = self.document_sentences[self._run_documents]
        for run, source in enumerate(self._run_sources):
            begin = int(self._split.document_sentences[self._documents[self._run_documents[run]]])
            count = int(bounds[run + 1] - bounds[run])
            shift = self._run_starts[run] - source
            np.add(self._split.sentence_starts[begin : begin + count], shift, out=starts[bounds[run] : bounds[run + 1]])
        return starts

    @functools.cached_property
    def language_codes(self) -> np.ndarray:
        """int16 [num_documents]: index of each document's language in `languages`, -1 where none is declared."""
        return self._split.language_codes[self._documents]

    @functools.cached_property
    def code_numbers(self) -> np.ndarray:
        """int16 [num_documents]: index of each document's control code in `codes`, -1 where none is declared."""
        return self._split.code_numbers[self._documents]

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Return ids `start` to `stop` of the token stream; zero-copy inside one run of documents."""
        assert 0 <= start <= stop <= self.num_tokens, (start, stop, self.num_tokens)
        parts = []
        run = bisect.bisect_right(self._run_starts, start, hi=len(self._run_sources)) - 1
        while start < stop:
            shift, end = self._run_sources[run] - self._run_starts[run], min(stop, self._run_starts[run + 1])
            parts.append(self._split.tokens(start + shift, end + shift))
            start, run = end, run + 1
        if not parts:
            return self._split.tokens(0, 0)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def numbers(self, name: str) -> np.ndarray:
        """Return a column of whole numbers of the shards, [num_documents]."""
        return self._split.numbers(name)[self._documents]

    def column(self, name: str, index: int) -> Any:
        """Return what a shard's column (`id`, `num_bytes`, `hash` ...) says of one document."""
        return self._split.column(name, int(self._documents[index]))
