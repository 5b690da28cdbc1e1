"""Permutation language modelling: restore tokens one by one, each from those before it in an order.

Yang et al. 2019, equation 5.
"""

import dataclasses
from typing import ClassVar

from torch import nn

from elision.data.batch import Batch
from elision.model.backbone import BackboneModel
from elision.model.heads import VocabularyHead
from elision.objectives.token_prediction import TokenPrediction


@dataclasses.dataclass(frozen=True)
class PermutationLM(TokenPrediction):
    """Cross-entropy at the places that are restored, from the query stream, through the tied table and a bias."""

    weight: float = 1.0
    """how much this term weighs in the loss"""

    name: ClassVar[str] = "plm"
    needs: ClassVar[str] = "permuted"
    visibility: ClassVar[str] = "bidirectional"

    def head(self, backbone: BackboneModel) -> VocabularyHead:
        """Build the output bias."""
        return VocabularyHead(backbone.vocab_size, bias=True)

    def num_flops(self, head: nn.Module, backbone: BackboneModel, batch: Batch) -> float:
        """Return the floating-point operations of the head's forward pass and of the query stream that it reads.

        The content stream of the last layer, which nobody needs at these places, is taken off.
        """
        settings = backbone.settings
        query = settings.flops_per_query(batch.inputs.shape[1]) - settings.skippable_flops
        return super().num_flops(head, backbone, batch) + query * batch.num_targets
