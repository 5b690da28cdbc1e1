"""What every objective that restores tokens shares: cross-entropy at the places that have a target, over the tied table."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.model.backbone import BackboneModel, Output
from elision.model.heads import CHUNK_NUMEL
from elision.objectives.objective import Judged, Objective, Term, Terms


class TokenPrediction(Objective):
    """An objective whose head predicts tokens; `needs` says which noise it restores, `visibility` which backbone."""

    weight: float
    needs: ClassVar[str]
    visibility: ClassVar[str]

    @property
    def token_term(self) -> str:
        """The term whose mean is the loss of a token, which bits per byte are counted from."""
        return self.name

    def after(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> Terms:
        """Return the term over the places that have a target; no other place reaches the vocabulary."""
        hidden_ND, targets_N = output.prediction.flatten(0, 1), batch.targets.flatten()
        if batch.num_targets < targets_N.shape[0]:
            hidden_ND = hidden_ND.index_select(0, batch.target_at)
            targets_N = targets_N.index_select(0, batch.target_at)
        total = head.loss(self.after_states(hidden_ND), backbone.table, targets_N)
        return {self.name: Term(total, batch.num_targets, self.weight)}

    def after_states(self, hidden: Tensor) -> Tensor:
        """Return states [..., D] as the head reads them: as they are."""
        return hidden

    def judge(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> dict[str, Judged]:
        """Return how often the likeliest token is the one that was left out."""
        hidden_ND = output.prediction.flatten(0, 1).index_select(0, batch.target_at)
        targets_N = batch.targets.flatten().index_select(0, batch.target_at)
        right = torch.zeros((), dtype=torch.long, device=targets_N.device)
        step = max(1, CHUNK_NUMEL // backbone.vocab_size)
        for start in range(0, batch.num_targets, step):
            best_N = self.logits(head, backbone, hidden_ND[start : start + step]).argmax(-1)
            right += (best_N == targets_N[start : start + step]).sum()
        return {self.name: Judged(right, batch.num_targets)}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return how many places have a target."""
        return {self.name: batch.num_targets}

    def num_flops(self, head: nn.Module, backbone: BackboneModel, batch: Batch) -> float:
        """Return the floating-point operations of the head's forward pass."""
        return head.num_flops(batch.num_targets, backbone.settings.hidden_size, backbone.vocab_size)

    def predict(self, head: nn.Module, backbone: BackboneModel, batch: Batch, visible: Tensor | None = None) -> Tensor:
        """Return the scores [B, T, V] of every token at every place; `visible` as backbones take it."""
        return self.logits(head, backbone, backbone(batch, visible=visible).prediction)

    def logits(self, head: nn.Module, backbone: BackboneModel, hidden: Tensor) -> Tensor:
        """Return the scores [..., V] of every token for states [..., D]."""
        return head.logits(hidden, backbone.table)
