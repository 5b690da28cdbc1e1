"""Multi-head attention (Vaswani et al. 2017, section 3.2).

B rows, T tokens (Q queries, K keys), D hidden size, H heads, C = D / H, M places that are needed.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.model.blockwise import attend_in_blocks
from elision.model.cache import LayerCache
from elision.model.visibility import Visible, causal_mask


def attend_reference(
    query_BHQC: Tensor, key_BHKC: Tensor, value_BHKC: Tensor, visible: Visible, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the mixed values [B, H, Q, C] and the attention weights [B, H, Q, K], step by step as in the paper.

    This is the path to read; `attend` computes the same with fused kernels (a test holds them equal).
    """
    score_BHQK = query_BHQC @ key_BHKC.transpose(-1, -2) / math.sqrt(query_BHQC.shape[-1])
    mask = visible.mask
    if visible.causal:
        mask = causal_mask(*score_BHQK.shape[-2:], score_BHQK.device)
    if mask is not None:
        score_BHQK = score_BHQK.masked_fill(~mask, float("-inf"))
    weight_BHQK = torch.softmax(score_BHQK.float(), -1).to(value_BHKC.dtype)
    return F.dropout(weight_BHQK, dropout) @ value_BHKC, weight_BHQK


def attend(query_BHQC: Tensor, key_BHKC: Tensor, value_BHKC: Tensor, visible: Visible, dropout: float = 0.0) -> Tensor:
    """Return the mixed values [B, H, Q, C] by the fastest path there is.

    That is PyTorch's fused attention, but for dropout on a CPU, which its fused kernel there cannot do: it would hold
    all weights of all rows at once, several times over.
    """
    if dropout > 0 and query_BHQC.device.type == "cpu" and not torch.compiler.is_compiling():
        return attend_in_blocks(query_BHQC, key_BHKC, value_BHKC, visible, dropout)
    return F.scaled_dot_product_attention(
        query_BHQC, key_BHKC, value_BHKC, attn_mask=visible.mask, dropout_p=dropout, is_causal=visible.causal
    )


class Attention(nn.Module):
    """Self-attention with biases everywhere; queries, keys and values come from one fused projection."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)

    def forward(
        self, hidden_BTD: Tensor, visible: Visible, cache: LayerCache | None = None, needed_at: Tensor | None = None
    ) -> Tensor:
        """Return [B, T, D], or [M, D] for the M of the B * T places at `needed_at`.

        With a cache, the T tokens follow those already in it and see them too.
        """
        rows, length, width = hidden_BTD.shape
        split_BTSHC = self.query_key_value(hidden_BTD).view(rows, length, 3, self.num_heads, -1)
        query_BHTC, key_BHTC, value_BHTC = split_BTSHC.permute(2, 0, 3, 1, 4)
        if cache is not None:
            key_BHTC, value_BHTC = cache.append(key_BHTC, value_BHTC)
        mixed_BHTC = attend(query_BHTC, key_BHTC, value_BHTC, visible, self.dropout if self.training else 0.0)
        mixed_BTD = mixed_BHTC.transpose(1, 2).reshape(rows, length, width)
        return self.output(mixed_BTD if needed_at is None else at_places(mixed_BTD, needed_at))


def at_places(hidden_BTD: Tensor, places_M: Tensor) -> Tensor:
    """Return the states [M, D] at the given indices of the flattened B * T places."""
    return hidden_BTD.flatten(0, 1).index_select(0, places_M)


def spread(states_MD: Tensor, places_M: Tensor, shape_BT: torch.Size) -> Tensor:
    """Return [B, T, D] with the states at the given indices of the flattened B * T places, and zeros elsewhere."""
    everywhere = states_MD.new_zeros(shape_BT.numel(), states_MD.shape[-1])
    return everywhere.index_copy(0, places_M, states_MD).view(*shape_BT, -1)
