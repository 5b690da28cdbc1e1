"""Pairs of texts of which one is read and the other written: translations, summaries, replies."""

import dataclasses
from typing import ClassVar, Literal

import numpy as np

from elision.data.example import Example
from elision.data.frame import FRAMES, FrameName
from elision.data.segment.paired import PairedDocuments, Side
from elision.data.store import Split
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class SourceTarget:
    """One text of a pair is the input, the other the answer, each framed by itself.

    The pairs are those of `elision prepare --parallel`; where they declare their languages, the tokens do too.

    A worked example: the pair 10 11 | 20 21 22 with </s> 1 in the frame "causal" has the inputs 10 11 1 and the answer 20
    21 22 1; with both directions there is a second example the other way round. With `max_answer_length` 3 and `too_long`
    "cut" the answer is 20 21 1.
    """

    max_length: int = 128
    """tokens of a source, special symbols included"""
    max_answer_length: int | None = None
    """tokens of an answer, special symbols included; None = as many as of a source, which is also the most"""
    too_long: Literal["leave out", "cut"] = "leave out"
    """what to do with a pair of which a side is longer: leave it out, or cut its end off (symbols stay)"""
    both_directions: bool = False
    """read every pair twice, once with its sides exchanged"""
    frame: FrameName = "causal"
    """how either side is framed: "causal" is A </s> (Marian, T5, BlenderBot), "roberta" <s> A </s> (BART)"""

    num_labels: ClassVar[int] = 0
    label_meanings: ClassVar[tuple[str, ...]] = ()
    num_types: ClassVar[int] = 0
    tells_languages: ClassVar[bool] = True
    gives_answers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        least = FRAMES[self.frame].num_symbols(pair=False) + 1
        if self.max_length < least:
            raise InputError(f"max_length is {self.max_length}: a token and what frames it need {least}")
        if self.max_answer_length is not None and not least <= self.max_answer_length <= self.max_length:
            raise InputError(
                f"max_answer_length is {self.max_answer_length}: it must be from {least} to max_length ({self.max_length})"
            )

    @property
    def needs_roles(self) -> frozenset[str]:
        """The symbols that frame a side."""
        return FRAMES[self.frame].roles

    @property
    def longest(self) -> tuple[int, int]:
        """The most tokens of a source and of an answer."""
        return self.max_length, self.max_length if self.max_answer_length is None else self.max_answer_length

    def plan(self, split: Split, vocabulary: Vocabulary, seed: int, lookahead: int = 0) -> "SourceTargetPlan":
        """Plan all pairs of the split. Raises: InputError when it holds none, or none that is short enough."""
        return SourceTargetPlan(self, self._pairs(split), vocabulary)

    def plans(self, split: Split, vocabulary: Vocabulary) -> "tuple[SourceTargetPlan, ...]":
        """Plan the pairs of every two languages by themselves. Raises: as `plan` does."""
        return tuple(SourceTargetPlan(self, part, vocabulary) for part in self._pairs(split).by_languages())

    def _pairs(self, split: Split) -> PairedDocuments:
        pairs = PairedDocuments.of(split, self.both_directions)
        if self.too_long == "cut":
            return pairs
        num_symbols = FRAMES[self.frame].num_symbols(pair=False)
        most_source, most_answer = (size - num_symbols for size in self.longest)
        if self.both_directions:
            # A pair stays whole: both of its directions are read, or neither.
            most_source = most_answer = min(most_source, most_answer)
        fitting = pairs.where(lambda sources, answers: (sources <= most_source) & (answers <= most_answer))
        if not len(fitting):
            raise InputError(
                f"of the {split.num_pairs:,} pairs in split {split.name!r} none has at most {most_source} tokens on one "
                f"side and {most_answer} on the other: raise max_length, or set too_long to 'cut'"
            )
        return fitting


class SourceTargetPlan:
    """Pairs of documents, the one read and the other written."""

    contiguous = False

    def __init__(self, settings: SourceTarget, pairs: PairedDocuments, vocabulary: Vocabulary):
        self._settings, self._pairs, self._vocabulary = settings, pairs, vocabulary
        self._frame = FRAMES[settings.frame]
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
        """Build example `index`: frame either side, cut to its length."""
        (source, language), (answer, other) = self._pairs.sides(index)
        read, written = (
            self._frame(self._vocabulary, side[: size - self._frame.num_symbols(pair=False)])
            for side, size in zip((source, answer), self._settings.longest)
        )
        return dataclasses.replace(
            read,
            answer=written.inputs,
            languages=_languages(language, len(read)),
            decoder_languages=_languages(other, len(written)),
            # As with every answer, the summary is a place of what is written.
            summary=written.summary,
        )


def _languages(language: int, size: int) -> np.ndarray | None:
    return None if language < 0 else np.full(size, language)
