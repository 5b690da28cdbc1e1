"""Pairs of translations as one example: the segmenter of translation language modelling."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import Example
from elision.data.frame import FRAMES
from elision.data.segment.paired import PairedDocuments, Side
from elision.data.store import Split
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class TranslationPairs:
    """XLM's parallel text: a sentence and its translation side by side, each with its own positions and language.

    Lample & Conneau 2019, section 3.3, as in the released code: </s> s </s> </s> t </s>, and the positions of the second
    half count from 0 again, so that words which translate each other stand near each other. Without that
    (`restart_positions=False`, as the code reads other pairs) the halves share one separator and positions run on. A pair
    that is too long loses tokens at the ends of its sides, first of the longer one.

    A worked example: the pair 10 11 | 20 with the symbols <s> 0 and </s> 1 (which are one in XLM) is 0 10 11 1 1 20 1 at
    positions 0 1 2 3 0 1 2, the first four tokens in the language of 10 11. Running on it is 0 10 11 1 20 1.
    """

    max_length: int = 256
    """tokens in an example, special symbols included"""
    restart_positions: bool = True
    """positions of the second side count from 0 again"""
    both_directions: bool = False
    """read every pair twice, once with its sides exchanged"""

    needs_roles: ClassVar[frozenset[str]] = frozenset({"cls", "sep"})
    num_labels: ClassVar[int] = 0
    label_meanings: ClassVar[tuple[str, ...]] = ()
    num_types: ClassVar[int] = 0
    tells_languages: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.max_length < 6:
            raise InputError(f"max_length is {self.max_length}: two tokens and their four separators need 6")

    def plan(self, split: Split, vocabulary: Vocabulary, seed: int, lookahead: int = 0) -> "TranslationPlan":
        """Plan all pairs of the split. Raises: InputError when it holds none."""
        return TranslationPlan(self, PairedDocuments.of(split, self.both_directions), vocabulary)

    def plans(self, split: Split, vocabulary: Vocabulary) -> "tuple[TranslationPlan, ...]":
        """Plan the pairs of every two languages by themselves. Raises: InputError when there are none."""
        pairs = PairedDocuments.of(split, self.both_directions)
        return tuple(TranslationPlan(self, part, vocabulary) for part in pairs.by_languages())


class TranslationPlan:
    """Pairs of documents, each side by side."""

    contiguous = False

    def __init__(self, settings: TranslationPairs, pairs: PairedDocuments, vocabulary: Vocabulary):
        self._settings, self._pairs, self._vocabulary = settings, pairs, vocabulary
        self._frame = FRAMES["roberta" if settings.restart_positions else "bert"]
        for role in sorted(self._frame.roles):
            vocabulary.require(role)

    @property
    def languages(self) -> tuple[str, str]:
        """The languages of the sides of the first pair."""
        return self._pairs.languages

    def __len__(self) -> int:
        return len(self._pairs)

    def sides(self, index: int) -> tuple[Side, Side]:
        """Return, for both sides of example `index`, all its tokens and the number of its language in the store."""
        return self._pairs.sides(index)

    def example(self, index: int) -> Example:
        """Build example `index`: cut it to length, frame both sides, give each its positions and its language."""
        (first, language), (second, other) = self.sides(index)
        room = self._settings.max_length - self._frame.num_symbols(pair=True)
        num_first, num_second = kept(len(first), len(second), room)
        example = self._frame(self._vocabulary, first[:num_first], second[:num_second])
        # A separator that both share belongs to the second side, as in the released code.
        begin = num_first + (2 if self._settings.restart_positions else 1)
        languages = np.full(len(example), language)
        languages[begin:] = other
        positions = np.arange(len(example))
        if self._settings.restart_positions:
            positions[begin:] -= begin
        return dataclasses.replace(example, positions=positions, languages=languages)


def kept(size_a: int, size_b: int, room: int) -> tuple[int, int]:
    """Return how many tokens of A and B stay in `room` places: the longer side loses first, then both alike.

    >>> kept(5, 2, 9), kept(5, 2, 5), kept(9, 8, 10)
    ((5, 2), (3, 2), (5, 5))
    """
    half = room // 2
    if size_a + size_b <= room:
        return size_a, size_b
    if size_a <= half:
        return size_a, room - size_a
    if size_b <= room - half:
        return room - size_b, size_b
    return half, room - half
