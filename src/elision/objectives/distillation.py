"""Distillation: restore masked tokens, and say of every token what a larger teacher says (Sanh et al. 2019, section 3).

N places that hold a token, M of them with a target, D hidden size, V vocabulary.
"""

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.errors import InputError
from elision.model.backbone import BackboneModel, Output
from elision.model.block import ACTIVATIONS
from elision.model.heads import MaskedHead
from elision.model.soft_targets import distilled_sums
from elision.objectives.objective import Term, Terms
from elision.objectives.teacher import Teacher, spread_layers
from elision.objectives.token_prediction import TokenPrediction


class DistillationHead(MaskedHead):
    """The head for masked tokens; `teacher` is kept beside its parameters, loaded when it is first asked."""

    teacher: Teacher | None = None


@dataclasses.dataclass(frozen=True)
class Distillation(TokenPrediction):
    """Three terms: `mlm`, the cross-entropy of masked tokens; `soft`, T^2 KL(teacher || student) at temperature T;
    `cosine`, 1 - cos between the last hidden states of both.

    The teacher is any encoder that restores masked tokens in the same vocabulary. It is in evaluation mode, gets no
    gradient and no place in checkpoints; to use a student, or to measure it, the teacher need not be there (its two terms
    are then left out).
    """

    teacher: str = ""
    """the model to learn from: a run, checkpoint or Hugging Face folder"""
    weight: float = 2.0
    """how much the cross-entropy of masked tokens weighs in the loss"""
    soft_weight: float = 5.0
    """how much the teacher's predictions weigh; 0 = not asked for"""
    cosine_weight: float = 1.0
    """how much the direction of the hidden states weighs; 0 = not compared. Needs the teacher's width"""
    temperature: float = 2.0
    """T: both distributions are softmax(scores / T)"""
    soft_places: Literal["all", "targets"] = "all"
    """where predictions are compared: at every token, or only where one was left out"""
    copy_layers: bool = True
    """begin with layers, tables and head of the teacher instead of random weights"""
    layers: tuple[int, ...] = ()
    """which of the teacher's layers (from 0), one for each of the student's; empty = evenly spread: 0 2 4 7 9 11 of 12"""

    name: ClassVar[str] = "mlm"
    needs: ClassVar[str] = "masked"
    visibility: ClassVar[str] = "bidirectional"

    def __post_init__(self) -> None:
        for name in ("weight", "soft_weight", "cosine_weight"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must be at least 0")
        if self.temperature <= 0:
            raise InputError(f"temperature is {self.temperature}: it must be above 0")

    @property
    def reads_everywhere(self) -> bool:
        """Whether a term is read off places without a target."""
        return self.cosine_weight > 0 or (self.soft_weight > 0 and self.soft_places == "all")

    def head(self, backbone: BackboneModel) -> DistillationHead:
        """Build the transform and the output bias; no teacher yet."""
        settings = backbone.settings
        head = DistillationHead(
            backbone.vocab_size,
            settings.hidden_size,
            settings.embedding_width,
            ACTIVATIONS[settings.activation],
            settings.norm_eps,
        )
        settings.init.apply_(head)
        return head

    def begin(self, head: nn.Module, backbone: BackboneModel, symbols: list[str]) -> None:
        """Load the teacher and begin with its layers.

        Raises: InputError when it has another vocabulary, or nothing that fits the student.
        """
        teacher = self._load(head, backbone)
        teacher.check_symbols(symbols)
        if self.copy_layers:
            settings, theirs = backbone.settings, teacher.model.backbone.settings
            layers = self.layers or spread_layers(theirs.num_layers, settings.num_layers)
            if len(layers) != settings.num_layers or not all(0 <= layer < theirs.num_layers for layer in layers):
                raise InputError(
                    f"layers is {layers}: give {settings.num_layers} numbers from 0 to {theirs.num_layers - 1}, the "
                    f"teacher's layer for each of the student's"
                )
            teacher.copy_into(backbone, head, layers)

    def after(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> Terms:
        """Return the three terms; those of weight 0 are not computed, but for the one of masked tokens."""
        teacher = self._teacher(head, backbone)
        if teacher is None:
            return super().after(head, backbone, output, batch)
        places_N = _places(batch) if self.reads_everywhere else batch.target_at
        theirs = teacher.states(batch, places_N, backbone.table)
        terms: Terms = {}
        if self.soft_weight > 0:
            num_soft = self._num_soft(batch)
            if self.soft_places == "all" and output.prediction is not output.hidden:
                raise InputError(
                    f"{type(backbone.settings).__name__} predicts only at targets: set soft_places to 'targets'"
                )
            taught_ND = theirs.prediction[:num_soft]
            learned_ND = output.prediction.flatten(0, 1).index_select(0, places_N[:num_soft])
            targets_M = batch.targets.flatten().index_select(0, batch.target_at)
            soft, hard = distilled_sums(
                head.transform(learned_ND),
                backbone.table,
                head.bias,
                targets_M,
                lambda begin, end: teacher.scores(taught_ND[begin:end], backbone.vocab_size),
                self.temperature,
            )
            terms[self.name] = Term(hard, batch.num_targets, self.weight)
            terms["soft"] = Term(soft, num_soft, self.soft_weight)
        else:
            terms |= super().after(head, backbone, output, batch)
        if self.cosine_weight > 0:
            learned_ND = output.hidden.flatten(0, 1).index_select(0, places_N)
            terms["cosine"] = Term(_turned(learned_ND, theirs.hidden), batch.num_tokens, self.cosine_weight)
        return terms

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return how many targets there are, and how many places the teacher is asked about."""
        counts = {self.name: batch.num_targets}
        if self.soft_weight > 0:
            counts["soft"] = self._num_soft(batch)
        if self.cosine_weight > 0:
            counts["cosine"] = batch.num_tokens
        return counts

    def num_flops(self, head: nn.Module, backbone: BackboneModel, batch: Batch) -> float:
        """Return the floating-point operations of the head's forward pass, and a third of the teacher's.

        Whoever asks counts a backward pass of twice as many, which the teacher has not.
        """
        num_places = self._num_soft(batch) if self.soft_weight > 0 else batch.num_targets
        flops = head.num_flops(num_places, backbone.settings.hidden_size, backbone.vocab_size)
        if head.teacher is not None and self._asks:
            flops += head.teacher.num_flops(batch, num_places if self.soft_weight > 0 else 0) / 3
        return flops

    @property
    def _asks(self) -> bool:
        return self.soft_weight > 0 or self.cosine_weight > 0

    def _num_soft(self, batch: Batch) -> int:
        return batch.num_tokens if self.soft_places == "all" else batch.num_targets

    def _teacher(self, head: nn.Module, backbone: BackboneModel) -> Teacher | None:
        """Return the teacher; None where none is wanted, or when a student is measured where its teacher is not."""
        is_gone = not self.teacher or not Path(self.teacher).exists()
        if not self._asks or (head.teacher is None and not head.training and is_gone):
            return None
        return self._load(head, backbone)

    def _load(self, head: nn.Module, backbone: BackboneModel) -> Teacher:
        if head.teacher is None:
            if not self.teacher:
                raise InputError(
                    "the objective Distillation has no teacher: name a run, checkpoint or Hugging Face folder with "
                    "--objectives.0.teacher PATH"
                )
            teacher = Teacher(Path(self.teacher))
            theirs = teacher.model.backbone
            if theirs.vocab_size < backbone.vocab_size:
                raise InputError(
                    f"the teacher {self.teacher} knows {theirs.vocab_size} symbols, the student {backbone.vocab_size}: "
                    f"both must have one vocabulary"
                )
            if self.cosine_weight > 0 and theirs.settings.hidden_size != backbone.settings.hidden_size:
                raise InputError(
                    f"the teacher's states have width {theirs.settings.hidden_size}, the student's "
                    f"{backbone.settings.hidden_size}: their directions cannot be compared. Set cosine_weight to 0"
                )
            head.teacher = teacher
        return head.teacher


def _places(batch: Batch) -> Tensor:
    """Return the places [N] of the flattened B * T that hold a token, those with a target first."""
    others = (batch.doc_ids > 0) & (batch.targets < 0)
    # How many there are is known, so a GPU need not be waited for.
    rest = torch.nonzero_static(others.flatten(), size=batch.num_tokens - batch.num_targets)[:, 0]
    return torch.cat([batch.target_at, rest])


def _turned(learned_ND: Tensor, taught_ND: Tensor) -> Tensor:
    """Return the sum of 1 - cos over the places."""
    exact = torch.promote_types(learned_ND.dtype, torch.float32)
    return (1 - F.cosine_similarity(learned_ND.to(exact), taught_ND.to(exact), dim=-1)).sum()
