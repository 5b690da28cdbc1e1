"""Language modelling in both directions: predict each word from those before it, and from those after it.

Peters et al. 2018, section 3.1: the sum of both log likelihoods, with one softmax for both directions.
B rows, T tokens, P width of one direction.
"""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.errors import InputError
from elision.model.backbone import BackboneModel, Output
from elision.model.heads import CHUNK_NUMEL
from elision.objectives.objective import Judged, Term, Terms
from elision.objectives.sampled_softmax import SampledSoftmaxHead
from elision.objectives.token_prediction import TokenPrediction
from elision.text.words import UNKNOWN


@dataclasses.dataclass(frozen=True)
class BidirectionalLM(TokenPrediction):
    """Half the cross-entropy of the next word, of the forward stream, and half that of the one before, of the backward
    stream, by an output table of its own; over a sample of the words in training, over all in evaluation."""

    num_targets: int = 793471
    """how many words, from the most frequent down, can be predicted; a rarer one is to be predicted as <UNK>"""
    num_samples: int = 8192
    """words that a target competes with in training, drawn log-uniformly for each direction; 0 = all of them"""
    gradient_scale: float = 20.0
    """what the gradient is multiplied with: the released code trains the loss times the length of its unroll, which
    matters where Adagrad's accumulator does not start at zero, and where gradients are clipped"""
    weight: float = 1.0
    """how much these terms weigh in the loss"""

    name: ClassVar[str] = "bilm"
    token_term: ClassVar[str] = "forward"
    needs: ClassVar[str] = "neighbouring"
    visibility: ClassVar[str] = "bidirectional"
    two_streams: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.num_targets <= UNKNOWN:
            raise InputError(f"num_targets is {self.num_targets}: it must hold <S>, </S>, <UNK> and words")
        if self.num_samples < 0:
            raise InputError(f"num_samples is {self.num_samples}: it must not be below 0 (0 = all words)")
        if self.gradient_scale <= 0:
            raise InputError(f"gradient_scale is {self.gradient_scale}: it must be above 0")

    def head(self, backbone: BackboneModel) -> SampledSoftmaxHead:
        """Build the output table. The mix of the layers is for tasks to train: it has no part in this loss."""
        backbone.mix.requires_grad_(False)
        settings = backbone.settings
        return SampledSoftmaxHead(
            min(self.num_targets, backbone.vocab_size), settings.embedding_width, self.num_samples
        )

    def after(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> Terms:
        """Return the terms of both directions."""
        terms: Terms = {}
        for name, states_NP, targets_N in self._sides(head, output, batch):
            total = head.loss(states_NP, targets_N)
            if total.requires_grad and self.gradient_scale != 1:
                total.register_hook(lambda gradient: gradient * self.gradient_scale)
            terms[name] = Term(total, len(targets_N), self.weight / 2)
        return terms

    def judge(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> dict[str, Judged]:
        """Return how often the likeliest word of each direction is the right one."""
        found = {}
        step = max(1, CHUNK_NUMEL // len(head.weight))
        for name, states_NP, targets_N in self._sides(head, output, batch):
            parts = zip(states_NP.split(step), targets_N.split(step))
            right = sum((head.logits(states).argmax(-1) == targets).sum() for states, targets in parts)
            found[name] = Judged(right, len(targets_N))
        return found

    def _sides(self, head: nn.Module, output: Output, batch: Batch) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield the name, the states [N, P] and the targets [N] of each direction, rare targets as <UNK>."""
        targets_BT = torch.where(batch.targets < len(head.weight), batch.targets, UNKNOWN)
        for name, states_BTP, targets in zip(
            ("forward", "backward"), output.prediction.chunk(2, 1), targets_BT.chunk(2, 1)
        ):
            yield name, states_BTP.flatten(0, 1), targets.flatten()

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return how many words each direction predicts: windows of streams are always full."""
        return {"forward": batch.num_targets // 2, "backward": batch.num_targets // 2}

    def num_flops(self, head: nn.Module, backbone: BackboneModel, batch: Batch) -> float:
        """Return the floating-point operations of the head's forward pass."""
        return head.num_flops(batch.num_targets)

    def logits(self, head: nn.Module, backbone: BackboneModel, hidden: Tensor) -> Tensor:
        """Return the scores [..., number of targets] for states [..., P] of either direction."""
        return head.logits(hidden)
