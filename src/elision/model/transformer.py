"""The Transformer that most systems share: BERT and GPT-2 are two settings of it.

B rows, T tokens, D hidden size, E examples, F feed-forward size, M places that are needed.
"""

import dataclasses
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.errors import InputError
from elision.model.attention import Attention, at_places
from elision.model.cache import Cache, LayerCache
from elision.model.dropout import Dropout
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions
from elision.model.visibility import CAUSAL, EVERYTHING, Visible, causal_mask, same_document

ACTIVATIONS = {"gelu": F.gelu, "gelu_tanh": lambda hidden: F.gelu(hidden, approximate="tanh")}


@dataclasses.dataclass(slots=True)
class Output:
    """What a backbone makes of a batch.

    hidden [B, T, D] is what fine-tuning reads. `prediction` is what a pretraining head reads: the same tensor, unless
    the backbone has another stream for it (XLNet's queries, DeBERTa's mask decoder). `carry` is what the next batch of
    a contiguous stream starts from (memories, LSTM states): tensors by name, or None.
    """

    hidden: Tensor
    prediction: Tensor
    carry: dict[str, Tensor] | None = None


@dataclasses.dataclass(frozen=True)
class Transformer:
    """A stack of attention and feed-forward blocks over token, position and segment embeddings."""

    num_layers: int
    """blocks in the stack"""
    hidden_size: int
    """width of the states"""
    num_heads: int
    """attention heads; must divide hidden_size"""
    feedforward_size: int
    """width inside the feed-forward layer"""
    visibility: Literal["bidirectional", "causal"]
    """whether a token sees its whole document or only what precedes it"""
    norm: Literal["post", "pre"]
    """where layer norm sits: after each residual sum (2017, BERT) or before each sublayer (GPT-2)"""
    activation: Literal["gelu", "gelu_tanh"] = "gelu"
    """exact GELU or its tanh approximation"""
    positions: LearnedPositions = LearnedPositions()
    num_types: int = 0
    """segment embeddings (2 in BERT, 0 = none)"""
    embedding_norm: bool = False
    """layer norm on the summed embeddings"""
    final_norm: bool = False
    """layer norm after the last block"""
    pooler: bool = False
    """a dense tanh layer on the summary token, trained with next-sentence prediction"""
    norm_eps: float = 1e-5
    dropout: float = 0.1
    """dropout on the embeddings and on what each sublayer adds"""
    attention_dropout: float = 0.1
    """dropout on the attention weights"""
    init: NormalInit = NormalInit()

    def __post_init__(self) -> None:
        for name in ("num_layers", "hidden_size", "num_heads", "feedforward_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.hidden_size % self.num_heads:
            raise InputError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}: each head takes an "
                f"equal share of the width"
            )
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give a probability from 0 to below 1")

    @property
    def max_length(self) -> int:
        """The longest sequence it can read."""
        return self.positions.num_positions

    def build(self, vocab_size: int) -> "TransformerModel":
        """Return the module with initialised weights (PyTorch's global generator)."""
        return TransformerModel(self, vocab_size)

    def visible(self, batch: Batch) -> Visible:
        """Return who sees whom in a batch: tokens of their own document, all of them or those before."""
        within = same_document(batch)
        return within & CAUSAL if self.visibility == "causal" else within

    @property
    def skippable_flops(self) -> float:
        """The operations of a forward pass that a place costs in the last block after attention."""
        return 2.0 * (self.hidden_size**2 + 2 * self.hidden_size * self.feedforward_size)

    def flops_per_token(self, row_length: int) -> float:
        """Return the floating-point operations of matrix products in a forward pass, per token of a full row."""
        projections = 4 * self.hidden_size**2 + 2 * self.hidden_size * self.feedforward_size
        attention = 2 * row_length * self.hidden_size * (0.5 if self.visibility == "causal" else 1.0)
        return 2.0 * self.num_layers * (projections + attention)


class FeedForward(nn.Module):
    """Two linear layers with an activation between them (Vaswani et al. 2017, section 3.3)."""

    def __init__(self, settings: Transformer):
        super().__init__()
        self.inner = nn.Linear(settings.hidden_size, settings.feedforward_size)
        self.output = nn.Linear(settings.feedforward_size, settings.hidden_size)
        self.activation = ACTIVATIONS[settings.activation]

    def forward(self, hidden: Tensor) -> Tensor:
        """Return [..., D] for [..., D]."""
        return self.output(self.activation(self.inner(hidden)))


