"""Windows of text behind a control code: the segmenter of CTRL."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import Example
from elision.data.segment.chunks import ChunkPlan, Chunks
from elision.data.selection import Selection
from elision.data.store import COUNTED_AT_ONCE, Split
from elision.errors import InputError
from elision.text.codes import code_id
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class CodedChunks:
    """CTRL's examples: a window of text with the code of its documents before it, the same for every window of a text.

    Keskar et al. 2019, section 3, built as in the released code: a window is the next max_length tokens; the model reads the
    code and all of them but the last, and predicts all of them, the first too. No window holds documents of different
    codes, and windows with more than `max_unknown` unknown symbols are left out.

    One departure: the end of text stands before each document, so that generated text can end; in the released code texts
    follow each other without it (`separated=False`).

    A worked example: documents 10 11 12 of code 7 and 13 14 of code 8, with separator 0 and max_length 2, are the windows
    7 0 10 and 7 11 12 and 8 0 13 (14 is left over), which are read as 7 0 and 7 11 and 8 0, with the targets 0 10, 11 12
    and 0 13.
    """

    max_length: int = 256
    """tokens in an example, the code included"""
    max_unknown: int = 1
    """unknown symbols that a window may hold"""
    separated: bool = True
    """whether the end of text stands before each document"""

    num_labels: ClassVar[int] = 0
    label_meanings: ClassVar[tuple[str, ...]] = ()
    num_types: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.max_length < 2:
            raise InputError(f"max_length is {self.max_length}: a code and a token need at least 2")
        if self.max_unknown < 0:
            raise InputError(f"max_unknown is {self.max_unknown}: it must be at least 0")

    @property
    def needs_roles(self) -> frozenset[str]:
        """The symbols that it frames text with."""
        return frozenset({"eos"}) if self.separated else frozenset()

    def plan(self, split: Split, vocabulary: Vocabulary, seed: int, lookahead: int = 0) -> "CodedChunkPlan":
        """Count the windows of each code; with `lookahead`, they are one token longer than what is read of them.

        Raises: InputError when documents declare no code, or a code is not one token.
        """
        return CodedChunkPlan(self, split, vocabulary, lookahead)


class CodedChunkPlan:
    """The windows of all codes, numbered one code after the other."""

    contiguous = False

    def __init__(self, settings: CodedChunks, split: Split, vocabulary: Vocabulary, lookahead: int):
        numbers, self._lookahead = split.code_numbers, lookahead
        num_nameless = int((numbers < 0).sum())
        if num_nameless:
            raise InputError(
                f"{num_nameless:,} documents of the store {split.store.path} ({split.name}) declare no code: prepare it with "
                f"--reading.code-field FIELD or code:NAME=INPUT, or use Chunks, which needs none"
            )
        separator = vocabulary.require("eos") if settings.separated else 0
        window = Chunks(max_length=settings.max_length - 1 + lookahead, separated=settings.separated)
        self.codes = tuple(split.codes[number] for number in np.unique(numbers))
        """The codes that documents of the split have."""
        self._ids = [code_id(split.store.tokenizer, code) for code in self.codes]
        self._parts, self._kept = [], []
        for number in np.unique(numbers):
            part = Selection(split, np.flatnonzero(numbers == number))
            plan = ChunkPlan(window, part, separator, 0)
            self._parts.append(plan)
            self._kept.append(None if vocabulary.unk is None else _known(settings, window, part, plan, vocabulary.unk))
        sizes = [len(plan) if kept is None else len(kept) for plan, kept in zip(self._parts, self._kept)]
        self._firsts = np.append(0, np.cumsum(sizes))
        if not len(self):
            raise InputError(
                f"every window of split {split.name!r} of the store {split.store.path} holds more than "
                f"{settings.max_unknown} unknown symbols: train a tokenizer that knows the text, or raise max_unknown"
            )

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def example(self, index: int) -> Example:
        """Build window `index`."""
        part = int(np.searchsorted(self._firsts, index, side="right")) - 1
        within, kept = index - int(self._firsts[part]), self._kept[part]
        window = self._parts[part].example(within if kept is None else int(kept[within])).inputs
        inputs = np.append(self._ids[part], window)
        return Example(inputs, np.arange(len(inputs)) == 0, summary=len(inputs) - 1 - self._lookahead)


def _known(settings: CodedChunks, window: Chunks, part: Split, plan: ChunkPlan, unknown: int) -> np.ndarray | None:
    """Return the windows that hold few unknown symbols, int64 ascending; None = all of them."""
    found = [np.empty(0, np.int64)]
    for start in range(0, part.num_tokens, COUNTED_AT_ONCE):
        at = start + np.flatnonzero(part.tokens(start, min(start + COUNTED_AT_ONCE, part.num_tokens)) == unknown)
        # Where a token stands in the stream: after the separators of its document and of all before.
        separators = np.searchsorted(part.document_starts, at, side="right") if settings.separated else 0
        found.append((at + separators) // window.max_length)
    windows, counts = np.unique(np.concatenate(found), return_counts=True)
    dropped = windows[counts > settings.max_unknown]
    return np.setdiff1d(np.arange(len(plan)), dropped) if len(dropped) else None
