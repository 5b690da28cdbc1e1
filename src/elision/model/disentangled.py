"""Disentangled attention (He et al. 2020, DeBERTa, section 3.1): content and relative position score one another.

B rows, T tokens, D hidden size, H heads, C = D / H, M places that are needed, R rows of the table of relative positions,
N = 2T - 1 distances i - j from -(T - 1) to T - 1, in rising order; S slots of a row for the places that are decoded.

With content c and relative position r, query i scores key j

    ( Qc_i . Kc_j  +  Qc_i . Kr[d(i, j)]  +  Kc_j . Qr[d(i, j)] ) / sqrt((1 + terms) C)      d(i, j) = row of i - j

where `terms` counts the relative ones. The paper writes d(j, i) in the last; the released code uses the same row for
both, and so does this. A tensor [T, T, C] is never formed: each token meets all N distances once, in a product, and
takes from it the T entries that its partners have.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.model.attention import at_places
from elision.model.disentangled_blocks import attend_in_blocks
from elision.model.dropout import Dropout
from elision.model.visibility import Visible, causal_mask

# Scores of distances held at a time while places are decoded, in numbers (64 MiB of float32).
CHUNK_NUMEL = 1 << 24


def bucket(distance: Tensor, num_buckets: int, max_distance: int) -> Tensor:
    """Return the bucket of each distance, int64: itself up to num_buckets / 2, then on a logarithmic scale up to
    num_buckets - 1 for max_distance - 1. Odd in the distance.

    He et al. 2021 (DeBERTa-v2's code): with 256 buckets, 129 -> 129, 200 -> 169, 300 -> 207, 511 -> 255.
    """
    middle = num_buckets // 2
    size = distance.abs()
    # In float32 as in the released code, which decides where rounding up falls.
    share = torch.log(size.clamp(min=middle) / middle) / torch.log(torch.tensor((max_distance - 1) / middle))
    far = torch.ceil(share * (middle - 1)) + middle
    return torch.where(size <= middle, distance, (far * distance.sign()).long())


def table_rows(distance: Tensor, max_distance: int, num_buckets: int | None) -> Tensor:
    """Return the row of the table of relative positions for each distance i - j, int64; the farthest share one."""
    half = max_distance if num_buckets is None else num_buckets
    if num_buckets is not None:
        distance = bucket(distance, num_buckets, max_distance)
    return (distance + half).clamp(0, 2 * half - 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Distances:
    """The relative positions that rows of T tokens have: vectors [R, D], and which one each distance has, [N]."""

    vectors_RD: Tensor
    rows_N: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Slots:
    """Places that are decoded, laid out by row: the column of each slot [B, S], and the slot (of B * S) of each place."""

    columns_BS: Tensor
    slot_M: Tensor
    place_BS: Tensor
    """which of the M places each slot holds; empty slots hold any"""

    @staticmethod
    def of(places_M: Tensor, num_rows: int, length: int, most: int = 0) -> "Slots":
        """Lay out places, sorted indices into the flattened B * T; at most `most` are in a row (0: they are counted,
        for which a GPU is waited for)."""
        row_M, column_M = places_M // length, places_M % length
        count_B = torch.zeros(num_rows, dtype=torch.long, device=places_M.device)
        count_B.index_add_(0, row_M, torch.ones_like(row_M))
        size = most or max(1, int(count_B.max()))
        rank_M = torch.arange(len(places_M), device=places_M.device) - (count_B.cumsum(0) - count_B)[row_M]
        slot_M = row_M * size + rank_M
        columns, place = (torch.zeros(num_rows * size, dtype=torch.long, device=places_M.device) for _ in range(2))
        columns[slot_M] = column_M
        place[slot_M] = torch.arange(len(places_M), device=places_M.device)
        return Slots(columns.view(num_rows, size), slot_M, place.view(num_rows, size))


def attend_reference(
    query_BHTC: Tensor,
    key_BHTC: Tensor,
    value_BHTC: Tensor,
    position_key_HNC: Tensor | None,
    position_query_HNC: Tensor | None,
    visible: Visible,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Return the mixed values [B, H, T, C] and the attention weights [B, H, T, T], step by step, with plain gathers.

    This is the path to read; `attend` computes the same (a test holds them equal).
    """
    length = query_BHTC.shape[2]
    index = torch.arange(length, device=query_BHTC.device)
    index_TT = (index[:, None] - index[None, :] + length - 1).expand(*query_BHTC.shape[:2], -1, -1)
    score = query_BHTC @ key_BHTC.transpose(-1, -2)
    if position_key_HNC is not None:
        score = score + (query_BHTC @ position_key_HNC.transpose(-1, -2)).gather(-1, index_TT)
    if position_query_HNC is not None:
        of_keys = (key_BHTC @ position_query_HNC.transpose(-1, -2)).gather(-1, index_TT.transpose(-1, -2))
        score = score + of_keys.transpose(-1, -2)
    mask = _mask(visible, length, query_BHTC.device)
    score = score * scale
    if mask is not None:
        score = score.masked_fill(~mask, float("-inf"))
    weight = torch.softmax(score.float() if score.element_size() < 4 else score, -1).to(value_BHTC.dtype)
    return weight @ value_BHTC, weight


def attend(
    query_BHTC: Tensor,
    key_BHTC: Tensor,
    value_BHTC: Tensor,
    position_key_HNC: Tensor | None,
    position_query_HNC: Tensor | None,
    visible: Visible,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Return the mixed values [B, H, T, C] by the fastest path there is: blocks on a CPU, else PyTorch's attention with
    the relative terms as its bias."""
    length, device = query_BHTC.shape[2], query_BHTC.device
    mask = _mask(visible, length, device)
    if device.type == "cpu" and not torch.compiler.is_compiling():
        return attend_in_blocks(
            query_BHTC, key_BHTC, value_BHTC, position_key_HNC, position_query_HNC, mask, scale, dropout
        )
    bias = None
    if position_key_HNC is not None:
        bias = _skew(query_BHTC @ (position_key_HNC.flip(1) * scale).transpose(-1, -2))
    if position_query_HNC is not None:
        of_keys = _skew(key_BHTC @ (position_query_HNC * scale).transpose(-1, -2)).transpose(-1, -2)
        bias = of_keys if bias is None else bias + of_keys
    if mask is not None:
        bias = mask if bias is None else bias.masked_fill(~mask, float("-inf"))
    return F.scaled_dot_product_attention(
        query_BHTC, key_BHTC, value_BHTC, attn_mask=bias, dropout_p=dropout, scale=scale
    )


def _skew(product_BHTN: Tensor) -> Tensor:
    """Return [B, H, T, T]: of token t the T entries from T - 1 - t on."""
    length = product_BHTN.shape[2]
    if length == 1:
        return product_BHTN
    return product_BHTN.flatten(-2)[..., length - 1 : -1].unflatten(-1, (length, 2 * length - 2))[..., :length]


def _mask(visible: Visible, length: int, device: torch.device) -> Tensor | None:
    return causal_mask(length, length, device) if visible.causal and visible.mask is None else visible.mask


class DisentangledAttention(nn.Module):
    """Self-attention in which content and relative position score one another."""

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        *,
        dropout: float,
        position_dropout: float,
        content_to_position: bool,
        position_to_content: bool,
        position_to_position: bool,
        share_projections: bool,
        key_bias: bool,
    ):
        super().__init__()
        self.num_heads = num_heads
        self.content_to_position, self.position_to_content = content_to_position, position_to_content
        self.position_to_position = position_to_position
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size, bias=key_bias)
        if not key_bias:
            self.query_bias = nn.Parameter(torch.zeros(hidden_size))
            self.value_bias = nn.Parameter(torch.zeros(hidden_size))
        wants_keys = content_to_position or position_to_position
        wants_queries = position_to_content or position_to_position
        self.position_key = self.position_query = None
        if not share_projections:
            if wants_keys:
                self.position_key = nn.Linear(hidden_size, hidden_size, bias=key_bias)
            if wants_queries:
                self.position_query = nn.Linear(hidden_size, hidden_size)
        self.wants_keys, self.wants_queries = wants_keys, wants_queries
        self.output = nn.Linear(hidden_size, hidden_size)
        self.weight_dropout = Dropout(dropout)
        self.position_dropout = Dropout(position_dropout)
        terms = content_to_position + position_to_content + position_to_position
        self.scale = 1 / math.sqrt((1 + terms) * (hidden_size // num_heads))

    def forward(
        self,
        hidden_BTD: Tensor,
        distances: Distances,
        visible: Visible,
        needed_at: Tensor | None = None,
        asking_BTD: Tensor | None = None,
    ) -> Tensor:
        """Return [B, T, D], or [M, D] for the M places at `needed_at`; queries come from `asking_BTD` where it is given."""
        query_BHTC, key_BHTC, value_BHTC = self._project(hidden_BTD, asking_BTD)
        position_key_HNC, position_query_HNC = self._positions(distances)
        if self.position_to_position:
            # The score of a distance by itself rides along as one more channel of the queries, which is always 1.
            own_HN1 = (position_query_HNC * position_key_HNC).sum(-1, keepdim=True)
            one, nothing = torch.ones_like(query_BHTC[..., :1]), torch.zeros_like(key_BHTC[..., :1])
            query_BHTC, key_BHTC = torch.cat([query_BHTC, one], -1), torch.cat([key_BHTC, nothing], -1)
            used = position_key_HNC if self.content_to_position else torch.zeros_like(position_key_HNC)
            position_key_HNC = torch.cat([used, own_HN1], -1)
            if self.position_to_content:
                position_query_HNC = torch.cat([position_query_HNC, torch.zeros_like(own_HN1)], -1)
        mixed_BHTC = attend(
            query_BHTC,
            key_BHTC,
            value_BHTC,
            position_key_HNC,
            position_query_HNC if self.position_to_content else None,
            visible,
            self.scale,
            self.weight_dropout.rate if self.training else 0.0,
        )
        mixed_BTD = mixed_BHTC.transpose(1, 2).flatten(2)
        return self.output(mixed_BTD if needed_at is None else at_places(mixed_BTD, needed_at))

    def reader(self, hidden_BTD: Tensor, distances: Distances, visible: Visible, slots: Slots) -> "Reader":
        """Return what answers the queries of some places, as often as they ask."""
        return Reader(self, hidden_BTD, distances, visible, slots)

    def _split(self) -> tuple[list[Tensor], list[Tensor | None]]:
        """Return the weights and the biases of queries, keys and values."""
        weights = list(self.query_key_value.weight.chunk(3))
        if self.query_key_value.bias is not None:
            return weights, list(self.query_key_value.bias.chunk(3))
        return weights, [self.query_bias, None, self.value_bias]

    def _project(self, hidden_BTD: Tensor, asking_BTD: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        if asking_BTD is not None:
            weights, biases = self._split()
            sources = (asking_BTD, hidden_BTD, hidden_BTD)
            query, key, value = (self._heads(F.linear(*each)) for each in zip(sources, weights, biases, strict=True))
            return query, key, value
        bias = self.query_key_value.bias
        if bias is None:
            bias = torch.cat([self.query_bias, torch.zeros_like(self.query_bias), self.value_bias])
        split = F.linear(hidden_BTD, self.query_key_value.weight, bias)
        query, key, value = split.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return query, key, value

    def _heads(self, hidden_BTD: Tensor) -> Tensor:
        """Return [B, H, T, C]."""
        return hidden_BTD.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _positions(self, distances: Distances) -> tuple[Tensor | None, Tensor | None]:
        """Return the keys and the queries of the distances, [H, N, C] each, where a term wants them."""
        if not (self.wants_keys or self.wants_queries):
            return None, None
        vectors_RD = self.position_dropout(distances.vectors_RD)
        weights, biases = self._split()
        key = query = None
        if self.wants_keys:
            key = (
                F.linear(vectors_RD, weights[1], biases[1])
                if self.position_key is None
                else self.position_key(vectors_RD)
            )
        if self.wants_queries:
            shared = self.position_query is None
            query = F.linear(vectors_RD, weights[0], biases[0]) if shared else self.position_query(vectors_RD)
        key, query = (
            None
            if each is None
            else each.index_select(0, distances.rows_N).unflatten(-1, (self.num_heads, -1)).transpose(0, 1)
            for each in (key, query)
        )
        return key, query


class Reader:
    """Attention of a few places of each row to all of it; what only concerns the keys is formed once for all askings."""

    def __init__(
        self,
        attention: DisentangledAttention,
        hidden_BTD: Tensor,
        distances: Distances,
        visible: Visible,
        slots: Slots,
    ):
        self.attention, self.slots = attention, slots
        length, num_heads = hidden_BTD.shape[1], attention.num_heads
        weights, biases = attention._split()
        self.query_weight, self.query_bias = weights[0], biases[0]
        self.key_BHTC, self.value_BHTC = (attention._heads(F.linear(hidden_BTD, weights[n], biases[n])) for n in (1, 2))
        position_key_HNC, position_query_HNC = attention._positions(distances)
        index_T = torch.arange(length, device=hidden_BTD.device)
        self.index_BHSK = (slots.columns_BS[:, :, None] - index_T + length - 1)[:, None].expand(-1, num_heads, -1, -1)
        self.position_key_HNC = position_key_HNC if attention.content_to_position else None
        bias = None
        if attention.position_to_content:
            bias = self._of_keys(position_query_HNC)
        if attention.position_to_position:
            own_HN = (position_query_HNC * position_key_HNC).sum(-1)
            own = own_HN[:, None].expand(len(hidden_BTD), -1, slots.columns_BS.shape[1], -1).gather(-1, self.index_BHSK)
            bias = own if bias is None else bias + own
        self.bias_BHSK = None if bias is None else bias * attention.scale
        mask = _mask(visible, length, hidden_BTD.device)
        if mask is not None:
            mask = mask.expand(len(hidden_BTD), -1, -1, -1)
            mask = mask.gather(2, slots.columns_BS[:, None, :, None].expand(-1, -1, -1, length))
        self.mask_B1SK = mask

    def _of_keys(self, position_query_HNC: Tensor) -> Tensor:
        """Return Kc_j . Qr[d(i, j)] for the slots i and all keys j, [B, H, S, K], a few rows at a time."""
        num_rows, num_heads, length, _ = self.key_BHTC.shape
        step = max(1, CHUNK_NUMEL // (num_heads * length * position_query_HNC.shape[1]))
        parts = []
        for start in range(0, num_rows, step):
            products = self.key_BHTC[start : start + step] @ position_query_HNC.transpose(-1, -2)
            parts.append(products.gather(-1, self.index_BHSK[start : start + step].transpose(-1, -2)))
        return torch.cat(parts).transpose(-1, -2)

    def __call__(self, asking_MD: Tensor) -> Tensor:
        """Return [M, D]: what attention adds at the places, whose states ask."""
        attention, slots = self.attention, self.slots
        asking_BSD = asking_MD.index_select(0, slots.place_BS.flatten()).view(*slots.place_BS.shape, -1)
        query_BHSC = attention._heads(F.linear(asking_BSD, self.query_weight, self.query_bias)) * attention.scale
        score = query_BHSC @ self.key_BHTC.transpose(-1, -2)
        if self.position_key_HNC is not None:
            score = score + (query_BHSC @ self.position_key_HNC.transpose(-1, -2)).gather(-1, self.index_BHSK)
        if self.bias_BHSK is not None:
            score = score + self.bias_BHSK
        if self.mask_B1SK is not None:
            score = score.masked_fill(~self.mask_B1SK, float("-inf"))
        weight = torch.softmax(score.float() if score.element_size() < 4 else score, -1).to(score.dtype)
        mixed_BHSC = attention.weight_dropout(weight) @ self.value_BHTC
        mixed_MD = mixed_BHSC.transpose(1, 2).flatten(0, 1).index_select(0, slots.slot_M).flatten(1)
        return attention.output(mixed_MD)
