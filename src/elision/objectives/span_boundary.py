"""The span boundary objective: restore a span from the two tokens that bound it (Joshi et al. 2020, section 3.2).

P pairs (a token of a span with its boundaries), D hidden size, E width of the token table, O width of the offsets.
"""

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.errors import InputError
from elision.model.backbone import BackboneModel, Output
from elision.model.heads import cross_entropy_sum
from elision.objectives.objective import Judged, Objective, Term, Terms


class SpanBoundaryHead(nn.Module):
    """Two dense layers, each with GELU and layer norm, over both boundary states and the offset in the span; then the
    token table with a bias of its own."""

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        table_width: int,
        num_offsets: int,
        offset_size: int,
        norm_eps: float,
    ):
        super().__init__()
        self.offsets = nn.Embedding(num_offsets, offset_size)
        self.dense = nn.Linear(2 * hidden_size + offset_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=norm_eps)
        self.output = nn.Linear(hidden_size, table_width)
        self.output_norm = nn.LayerNorm(table_width, eps=norm_eps)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, hidden_BTD: Tensor, boundaries_P3: Tensor) -> Tensor:
        """Return the states [P, E] that the token table reads."""
        token_P, left_P, right_P = boundaries_P3.unbind(1)
        places_D = hidden_BTD.flatten(0, 1)
        offset_PO = self.offsets(token_P - left_P - 1)
        pair = torch.cat([places_D.index_select(0, left_P), places_D.index_select(0, right_P), offset_PO], 1)
        return self.output_norm(F.gelu(self.output(self.norm(F.gelu(self.dense(pair))))))


@dataclasses.dataclass(frozen=True)
class SpanBoundary(Objective):
    """Cross-entropy of each token of a span, given the last states of the tokens before and after it and its offset.

    x_i of the span s ... e is to follow from f([h_(s-1); h_(e+1); p_(i-s+1)]). Whatever the states inside of the span
    say is out of reach, so the boundaries must tell all of it.
    """

    weight: float = 1.0
    """how much this term weighs in the loss"""
    num_offsets: int = 15
    """offsets in a span that have a vector: at least the noise's max_restored"""
    offset_size: int = 200
    """width of these vectors"""

    name: ClassVar[str] = "sbo"
    visibility: ClassVar[str] = "bidirectional"
    needs_spans: ClassVar[bool] = True
    pretraining_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("num_offsets", "offset_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be at least 1")

    def head(self, backbone: BackboneModel) -> SpanBoundaryHead:
        """Build the two layers, the offset vectors and the output bias."""
        settings = backbone.settings
        head = SpanBoundaryHead(
            backbone.vocab_size,
            settings.hidden_size,
            settings.embedding_width,
            self.num_offsets,
            self.offset_size,
            settings.norm_eps,
        )
        settings.init.apply_(head)
        return head

    def after(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> Terms:
        """Return the term over all pairs."""
        targets_P = batch.targets.flatten().index_select(0, batch.boundaries[:, 0])
        total = cross_entropy_sum(head(output.hidden, batch.boundaries), backbone.table, head.bias, targets_P)
        return {self.name: Term(total, self._num_pairs(batch), self.weight)}

    def judge(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> dict[str, Judged]:
        """Return how often the likeliest token is right."""
        targets_P = batch.targets.flatten().index_select(0, batch.boundaries[:, 0])
        scores_PV = F.linear(head(output.hidden, batch.boundaries), backbone.table, head.bias)
        return {self.name: Judged((scores_PV.argmax(-1) == targets_P).sum(), self._num_pairs(batch))}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return how many pairs there are."""
        return {self.name: self._num_pairs(batch)}

    def num_flops(self, head: nn.Module, backbone: BackboneModel, batch: Batch) -> float:
        """Return the floating-point operations of the head's forward pass."""
        products = head.dense.weight.numel() + head.output.weight.numel() + backbone.table.numel()
        return 2.0 * self._num_pairs(batch) * products

    def _num_pairs(self, batch: Batch) -> int:
        return batch.boundaries.shape[0]
