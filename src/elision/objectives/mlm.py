"""Masked language modelling: restore the tokens that a noise left out (Devlin et al. 2019, section 3.1, task 1)."""

import dataclasses
from typing import ClassVar

from torch import Tensor, nn

from elision.data.batch import Batch
from elision.model.heads import MaskedHead
from elision.model.transformer import ACTIVATIONS, Output, TransformerModel
from elision.objectives.objective import Objective, Term, Terms


@dataclasses.dataclass(frozen=True)
class MaskedLM(Objective):
    """Cross-entropy at the masked places, through a transform and the tied token table."""

    weight: float = 1.0
    """how much this term weighs in the loss"""

    name: ClassVar[str] = "mlm"
    needs: ClassVar[str] = "masked"
    visibility: ClassVar[str] = "bidirectional"

    def head(self, backbone: TransformerModel) -> MaskedHead:
        """Build the transform and the output bias."""
        settings = backbone.settings
        head = MaskedHead(
            backbone.vocab_size, settings.hidden_size, ACTIVATIONS[settings.activation], settings.norm_eps
        )
        settings.init.apply_(head)
        return head

    def after(self, head: nn.Module, backbone: TransformerModel, output: Output, batch: Batch) -> Terms:
        """Return the term over the places that have a target; no other place reaches the vocabulary."""
        hidden_ND = output.prediction.flatten(0, 1).index_select(0, batch.target_at)
        targets_N = batch.targets.flatten().index_select(0, batch.target_at)
        total = head.loss(hidden_ND, backbone.tokens.weight, targets_N)
        return {self.name: Term(total, batch.num_targets, self.weight)}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return how many places have a target."""
        return {self.name: batch.num_targets}

    def num_flops(self, head: nn.Module, backbone: TransformerModel, batch: Batch) -> float:
        """Return the floating-point operations of the head's forward pass."""
        return head.num_flops(batch.num_targets, backbone.settings.hidden_size, backbone.vocab_size)

    def logits(self, head: nn.Module, backbone: TransformerModel, hidden_BTD: Tensor) -> Tensor:
        """Return the scores of every token at every place, [..., V]."""
        return head.logits(hidden_BTD, backbone.tokens.weight)
