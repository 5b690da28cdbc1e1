"""Nothing but the future is left out: the noise of causal language models."""

import dataclasses
from typing import ClassVar

import numpy as np

from elision.data.example import Example
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class NextToken:
    """No noise: only the future is left out. Each token's target is the token after it.

    The segmenter hands over one token more than the model reads (`lookahead`), so that every position has a target.

    A worked example: 10 11 12 13 14 becomes inputs 10 11 12 13, targets 11 12 13 14.
    """

    needs_roles: ClassVar[frozenset[str]] = frozenset()
    restores: ClassVar[str] = "next"
    lookahead: ClassVar[int] = 1

    def check(self, vocabulary: Vocabulary) -> None:
        """Any vocabulary will do."""

    def __call__(self, example: Example, vocabulary: Vocabulary, rng: np.random.Generator) -> Example:
        """Return the example one token shorter, with shifted targets."""
        cut = {
            name: None if getattr(example, name) is None else getattr(example, name)[:-1]
            for name in ("inputs", "special", "type_ids", "doc_ids", "positions", "languages")
        }
        return dataclasses.replace(example, **cut, targets=example.inputs[1:].astype(np.int64))
