"""Next-sentence prediction: does B follow A? (Devlin et al. 2019, section 3.1, task 2)."""

import dataclasses
from typing import ClassVar

from elision.objectives.sentence_prediction import SentencePrediction


@dataclasses.dataclass(frozen=True)
class NextSentence(SentencePrediction):
    """Two-way cross-entropy on the pooled first token; label 1 means that B is random, as in the released code."""

    weight: float = 1.0
    """how much this term weighs in the loss"""

    name: ClassVar[str] = "nsp"
    label: ClassVar[str] = "next"
