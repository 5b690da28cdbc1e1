"""Multi-head attention (Vaswani et al. 2017, section 3.2), with heads of keys and values that several heads of queries
share (Ainslie et al. 2023) and learned biases on the scores.

B rows, T tokens (Q queries, K keys), D hidden size, H heads, G heads of keys and values, C channels of a head, E examples,
S places of a source, M places that are needed.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.errors import InputError
from elision.model.blockwise import BLOCK_QUERIES, attend_in_blocks
from elision.model.cache import LayerCache
from elision.model.position import Angles, rotated
from elision.model.visibility import Visible

# What a score becomes that may not be seen. Finite, so that a query that sees nothing at all stays a number.
UNSEEN = -1e30


def attend_reference(
    query_BHQC: Tensor,
    key_BGKC: Tensor,
    value_BGKC: Tensor,
    visible: Visible,
    dropout: float = 0.0,
    scale: float | None = None,
    bias_HQK: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the mixed values [B, H, Q, C] and the attention weights [B, H, Q, K], step by step as in the papers.

    This is the path to read; `attend` computes the same with fused kernels (a test holds them equal).
    """
    key_BHKC, value_BHKC = (_each_head(states, query_BHQC.shape[1]) for states in (key_BGKC, value_BGKC))
    scale = 1 / math.sqrt(query_BHQC.shape[-1]) if scale is None else scale
    score_BHQK = query_BHQC @ key_BHKC.transpose(-1, -2) * scale
    if bias_HQK is not None:
        score_BHQK = score_BHQK + bias_HQK
    mask = visible.matrix(*score_BHQK.shape[-2:], score_BHQK.device)
    exact = torch.promote_types(score_BHQK.dtype, torch.float32)
    if mask is None:
        weight_BHQK = torch.softmax(score_BHQK, -1, dtype=exact)
    else:
        weight_BHQK = torch.softmax(score_BHQK.to(exact).masked_fill(~mask, UNSEEN), -1).masked_fill(~mask, 0.0)
    weight_BHQK = weight_BHQK.to(value_BHKC.dtype)
    return F.dropout(weight_BHQK, dropout) @ value_BHKC, weight_BHQK


def attend(
    query_BHQC: Tensor,
    key_BGKC: Tensor,
    value_BGKC: Tensor,
    visible: Visible,
    dropout: float = 0.0,
    scale: float | None = None,
    bias_HQK: Tensor | None = None,
) -> Tensor:
    """Return the mixed values [B, H, Q, C] by the fastest path there is; what a query mixes that sees nothing means nothing.

    Head h of the queries looks at head h // (H / G) of the keys. scale: None = 1 / sqrt(C). bias: added to the scores of
    every row. That path is PyTorch's fused attention, but on a CPU for what its kernel there does not know and PyTorch would
    do by holding all weights of all rows at once, several times over (dropout, a bias that learns), and for windows, beyond
    which it would look in vain.
    """
    num_queries, num_keys = query_BHQC.shape[2], key_BGKC.shape[2]
    on_cpu = query_BHQC.device.type == "cpu"
    if on_cpu and not torch.compiler.is_compiling():
        biased = bias_HQK is not None and num_queries > 1
        skips = visible.window is not None and num_queries > 1 and visible.window + BLOCK_QUERIES <= num_keys // 2
        if dropout > 0 or biased or skips:
            return attend_in_blocks(query_BHQC, key_BGKC, value_BGKC, visible, dropout, scale, bias_HQK)
    if num_queries == 1 and query_BHQC.shape[1] != key_BGKC.shape[1] and bias_HQK is None:
        # The heads that look at the same keys are so many queries of one head: nothing need be copied out for them.
        together = query_BHQC.view(len(query_BHQC), key_BGKC.shape[1], -1, query_BHQC.shape[-1])
        seen = Visible(visible.matrix(1, num_keys, query_BHQC.device))
        return attend(together, key_BGKC, value_BGKC, seen, dropout, scale).reshape(query_BHQC.shape)
    narrow = visible.window is not None and visible.window < num_keys
    plain = visible.mask is None and not narrow and bias_HQK is None and num_queries == num_keys
    mask = None if plain else visible.matrix(num_queries, num_keys, query_BHQC.device)
    if bias_HQK is not None:
        bias = bias_HQK[None].to(query_BHQC.dtype)
        mask = bias if mask is None else bias.masked_fill(~mask, max(UNSEEN, torch.finfo(bias.dtype).min))
    if not on_cpu:
        # There, kernels that take a mask do not know of shared heads; PyTorch would fall back to holding all weights.
        key_BGKC, value_BGKC = (_each_head(states, query_BHQC.shape[1]) for states in (key_BGKC, value_BGKC))
    return F.scaled_dot_product_attention(
        query_BHQC,
        key_BGKC,
        value_BGKC,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=plain and visible.causal,
        scale=scale,
        enable_gqa=query_BHQC.shape[1] != key_BGKC.shape[1],
    )


