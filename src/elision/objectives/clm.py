"""Causal language modelling: predict each token from those before it (Radford et al. 2018, equation 1)."""

import dataclasses
from typing import ClassVar

from elision.model.backbone import BackboneModel
from elision.model.heads import VocabularyHead
from elision.objectives.token_prediction import TokenPrediction


@dataclasses.dataclass(frozen=True)
class CausalLM(TokenPrediction):
    """Cross-entropy of the next token at every place, through the tied token table or one of its own."""

    weight: float = 1.0
    """how much this term weighs in the loss"""
    bias: bool = False
    """a bias for each token in the output layer (XLM, CTRL)"""
    tied: bool = True
    """score tokens by the token table; False = by an output table of their own (GPT-NeoX, LLaMA)"""

    name: ClassVar[str] = "clm"
    needs: ClassVar[str] = "next"
    visibility: ClassVar[str] = "causal"

    def head(self, backbone: BackboneModel) -> VocabularyHead:
        """Build the head: the tied table without a bias has no parameters of its own."""
        own_width = None if self.tied else backbone.settings.hidden_size
        head = VocabularyHead(backbone.vocab_size, bias=self.bias, own_width=own_width)
        backbone.settings.init.apply_(head)
        return head
