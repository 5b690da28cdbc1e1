"""The block that most systems share, and its slots: which norm, which activation, which biases, what it reads.

B rows, T tokens, S places of a source, D hidden size, F feed-forward size, H heads, M places that are needed.
"""

import dataclasses
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from elision.model.attention import Attention, CrossAttention, at_places
from elision.model.cache import LayerCache
from elision.model.dropout import Dropout
from elision.model.position import Angles
from elision.model.rms_norm import RMSNorm
from elision.model.visibility import Visible

if TYPE_CHECKING:
    from elision.model.transformer import Transformer

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda hidden: F.gelu(hidden, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


def norm_of(settings: "Transformer", width: int) -> nn.Module:
    """Return the norm that a model uses, over states of this width."""
    if settings.norm_kind == "rms":
        return RMSNorm(width, settings.norm_eps)
    return nn.LayerNorm(width, eps=settings.norm_eps)


@dataclasses.dataclass(slots=True)
class Reading:
    """What every block of a stack reads beside its states.

    visible: who sees whom. angles: by which queries and keys are turned (rotary positions). bias [H, T, K]: what is added
    to the scores (T5's positions). source [B, S, D], None where a cache holds what is needed of it: what the encoder made,
    and source_visible: which of it is seen.
    """

    visible: Visible
    angles: Angles | None = None
    bias: Tensor | None = None
    source: Tensor | None = None
    source_visible: Visible | None = None


class FeedForward(nn.Module):
    """Two linear layers with an activation between them (Vaswani et al. 2017, section 3.3).

    Gated, the activation is that of a third layer and multiplies the first (Shazeer 2020, equation 5).
    """

    def __init__(
        self,
        hidden_size: int,
        feedforward_size: int,
        activation: str,
        *,
        gated: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.inner = nn.Linear(hidden_size, feedforward_size, bias)
        self.gate = nn.Linear(hidden_size, feedforward_size, bias) if gated else None
        self.output = nn.Linear(feedforward_size, hidden_size, bias)
        self.activation = ACTIVATIONS[activation]
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return [..., D] for [..., D]."""
        if self.gate is None:
            return self.output(self.dropout(self.activation(self.inner(hidden))))
        return self.output(self.dropout(self.activation(self.gate(hidden)) * self.inner(hidden)))


class Block(nn.Module):
    """Attention, with an encoder attention to its source, then feed-forward, each added to what it read.

    The norm slots are where papers differ. A block that shares holds no weights for that sublayer but uses those of the
    `lender`. `crosses`: whether it reads a source.
    """

    def __init__(self, settings: "Transformer", lender: "Block | None" = None, crosses: bool = False):
        super().__init__()
        sharing = settings.sharing if lender is not None else "none"
        # In tuples, so that borrowed weights are counted and saved once.
        self._attends = (lender if sharing in ("all", "attention") else self,)
        self._feeds = (lender if sharing in ("all", "feedforward") else self,)
        self.parallel = settings.parallel

        def norm(where: str) -> nn.Module:
            return norm_of(settings, settings.hidden_size) if settings.norm == where else nn.Identity()

        scale = None if settings.scale_attention else 1.0
        if self._attends[0] is self:
            self.norm_before_attention = norm("pre")
            self.attention = Attention(
                settings.hidden_size,
                settings.num_heads,
                settings.attention_dropout,
                num_key_value_heads=settings.num_key_value_heads,
                head_size=settings.head_size,
                biases=settings.biases,
                scale=scale,
            )
            self.norm_after_attention = norm("post")
        self.cross_attention = None
        if crosses:
            self.norm_before_cross_attention = norm("pre")
            self.cross_attention = CrossAttention(
                settings.hidden_size,
                settings.num_heads,
                settings.attention_dropout,
                head_size=settings.head_size,
                biases=settings.biases,
                scale=scale,
            )
            self.norm_after_cross_attention = norm("post")
        if self._feeds[0] is self:
            self.norm_before_feedforward = norm("pre")
            self.feedforward = FeedForward(
                settings.hidden_size,
                settings.feedforward_size,
                settings.activation,
                gated=settings.gated,
                bias=settings.biases != "none",
                dropout=settings.activation_dropout,
            )
            self.norm_after_feedforward = norm("post")
        self.dropout = Dropout(settings.dropout)

    def forward(
        self, hidden: Tensor, reads: Reading, cache: LayerCache | None = None, needed_at: Tensor | None = None
    ) -> Tensor:
        """Return [B, T, D] for [B, T, D]; or, for the places at `needed_at` alone, [M, D].

        Keys and values need every place, but all that follows attention is done place by place.
        """
        (attends,), (feeds,) = self._attends, self._feeds
        # Attention to a source needs queries in rows: places can only be left out after it.
        at = needed_at if self.cross_attention is None else None
        normed = attends.norm_before_attention(hidden)
        added = attends.attention(normed, reads.visible, cache, at, angles=reads.angles, bias_HQK=reads.bias)
        if at is not None:
            hidden = at_places(hidden, at)
        if self.parallel:
            # Both sublayers read what the block read, each through its own norm (Black et al. 2022, section 2.1).
            beside = feeds.feedforward(feeds.norm_before_feedforward(hidden))
            return hidden + self.dropout(added) + self.dropout(beside)
        hidden = attends.norm_after_attention(hidden + self.dropout(added))
        if self.cross_attention is not None:
            normed = self.norm_before_cross_attention(hidden)
            added = self.cross_attention(normed, reads.source, reads.source_visible, cache, needed_at)
            if needed_at is not None:
                hidden = at_places(hidden, needed_at)
            hidden = self.norm_after_cross_attention(hidden + self.dropout(added))
        added = feeds.feedforward(feeds.norm_before_feedforward(hidden))
        return feeds.norm_after_feedforward(hidden + self.dropout(added))
