"""Pairs of documents that belong together: a text and its translation, a question and its answer."""

from collections.abc import Callable
from typing import Self

import numpy as np

from elision.data.store import Split
from elision.errors import InputError

Side = tuple[np.ndarray, int]


class PairedDocuments:
    """The pairs of a split, 8 bytes each, and with `both_directions` each of them once more with its sides exchanged.

    first: int64 [n], the document of each pair's first side; the one after it is the second side.
    """

    def __init__(self, split: Split, first: np.ndarray, both_directions: bool = False):
        self._split, self._first, self._both_directions = split, first, both_directions

    @classmethod
    def of(cls, split: Split, both_directions: bool = False) -> Self:
        """Return all pairs of a split. Raises: InputError when it holds none."""
        if not split.num_pairs:
            raise InputError(
                f"split {split.name!r} of the store {split.store.path} holds no translations: prepare it with "
                f"`elision prepare ... --parallel train.en train.ne --languages en ne`, or other pairs of texts with "
                f"`--parallel pairs.tsv`"
            )
        return cls(split, split.pair_starts, both_directions)

    def __len__(self) -> int:
        return len(self._first) * (2 if self._both_directions else 1)

    def by_languages(self) -> list[Self]:
        """Return the pairs of every two languages by themselves."""
        codes = self._split.language_codes.astype(np.int64)
        kind = codes[self._first] << 16 | codes[self._first + 1] & 0xFFFF
        return [type(self)(self._split, self._first[kind == one], self._both_directions) for one in np.unique(kind)]

    def where(self, keep: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Self:
        """Return the pairs that `keep` says yes to, given how many tokens each of their first and second sides has."""
        starts = self._split.document_starts
        begins, middles, ends = (np.asarray(starts[self._first + i]) for i in range(3))
        return type(self)(self._split, self._first[keep(middles - begins, ends - middles)], self._both_directions)

    @property
    def languages(self) -> tuple[str, str]:
        """The languages of the sides of the first pair."""
        first = int(self._first[0])
        return self._split.language(first) or "unknown", self._split.language(first + 1) or "unknown"

    def sides(self, index: int) -> tuple[Side, Side]:
        """Return, for both sides of pair `index`, all its tokens and the number of its language in the store (-1: none
        is declared)."""
        swapped, pair = divmod(index, len(self._first))
        first = int(self._first[pair])
        one, other = (
            (self._split.document(document), int(self._split.language_codes[document]))
            for document in (first, first + 1)
        )
        return (other, one) if swapped else (one, other)
