"""ALBERT's sentence pairs: two stretches of one text, in their order or swapped."""

import dataclasses
from typing import ClassVar, Literal

from elision.data.segment.pairs import SentencePairPlan, SentencePairs
from elision.data.store import Split
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class SwappedPairs:
    """ALBERT's pairs: [CLS] A [SEP] B [SEP], where B follows A in the text or, with the halves swapped, A follows B.

    Lan et al. 2020, section 3.1 (sentence-order prediction). Sentences are gathered and cut as for `SentencePairs`; then
    half of the pairs are swapped (label 1). Both stretches come from one document, so the topic alone tells nothing.

    As in the released code, a sentence that fills an example alone is paired with a stretch of another document, with
    label 1; `lone_sentences` leaves such examples out.

    A worked example: sentences 10 11 and 12 13 make 2 10 11 3 12 13 3 with label 0, or 2 12 13 3 10 11 3 with label 1.
    """

    max_length: int = 512
    """tokens in an example, special symbols included"""
    short_probability: float = 0.1
    """share of the documents (per pass) that aim at a random shorter length"""
    swap_probability: float = 0.5
    """share of the pairs that are swapped"""
    lone_sentences: Literal["random", "drop"] = "random"
    """what becomes of a sentence that finds no second one: a random stretch beside it, with label 1, or no example"""
    passes: int = 10
    """how many times an epoch goes over the text, with other draws each time (`dupe_factor` of the released code)"""

    needs_roles: ClassVar[frozenset[str]] = frozenset({"cls", "sep"})
    num_labels: ClassVar[int] = 2
    label: ClassVar[str] = "order"
    label_meanings: ClassVar[tuple[str, ...]] = (
        "Is A before B in the text? Yes",
        "Is A before B in the text? No: they were swapped, or B was drawn from elsewhere",
    )
    num_types: ClassVar[int] = 2

    def __post_init__(self) -> None:
        self._pairs()
        if not 0 <= self.swap_probability <= 1:
            raise InputError(
                f"swap_probability is {self.swap_probability}: it is a probability, give a number from 0 to 1"
            )

    def plan(self, split: Split, vocabulary: Vocabulary, seed: int, lookahead: int = 0) -> SentencePairPlan:
        """Draw the pairs of all passes over `split`."""
        assert lookahead == 0
        return SentencePairPlan(
            self._pairs(), split, vocabulary, seed, self.swap_probability, self.lone_sentences == "random"
        )

    def _pairs(self) -> SentencePairs:
        return SentencePairs(self.max_length, self.short_probability, random_probability=0.0, passes=self.passes)
