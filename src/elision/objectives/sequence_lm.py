"""Writing a left-out text: predict each token of the answer from what was read and from the answer so far.

Sutskever et al. 2014, equation 1; BART (Lewis et al. 2020, section 2.2), T5 (Raffel et al. 2020, section 2.1), translation.
"""

import dataclasses
from typing import ClassVar

from torch import Tensor, nn

from elision.errors import InputError
from elision.model.backbone import BackboneModel
from elision.model.heads import VocabularyHead
from elision.objectives.token_prediction import TokenPrediction


@dataclasses.dataclass(frozen=True)
class SequenceLM(TokenPrediction):
    """Cross-entropy of every token of the answer, by a decoder beside an encoder or by one that has read the inputs itself."""

    weight: float = 1.0
    """how much this term weighs in the loss"""
    bias: bool = False
    """a bias for each token in the output layer (Marian)"""
    tied: bool = True
    """score tokens by the token table; False = by an output table of their own (T5 v1.1)"""
    scale_hidden: bool = False
    """multiply the states by hidden_size^-1/2 before the tied table (T5 v1.0)"""
    label_smoothing: float = 0.0
    """share of the target's weight that all tokens get alike (Szegedy et al. 2016, section 7); in training only"""
    z_loss: float = 0.0
    """weight of the squared logarithm of the softmax's normaliser (T5's code: 1e-4); in training only"""

    name: ClassVar[str] = "seq2seq"
    needs: ClassVar[str] = "sequence"
    visibility: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing is {self.label_smoothing}: give a share from 0 to below 1")
        if self.z_loss < 0:
            raise InputError(f"z_loss is {self.z_loss}: it must not be negative")

    def head(self, backbone: BackboneModel) -> VocabularyHead:
        """Build the head; tied and without a bias it has no parameters of its own."""
        width = backbone.settings.hidden_size
        head = VocabularyHead(
            backbone.vocab_size,
            bias=self.bias,
            own_width=None if self.tied else width,
            label_smoothing=self.label_smoothing,
            z_loss=self.z_loss,
        )
        backbone.settings.init.apply_(head)
        return head

    def after_states(self, hidden: Tensor) -> Tensor:
        """Return the states [..., D] as the table reads them."""
        return hidden * hidden.shape[-1] ** -0.5 if self.scale_hidden else hidden

    def logits(self, head: nn.Module, backbone: BackboneModel, hidden: Tensor) -> Tensor:
        """Return the scores [..., V] of every token for states [..., D]."""
        return super().logits(head, backbone, self.after_states(hidden))
