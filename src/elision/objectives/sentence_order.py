"""Sentence-order prediction: are A and B in the order of the text? (Lan et al. 2020, section 3.1)."""

import dataclasses
from typing import ClassVar

from elision.objectives.sentence_prediction import SentencePrediction


@dataclasses.dataclass(frozen=True)
class SentenceOrder(SentencePrediction):
    """Two-way cross-entropy on the pooled first token; label 1 means that A and B were swapped."""

    weight: float = 1.0
    """how much this term weighs in the loss"""

    name: ClassVar[str] = "sop"
    label: ClassVar[str] = "order"
