"""Tagging: one class for each word of a text (Devlin et al. 2019, section 5.3), read at its first token.

N places with a tag, D hidden size, C tags.
"""

import dataclasses
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.errors import InputError
from elision.model.backbone import BackboneModel, Output
from elision.objectives.objective import Objective, Term, Terms


class TaggingHead(nn.Module):
    """Dropout and a linear layer."""

    def __init__(self, hidden_size: int, num_labels: int, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_size, num_labels)

    def forward(self, hidden_ND: Tensor) -> Tensor:
        """Return the scores [N, C] in float32 (or float64)."""
        scores_NC = self.output(self.dropout(hidden_ND))
        return scores_NC if scores_NC.element_size() == 8 else scores_NC.float()


@dataclasses.dataclass(frozen=True)
class TokenClassification(Objective):
    """Cross-entropy over the tags at the places that have one: `batch.targets` holds numbers of tags."""

    num_labels: int = 2
    """how many tags"""
    dropout: float = 0.1
    """dropout on what the linear layer reads"""

    name: ClassVar[str] = "tagging"

    def __post_init__(self) -> None:
        if self.num_labels < 2:
            raise InputError(f"num_labels is {self.num_labels}: tagging needs at least 2 tags")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}: give a probability from 0 to below 1")

    def head(self, backbone: BackboneModel) -> TaggingHead:
        """Build the head."""
        head = TaggingHead(backbone.settings.hidden_size, self.num_labels, self.dropout)
        backbone.settings.init.apply_(head)
        return head

    def scores(self, head: nn.Module, output: Output, batch: Batch) -> Tensor:
        """Return the scores [N, C] at the places of `batch.target_at`, in its order."""
        return head(output.hidden.flatten(0, 1).index_select(0, batch.target_at))

    def after(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> Terms:
        """Return the term over the places that have a tag."""
        targets_N = batch.targets.flatten().index_select(0, batch.target_at)
        total = F.cross_entropy(self.scores(head, output, batch), targets_N, reduction="sum")
        return {self.name: Term(total, batch.num_targets)}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return how many places have a tag."""
        return {self.name: batch.num_targets}

    def num_flops(self, head: nn.Module, backbone: BackboneModel, batch: Batch) -> float:
        """Return the floating-point operations of the head."""
        return 2.0 * batch.num_targets * backbone.settings.hidden_size * self.num_labels