class Block(nn.Module):
    """Attention, then feed-forward, each added to what it read. The four norm slots are where papers differ."""

    def __init__(self, settings: Transformer):
        super().__init__()

        def norm(where: str) -> nn.Module:
            filled = settings.norm == where
            return nn.LayerNorm(settings.hidden_size, eps=settings.norm_eps) if filled else nn.Identity()

        self.norm_before_attention = norm("pre")
        self.attention = Attention(settings.hidden_size, settings.num_heads, settings.attention_dropout)
        self.norm_after_attention = norm("post")
        self.norm_before_feedforward = norm("pre")
        self.feedforward = FeedForward(settings)
        self.norm_after_feedforward = norm("post")
        self.dropout = Dropout(settings.dropout)

    def forward(
        self, hidden: Tensor, visible: Visible, cache: LayerCache | None = None, needed_at: Tensor | None = None
    ) -> Tensor:
        """Return [B, T, D] for [B, T, D]; or, for the places at `needed_at` alone, [M, D].

        Keys and values need every place, but all that follows attention is done place by place.
        """
        added = self.attention(self.norm_before_attention(hidden), visible, cache, needed_at)
        if needed_at is not None:
            hidden = at_places(hidden, needed_at)
        hidden = self.norm_after_attention(hidden + self.dropout(added))
        added = self.feedforward(self.norm_before_feedforward(hidden))
        return self.norm_after_feedforward(hidden + self.dropout(added))


class TransformerModel(nn.Module):
    """The module of `Transformer`. Its token table also serves the output heads."""

    def __init__(self, settings: Transformer, vocab_size: int):
        super().__init__()
        self.settings, self.vocab_size = settings, vocab_size
        width = settings.hidden_size
        self.tokens = nn.Embedding(vocab_size, width)
        self.positions = settings.positions.build(width)
        self.types = nn.Embedding(settings.num_types, width) if settings.num_types else None
        self.embedding_norm = nn.LayerNorm(width, eps=settings.norm_eps) if settings.embedding_norm else nn.Identity()
        self.dropout = Dropout(settings.dropout)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.num_layers))
        self.final_norm = nn.LayerNorm(width, eps=settings.norm_eps) if settings.final_norm else nn.Identity()
        self.pooler = nn.Linear(width, width) if settings.pooler else None
        settings.init.apply_(self, settings.num_layers)

    def forward(
        self,
        batch: Batch,
        carry: dict[str, Tensor] | None = None,
        visible: Tensor | None = None,
        needed_only: bool = False,
    ) -> Output:
        """Return the states of every place of the batch; places without a token hold values that mean nothing.

        visible: bool [B, T, T] or None; narrows further whom a token sees, and must leave every token something to see.
        needed_only: the states at places that are not in `batch.needed_at` are left out (zeros).
        """
        hidden_BTD = self.embed(batch.inputs, batch.positions, batch.type_ids)
        sees = self.settings.visible(batch)
        if visible is not None:
            sees = sees & Visible(visible[:, None])
        for block in self.blocks[:-1]:
            hidden_BTD = block(hidden_BTD, sees)
        needed_at = batch.needed_at if needed_only else None
        hidden = self.final_norm(self.blocks[-1](hidden_BTD, sees, needed_at=needed_at))
        if needed_at is not None:
            everywhere = hidden.new_zeros(batch.inputs.numel(), hidden.shape[-1])
            hidden = everywhere.index_copy(0, needed_at, hidden).view(*batch.inputs.shape, -1)
        return Output(hidden, hidden)

    def embed(self, inputs_BT: Tensor, positions_BT: Tensor, type_ids_BT: Tensor | None = None) -> Tensor:
        """Return the sum of token, position and segment embeddings [B, T, D], normalised and dropped out."""
        embedded_BTD = self.tokens(inputs_BT) + self.positions.embed(positions_BT)
        if self.types is not None:
            # Without segments everything is the first one, as when a lone sentence is read.
            segment = self.types.weight[0] if type_ids_BT is None else self.types(type_ids_BT)
            embedded_BTD = embedded_BTD + segment
        return self.dropout(self.embedding_norm(embedded_BTD))

    def continue_with(self, inputs_BT: Tensor, cache: Cache) -> Tensor:
        """Return the states [B, T, D] of T tokens that follow those in the cache, which takes them in (causal only)."""
        assert self.settings.visibility == "causal"
        length = inputs_BT.shape[1]
        positions = torch.arange(cache.length, cache.length + length, device=inputs_BT.device)
        hidden_BTD = self.embed(inputs_BT, positions.expand_as(inputs_BT))
        if length == 1:
            visible = EVERYTHING
        elif cache.length == 0:
            visible = CAUSAL
        else:
            visible = Visible(causal_mask(length, cache.length + length, inputs_BT.device))
        for block, layer_cache in zip(self.blocks, cache.layers, strict=True):
            hidden_BTD = block(hidden_BTD, visible, layer_cache)
        return self.final_norm(hidden_BTD)

    def pool(self, summary_ED: Tensor) -> Tensor:
        """Return what heads over whole examples read, [E, D]: the pooled state, or the state itself without a pooler."""
        return summary_ED if self.pooler is None else torch.tanh(self.pooler(summary_ED))


# Closed union of what a recipe accepts as its backbone; a mechanism with a file of its own joins it here.
Backbone = Transformer
