"""Replaced-token detection: which tokens of this text did the generator put there? (Clark et al. 2020, section 2).

A text in which a noise left out some tokens is filled in by a small generator; the model says of every token whether it
is the one that stood there before. loss = generator's cross-entropy + weight * binary cross-entropy, each a mean over
its own places.

B rows, T tokens, D hidden size, P = B * T places, N places that are judged.
"""

import dataclasses
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.data.example import NO_TARGET
from elision.data.frame import FRAMES
from elision.errors import InputError
from elision.model.backbone import BackboneModel, BackboneSettings, Output
from elision.model.block import ACTIVATIONS
from elision.objectives.generator import GENERATOR_TERM, Generator, Replacing, tokens_at
from elision.objectives.objective import Judged, Term, Terms


@dataclasses.dataclass(frozen=True)
class ReplacedTokens(Replacing):
    """Binary cross-entropy of every token: was it replaced? A sample that equals what stood there was not."""

    generator: Generator = Generator()
    """what fills in the tokens that were left out"""
    weight: float = 50.0
    """how much this term weighs in the loss, beside the generator's 1"""
    over: Literal["all", "masked"] = "all"
    """whether every token is judged, or only those that had been left out (the paper's "ELECTRA 15 %")"""
    reads_summary: bool = False
    """add the summary token's state to each token's, with a norm on the sum, before it is judged (DeBERTa-v3)"""

    name: ClassVar[str] = "rtd"

    @property
    def reads_everywhere(self) -> bool:
        """Whether every token's state is read."""
        return self.over == "all" or self.reads_summary

    def check(self, backbone: BackboneSettings) -> None:
        """Raise InputError for a backbone that this objective cannot work over."""
        super().check(backbone)
        if self.reads_summary and FRAMES[backbone.frame].summary != "first":
            raise InputError(
                f"reads_summary is on, but with backbone.frame {backbone.frame!r} the summary token does not come "
                f"first: leave it off"
            )

    def head(self, backbone: BackboneModel) -> "DetectionHead":
        """Build the generator and the head that judges."""
        return DetectionHead(self, backbone)

    def after(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> Terms:
        """Return the term over all tokens, or over those that had been left out."""
        logits_N, replaced_N = self._judged(head, output, batch)
        total = F.binary_cross_entropy_with_logits(logits_N, replaced_N.to(logits_N.dtype), reduction="sum")
        return {self.name: Term(total, self.counts(batch)[self.name], self.weight)}

    def judge(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> dict[str, Judged]:
        """Return how often the likelier answer is right. A generator's samples are no best answers, so none are judged."""
        logits_N, replaced_N = self._judged(head, output, batch)
        right = ((logits_N > 0) == replaced_N).sum()
        return {self.name: Judged(right, len(replaced_N), replaced_N.long())}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return how many tokens the generator restores, and how many are judged."""
        return {
            GENERATOR_TERM: batch.num_targets,
            self.name: batch.num_tokens if self.over == "all" else batch.num_targets,
        }

    def num_flops(self, head: nn.Module, backbone: BackboneModel, batch: Batch) -> float:
        """Return the floating-point operations of the generator and of the head that judges."""
        width = backbone.settings.hidden_size
        return head.generator.num_flops(batch) + 2.0 * self.counts(batch)[self.name] * width * (width + 1)

    def _judged(self, head: nn.Module, output: Output, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return, for the judged places, the logit of having been replaced and bool: whether that is so."""
        places_N = batch.target_at if self.over == "masked" else tokens_at(batch)
        hidden_PD = output.hidden.flatten(0, 1)
        summary_ND = None
        if self.reads_summary:
            summary_ND = hidden_PD.index_select(0, first_of_document(batch.doc_ids).index_select(0, places_N))
        inputs_N, targets_N = (ids.flatten().index_select(0, places_N) for ids in (batch.inputs, batch.targets))
        replaced_N = (targets_N != NO_TARGET) & (inputs_N != targets_N)
        return head(hidden_PD.index_select(0, places_N), summary_ND), replaced_N


class DetectionHead(nn.Module):
    """The generator, and a dense layer with an activation and one logit for each token.

    DeBERTa-v3's form has a norm over the sum of a token's state and that of the summary token before the dense layer.
    """

    def __init__(self, settings: ReplacedTokens, backbone: BackboneModel):
        super().__init__()
        width = backbone.settings.hidden_size
        self.generator = settings.generator.build(backbone)
        self.norm = nn.LayerNorm(width, eps=backbone.settings.norm_eps) if settings.reads_summary else None
        self.dense = nn.Linear(width, width)
        self.activation = ACTIVATIONS[backbone.settings.activation]
        self.output = nn.Linear(width, 1)
        for module in (self.dense, self.output):
            backbone.settings.init.apply_(module)

    @property
    def blocks(self) -> nn.ModuleList:
        """What `torch.compile` compiles."""
        return self.generator.model.blocks

    def forward(self, hidden_ND: Tensor, summary_ND: Tensor | None = None) -> Tensor:
        """Return the logits [N] of having been replaced, in float32 (or float64)."""
        if self.norm is not None:
            hidden_ND = self.norm(hidden_ND + summary_ND)
        logits_N = self.output(self.activation(self.dense(hidden_ND)))[:, 0]
        return logits_N if logits_N.element_size() == 8 else logits_N.float()


def first_of_document(doc_ids_BT: Tensor) -> Tensor:
    """Return int64 [P]: for each place of the flattened rows, the place where its document begins.

    >>> first_of_document(torch.tensor([[1, 1, 2, 2, 2], [1, 1, 1, 0, 0]]))
    tensor([0, 0, 2, 2, 2, 5, 5, 5, 8, 8])
    """
    rows, length = doc_ids_BT.shape
    begins_BT = F.pad(doc_ids_BT[:, 1:] != doc_ids_BT[:, :-1], (1, 0), value=True)
    places_BT = torch.arange(rows * length, device=doc_ids_BT.device).view(rows, length)
    return places_BT.masked_fill(~begins_BT, 0).cummax(1).values.flatten()