def _each_head(states_BGKC: Tensor, num_heads: int) -> Tensor:
    shared = num_heads // states_BGKC.shape[1]
    return states_BGKC if shared == 1 else states_BGKC.repeat_interleave(shared, 1)


Biases = Literal["all", "none", "output"]


class Attention(nn.Module):
    """Self-attention; queries, keys and values come from one fused projection, whose rows lie in that order."""

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        dropout: float,
        *,
        num_key_value_heads: int | None = None,
        head_size: int | None = None,
        biases: Biases = "all",
        scale: float | None = None,
    ):
        """num_key_value_heads: None = as many as num_heads; head_size: None = hidden_size / num_heads.

        biases: "output" = not on queries, keys and values. scale: None = 1 / sqrt(head_size).

        Raises: InputError when num_key_value_heads does not divide num_heads.
        """
        super().__init__()
        self.num_heads, self.dropout, self.scale = num_heads, dropout, scale
        self.num_key_value_heads = num_heads if num_key_value_heads is None else num_key_value_heads
        if self.num_key_value_heads < 1 or num_heads % self.num_key_value_heads:
            raise InputError(
                f"num_key_value_heads {self.num_key_value_heads} does not divide num_heads {num_heads}: each head of keys "
                f"and values serves an equal number of heads of queries"
            )
        self.head_size = hidden_size // num_heads if head_size is None else head_size
        width = num_heads * self.head_size
        self.query_key_value = nn.Linear(
            hidden_size, width + 2 * self.num_key_value_heads * self.head_size, bias=biases == "all"
        )
        self.output = nn.Linear(width, hidden_size, bias=biases != "none")

    def forward(
        self,
        hidden_BTD: Tensor,
        visible: Visible,
        cache: LayerCache | None = None,
        needed_at: Tensor | None = None,
        angles: Angles | None = None,
        bias_HQK: Tensor | None = None,
    ) -> Tensor:
        """Return [B, T, D], or [M, D] for the M of the B * T places at `needed_at`.

        With a cache, the T tokens follow those already in it and see them too. angles: of the T tokens, for rotary
        positions; bias: on the scores.
        """
        rows, length, _ = hidden_BTD.shape
        heads, shared = self.num_heads, self.num_key_value_heads
        split_BTHC = self.query_key_value(hidden_BTD).view(rows, length, heads + 2 * shared, self.head_size)
        if angles is None:
            query_BHTC, key_BGTC, value_BGTC = split_BTHC.transpose(1, 2).split([heads, shared, shared], 1)
        else:
            # Queries and keys in one piece: fewer and larger steps.
            looking, value_BGTC = split_BTHC.transpose(1, 2).split([heads + shared, shared], 1)
            query_BHTC, key_BGTC = rotated(looking, angles).split([heads, shared], 1)
        if cache is not None:
            key_BGTC, value_BGTC = cache.append(key_BGTC, value_BGTC)
        dropout = self.dropout if self.training else 0.0
        mixed_BHTC = attend(query_BHTC, key_BGTC, value_BGTC, visible, dropout, self.scale, bias_HQK)
        mixed_BTD = mixed_BHTC.transpose(1, 2).reshape(rows, length, -1)
        return self.output(mixed_BTD if needed_at is None else at_places(mixed_BTD, needed_at))


