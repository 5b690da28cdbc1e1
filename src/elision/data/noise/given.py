"""No noise: what is to be written comes with the example."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import Example
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class GivenAnswer:
    """Nothing is noised: what is left out is the other side of the pair, a translation or a reply.

    It goes with a segmenter that brings the answer (`gives_answers`).

    A worked example: inputs 10 11 2 with the answer 20 2 stay inputs 10 11 2 with the answer 20 2.
    """

    needs_roles: ClassVar[frozenset[str]] = frozenset()
    restores: ClassVar[str] = "sequence"
    lookahead: ClassVar[int] = 0
    needs_answers: ClassVar[bool] = True

    def check(self, vocabulary: Vocabulary) -> None:
        """Any vocabulary will do."""

    def lengths(self, length: int) -> tuple[int, int]:
        """Return the most inputs and the most answer tokens of an example: each side has the segmenter's length."""
        return length, length

    def __call__(self, example: Example, vocabulary: Vocabulary, rng: np.random.Generator) -> Example:
        """Return the example as it is."""
        return example
