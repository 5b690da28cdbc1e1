"""Masked language modelling: restore the tokens that a noise left out (Devlin et al. 2019, section 3.1, task 1)."""

import dataclasses
from typing import ClassVar

from elision.model.backbone import BackboneModel
from elision.model.block import ACTIVATIONS
from elision.model.heads import MaskedHead
from elision.objectives.token_prediction import TokenPrediction


@dataclasses.dataclass(frozen=True)
class MaskedLM(TokenPrediction):
    """Cross-entropy at the masked places, through a transform and the tied token table."""

    weight: float = 1.0
    """how much this term weighs in the loss"""

    name: ClassVar[str] = "mlm"
    needs: ClassVar[str] = "masked"
    visibility: ClassVar[str] = "bidirectional"

    def head(self, backbone: BackboneModel) -> MaskedHead:
        """Build the transform and the output bias."""
        settings = backbone.settings
        head = MaskedHead(
            backbone.vocab_size,
            settings.hidden_size,
            settings.embedding_width,
            ACTIVATIONS[settings.activation],
            settings.norm_eps,
        )
        settings.init.apply_(head)
        return head
