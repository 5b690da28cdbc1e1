"""Chunks of one endless stream of text: the segmenter of causal language models."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import Example
from elision.data.store import Split
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Chunks:
    """GPT-2's examples: all documents laid end to end with a separator between them, cut every `max_length` tokens.

    The separator (the vocabulary's end of text) stands before each document, so it both ends a document as a target and
    starts the next as an input. Radford et al. 2019 say nothing of a boundary in attention, and the models attend
    across it; `cross_documents=False` keeps documents from seeing each other and restarts their positions. T5 lays them
    end to end without any separator: `separated=False`. LLaMA's also have a symbol to begin with: `begun=True`.

    A worked example: documents 10 11 and 12 13 14 with separator 0 and length 3 are the chunks 0 10 11 and 0 12 13 (14
    is left over: a chunk is always full, unless the whole split is shorter than one).
    """

    max_length: int = 1024
    """tokens in an example"""
    cross_documents: bool = True
    """whether a token may see earlier documents of its chunk"""
    separated: bool = True
    """whether the end of text stands before each document"""
    begun: bool = False
    """whether the beginning of text follows it, where the vocabulary has another symbol for that (LLaMA)"""

    needs_roles: ClassVar[frozenset[str]] = frozenset({"eos"})
    num_labels: ClassVar[int] = 0
    label_meanings: ClassVar[tuple[str, ...]] = ()
    num_types: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise InputError(f"max_length is {self.max_length}: it must be at least 1")

    def plan(self, split: Split, vocabulary: Vocabulary, seed: int, lookahead: int = 0) -> "ChunkPlan":
        """Count the chunks; `lookahead` more tokens than `max_length` are handed over, shared with the next chunk."""
        separator, beginning = vocabulary.require("eos"), vocabulary.bos if self.begun else None
        return ChunkPlan(self, split, separator, lookahead, None if beginning == separator else beginning)


class ChunkPlan:
    """Chunks by arithmetic: chunk i starts at token i * max_length of the stream of separators and documents."""

    contiguous = False

    def __init__(self, settings: Chunks, split: Split, separator: int, lookahead: int, beginning: int | None = None):
        self._settings, self._split, self._lookahead = settings, split, lookahead
        # What stands before each document.
        self._symbols = [separator] * settings.separated + [beginning] * (beginning is not None)
        self._starts = split.document_starts + len(self._symbols) * np.arange(split.num_documents + 1)
        self._stream = int(self._starts[-1])
        if self._stream <= lookahead:
            raise InputError(f"split {split.name!r} of the store holds no text: prepare a larger corpus")

    def __len__(self) -> int:
        return max(1, (self._stream - self._lookahead) // self._settings.max_length)

    def example(self, index: int) -> Example:
        """Build chunk `index`."""
        begin = index * self._settings.max_length
        end = min(begin + self._settings.max_length + self._lookahead, self._stream)
        first = int(np.searchsorted(self._starts, begin, side="right")) - 1
        last = int(np.searchsorted(self._starts, end, side="left"))
        at = np.maximum(self._starts[first:last], begin) - begin
        inputs = np.empty(end - begin, np.int64)
        is_symbol = np.zeros(end - begin, bool)
        for place, symbol in enumerate(self._symbols):
            symbol_at = self._starts[first:last] + place - begin
            symbol_at = symbol_at[(symbol_at >= 0) & (symbol_at < end - begin)]
            inputs[symbol_at], is_symbol[symbol_at] = symbol, True
        # A token's place in the split is its place in the stream less the symbols up to it.
        inputs[~is_symbol] = self._split.tokens(begin - self._symbols_before(begin), end - self._symbols_before(end))
        doc_ids = None
        if not self._settings.cross_documents:
            doc_ids = np.searchsorted(at, np.arange(end - begin), side="right").astype(np.int64)
        return Example(inputs, np.zeros(end - begin, bool), doc_ids=doc_ids, summary=end - begin - self._lookahead - 1)

    def _symbols_before(self, place: int) -> int:
        document = max(0, int(np.searchsorted(self._starts, place, side="left")) - 1)
        return len(self._symbols) * document + min(len(self._symbols), place - int(self._starts[document]))
