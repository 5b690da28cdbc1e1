"""Several kinds of batches in one training: a step of each in turn."""

import dataclasses
import re

from elision.data.mixing import LanguageMix
from elision.data.noise import GivenAnswer, Noise, SpanCorruption
from elision.data.noise.span_corruption import require_sentinels
from elision.data.segment import Plan, Segmenter
from elision.data.store import Split
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Turn:
    """A further kind of batches that a recipe reads in turn with its first: step s reads kind s modulo their number.

    The objectives are the same for all kinds, and so are their heads. XLM takes masked text and masked translations in
    turn (Lample & Conneau 2019, section 3).
    """

    name: str
    """what its loss is called in reports: tlm"""
    segmenter: Segmenter
    """which stretch of which documents is one example"""
    noise: Noise
    """what is left out, and what stands in its place"""
    causal: bool = False
    """no token sees what follows it, whatever the backbone allows"""
    mixing: LanguageMix | None = None
    """how often each language, or pair of languages, is read; None = as often as the text has it"""

    def __post_init__(self) -> None:
        if self.name and not re.fullmatch("[a-z][a-z0-9_]*", self.name):
            raise InputError(f"the name of a turn is {self.name!r}: give lower-case letters, digits and _ (tlm)")

    @property
    def lengths(self) -> tuple[int, int | None]:
        """The most tokens that an example has: those that are read, and those that are written (None = there are none)."""
        if isinstance(self.noise, GivenAnswer) and hasattr(self.segmenter, "longest"):
            return self.segmenter.longest
        if self.noise.restores == "sequence":
            return self.noise.lengths(self.segmenter.max_length)
        return self.segmenter.max_length, None

    def check(self, vocabulary: Vocabulary) -> None:
        """Raise InputError when the vocabulary lacks symbols that the noise puts in, or has too few of them."""
        self.noise.check(vocabulary)
        if isinstance(self.noise, SpanCorruption):
            length = self.segmenter.max_length
            require_sentinels(vocabulary, self.noise.num_sentinels(length), f"an example of {length} tokens")

    def plan(self, split: Split, vocabulary: Vocabulary, seed: int) -> Plan:
        """Return the examples that the segmenter makes of a split, mixed by language where `mixing` says so."""
        if self.mixing is None:
            return self.segmenter.plan(split, vocabulary, seed, self.noise.lookahead)
        return self.mixing.plan(self.segmenter, split, vocabulary, seed, self.noise.lookahead)
