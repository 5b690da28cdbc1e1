"""XLM's output layer: one for masked, translated and next tokens (Lample & Conneau 2019, section 3)."""

import dataclasses
from typing import ClassVar

from elision.model.backbone import BackboneModel
from elision.model.heads import VocabularyHead
from elision.objectives.token_prediction import TokenPrediction


@dataclasses.dataclass(frozen=True)
class TiedLM(TokenPrediction):
    """Cross-entropy at every place that has a target, masked or next, through the tied token table and a bias alone."""

    weight: float = 1.0
    """how much this term weighs in the loss"""

    name: ClassVar[str] = "mlm"
    needs: ClassVar[str | None] = None
    visibility: ClassVar[str | None] = None

    def head(self, backbone: BackboneModel) -> VocabularyHead:
        """Build the output bias; there is no transform before the table."""
        return VocabularyHead(backbone.vocab_size, bias=True)