class CrossAttention(nn.Module):
    """Attention of what is being written to what was read: queries from one, keys and values from the other."""

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        dropout: float,
        *,
        head_size: int | None = None,
        biases: Biases = "all",
        scale: float | None = None,
        source_size: int | None = None,
    ):
        """head_size: None = hidden_size / num_heads. biases: "output" = not on queries, keys and values.

        scale: None = 1 / sqrt(head_size). source_size: width of the states that are looked at, None = hidden_size.
        """
        super().__init__()
        self.num_heads, self.dropout, self.scale = num_heads, dropout, scale
        self.head_size = hidden_size // num_heads if head_size is None else head_size
        width = num_heads * self.head_size
        self.query = nn.Linear(hidden_size, width, bias=biases == "all")
        self.key_value = nn.Linear(hidden_size if source_size is None else source_size, 2 * width, bias=biases == "all")
        self.output = nn.Linear(width, hidden_size, bias=biases != "none")

    def keys_and_values(self, source_ESD: Tensor) -> tuple[Tensor, Tensor]:
        """Return what queries look at, [E, H, S, C] each."""
        split_ESNHC = self.key_value(source_ESD).view(*source_ESD.shape[:2], 2, self.num_heads, self.head_size)
        key_EHSC, value_EHSC = split_ESNHC.permute(2, 0, 3, 1, 4)
        return key_EHSC, value_EHSC

    def forward(
        self,
        hidden_BTD: Tensor,
        source_ESD: Tensor | None,
        visible: Visible,
        cache: LayerCache | None = None,
        needed_at: Tensor | None = None,
    ) -> Tensor:
        """Return [B, T, D], or [M, D] for the M of the B * T places at `needed_at`.

        With a cache, keys and values of the source are computed once and kept in `cache.cross`; after that the source may
        be None. There may be K rows for each example (B = E * K, row e * K + k belongs to example e), as the beams
        of a search; `visible` then speaks of examples and holds for all queries alike: [E, 1, 1, S].
        """
        rows, length, _ = hidden_BTD.shape
        if cache is None or cache.cross is None:
            assert source_ESD is not None
            looked_at = self.keys_and_values(source_ESD)
            if cache is not None:
                cache.cross = looked_at
        else:
            looked_at = cache.cross
        key_EHSC, value_EHSC = looked_at
        examples = key_EHSC.shape[0]
        # All rows of an example are so many more queries of it: they share its keys and values.
        query_BTHC = self.query(hidden_BTD).view(examples, -1, self.num_heads, self.head_size)
        assert examples == rows or visible.mask is None or visible.mask.shape[2] == 1
        dropout = self.dropout if self.training else 0.0
        mixed = attend(query_BTHC.transpose(1, 2), key_EHSC, value_EHSC, visible, dropout, self.scale)
        mixed_BTD = mixed.transpose(1, 2).reshape(rows, length, -1)
        return self.output(mixed_BTD if needed_at is None else at_places(mixed_BTD, needed_at))


def at_places(hidden_BTD: Tensor, places_M: Tensor) -> Tensor:
    """Return the states [M, D] at the given indices of the flattened B * T places."""
    return hidden_BTD.flatten(0, 1).index_select(0, places_M)


def spread(states_MD: Tensor, places_M: Tensor, shape_BT: torch.Size) -> Tensor:
    """Return [B, T, D] with the states at the given indices of the flattened B * T places, and zeros elsewhere."""
    everywhere = states_MD.new_zeros(shape_BT.numel(), states_MD.shape[-1])
    return everywhere.index_copy(0, places_M, states_MD).view(*shape_BT, -1)
