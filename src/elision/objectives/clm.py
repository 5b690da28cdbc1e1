"""Causal language modelling: predict each token from those before it (Radford et al. 2018, equation 1)."""

import dataclasses
from typing import ClassVar

from torch import Tensor, nn

from elision.data.batch import Batch
from elision.model.heads import VocabularyHead
from elision.model.transformer import Output, TransformerModel
from elision.objectives.objective import Objective, Term, Terms


@dataclasses.dataclass(frozen=True)
class CausalLM(Objective):
    """Cross-entropy of the next token at every place, through the tied token table."""

    weight: float = 1.0
    """how much this term weighs in the loss"""

    name: ClassVar[str] = "clm"
    needs: ClassVar[str] = "next"
    visibility: ClassVar[str] = "causal"

    def head(self, backbone: TransformerModel) -> VocabularyHead:
        """Build the head: the tied table without a bias has no parameters of its own."""
        return VocabularyHead(backbone.vocab_size, bias=False)

    def after(self, head: nn.Module, backbone: TransformerModel, output: Output, batch: Batch) -> Terms:
        """Return the term over all places that hold a token with a successor."""
        hidden_ND = output.prediction.flatten(0, 1)
        targets_N = batch.targets.flatten()
        if batch.num_targets < targets_N.shape[0]:
            hidden_ND = hidden_ND.index_select(0, batch.target_at)
            targets_N = targets_N.index_select(0, batch.target_at)
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
