"""Attention that knows how far apart two tokens are: Transformer-XL's, with XLNet's segments.

Dai et al. 2019, section 3.3 and appendix B; Yang et al. 2019, sections 2.4 to 2.6.

B rows, Q queries, K keys, P distances, D hidden size, H heads, C = D / H, S segments.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.model.relative_blocks import UNSEEN, attend_relative_in_blocks


def distance_table(num_queries: int, num_keys: int, width: int, clamp: int | None, like: Tensor) -> Tensor:
    """Return the vectors R of all distances between Q queries, the last of the keys, and K keys, [P = K + Q - 1, D].

    Row t is that of distance K - 1 - t, from the farthest key on the left (K - 1) to the farthest on the right
    (1 - Q); the sines of all frequencies stand before the cosines. Distances beyond `clamp` count as `clamp`. In the data
    type of `like`, but computed in float32, as everybody else does.
    """
    distance_P = torch.arange(num_keys - 1, -num_queries, -1, device=like.device, dtype=torch.float32)
    if clamp is not None:
        distance_P = distance_P.clamp(-clamp, clamp)
    exponent = torch.arange(0, width, 2, device=like.device, dtype=torch.float32) / width
    angle_PI = distance_P[:, None] * (1 / torch.pow(10000.0, exponent))
    return torch.cat([angle_PI.sin(), angle_PI.cos()], -1).to(like.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class Keys:
    """What queries look at, layer by layer: keys, values, and the keys of all distances.

    key [H, B, K, C + S]: behind its channels stands which segment it is of, a one among zeros, to be met by what a
    query has to say of its own segment there. value [H, B, K, C]. distance [H, P, C].
    """

    key: Tensor
    value: Tensor
    distance: Tensor


class RelativeAttention(nn.Module):
    """Multi-head attention whose scores add content, distance and segment; no biases in its projections.

    score(i, j) = [(q_i + u) k_j + (q_i + v) W_R R(i - j) + (q_i + b) s(same or different segment)] / sqrt(C)

    A softmax does not feel what is added to all scores of a query: so the last term is (q_i + b)(s_same - s_different)
    where j is of i's segment, else nothing. And as that is a product of a vector of i and a vector of j (of as many
    channels as there are segments), it takes part in the product q k and costs no pass over the scores.
    """

    def __init__(self, hidden_size: int, num_heads: int, dropout: float, num_segments: int = 0):
        super().__init__()
        self.num_heads, self.dropout, self.num_segments = num_heads, dropout, num_segments
        channels = hidden_size // num_heads
        self.scale = 1 / math.sqrt(channels)
        self.query = nn.Linear(hidden_size, hidden_size, bias=False)
        self.key_value = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
        self.distance = nn.Linear(hidden_size, hidden_size, bias=False)
        self.output = nn.Linear(hidden_size, hidden_size, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(num_heads, channels))
        self.distance_bias = nn.Parameter(torch.zeros(num_heads, channels))
        if num_segments:
            self.segment_bias = nn.Parameter(torch.zeros(num_heads, channels))
            # Row 0: the same segment; row 1: another one.
            self.segments = nn.Parameter(torch.zeros(2, num_heads, channels))

    def keys(self, states_BKD: Tensor, distances_PD: Tensor, segments_BKS: Tensor | None) -> Keys:
        """Return what queries of either stream look at; states: of the memory and of the text itself."""
        rows, length, _ = states_BKD.shape
        split = self.key_value(states_BKD).view(rows, length, 2, self.num_heads, -1)
        key_HBKC, value_HBKC = split.permute(2, 3, 0, 1, 4)
        if segments_BKS is not None:
            marks = segments_BKS.to(key_HBKC.dtype).expand(self.num_heads, -1, -1, -1)
            key_HBKC = torch.cat([key_HBKC, marks], -1)
        distance_HPC = self.distance(distances_PD).view(-1, self.num_heads, self.output.in_features // self.num_heads)
        return Keys(key_HBKC, value_HBKC, distance_HPC.transpose(0, 1))

    def forward(
        self,
        query_BQD: Tensor,
        keys: Keys,
        visible_BQT: Tensor | None,
        segments_BQS: Tensor | None,
        at_BQ: Tensor | None = None,
    ) -> Tensor:
        """Return the mixed values [B, Q, D], before the output projection, for projected queries (`self.query`).

        visible: bool [B or 1, Q, T], who sees the last T keys, or None (everything); the keys before them, the memory, are seen
        by all. at: where in the text each query stands, counted from the
        first token that is not memory; None: the queries are all tokens of the text, one by one. What a query mixes
        that sees nothing means nothing.
        """
        rows, num_queries, _ = query_BQD.shape
        query_HBQC = query_BQD.view(rows, num_queries, self.num_heads, -1).permute(2, 0, 1, 3)

        def biased(bias_HC: Tensor) -> Tensor:
            return query_HBQC + bias_HC[:, None, None].to(query_HBQC.dtype)

        content = biased(self.content_bias) * self.scale
        distance = biased(self.distance_bias) * self.scale
        if segments_BQS is not None:
            same, other = self.segments.to(query_HBQC.dtype)
            gain_HBQ1 = biased(self.segment_bias) @ ((same - other) * self.scale)[:, None, :, None]
            content = torch.cat([content, gain_HBQ1 * segments_BQS.to(content.dtype)], -1)
        mixed_BQHC = attend_relative(
            content, distance, keys, visible_BQT, at_BQ, self.dropout if self.training else 0.0
        )
        return mixed_BQHC.flatten(2)


def attend_relative(
    content: Tensor, distance: Tensor, keys: Keys, visible: Tensor | None, at: Tensor | None, dropout: float
) -> Tensor:
    """Return the mixed values [B, Q, H, C] of scaled queries, content [H, B, Q, C + S] and distance [H, B, Q, C].

    On a CPU block of queries by block of queries; elsewhere by PyTorch's fused attention, with the distances as a bias.
    """
    num_keys, num_distances = keys.key.shape[2], keys.distance.shape[1]
    places = None if at is None else distance_of(at, num_keys, num_distances)
    if content.device.type == "cpu" and not torch.compiler.is_compiling():
        return attend_relative_in_blocks(
            content, distance, keys.key, keys.value, keys.distance, visible, places, dropout
        )
    bias = shifted(distance @ keys.distance[:, None].transpose(-1, -2), num_keys, places)
    channels = distance.shape[-1]
    if content.shape[-1] > channels:
        bias = bias + content[..., channels:] @ keys.key[..., channels:].transpose(-1, -2)
    if visible is not None:
        visible = F.pad(visible, (num_keys - visible.shape[2], 0), value=True)
        bias = bias.masked_fill(~visible, max(UNSEEN, torch.finfo(bias.dtype).min))
    query, key, value, bias = (
        each.transpose(0, 1) for each in (content[..., :channels], keys.key[..., :channels], keys.value, bias)
    )
    mixed_BHQC = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout, scale=1.0)
    return mixed_BHQC.transpose(1, 2)


def shifted(score_HBQP: Tensor, num_keys: int, places_BQK: Tensor | None) -> Tensor:
    """Return the scores by key, [H, B, Q, K], for scores by distance.

    Query i of a whole text finds its K keys from place Q - 1 - i on. Rows that each begin one place before the one above
    are what a table one place narrower looks like from its last column on: nothing is copied.
    """
    heads, rows, num_queries, num_distances = score_HBQP.shape
    if places_BQK is not None:
        return score_HBQP.gather(3, places_BQK.expand(heads, -1, -1, -1))
    if num_queries == 1:
        return score_HBQP
    flat = score_HBQP.reshape(heads, rows, -1)[..., num_queries - 1 : num_queries * num_distances - 1]
    return flat.unflatten(2, (num_queries, num_distances - 1))[..., :num_keys]


def distance_of(at_BQ: Tensor, num_keys: int, num_distances: int) -> Tensor:
    """Return which row of the distance table lies between a query at `at` and each key, int64 [B, Q, K]."""
    return num_distances - num_keys - at_BQ[:, :, None] + torch.arange(num_keys, device=at_BQ.device)


def attend_reference(
    query_HBQC: Tensor,
    key_HBKC: Tensor,
    value_HBKC: Tensor,
    distance_HPC: Tensor,
    biases: tuple[Tensor, Tensor, Tensor],
    segments_2HC: Tensor,
    query_types_BQ: Tensor,
    key_types_BK: Tensor,
    visible_BQK: Tensor,
    at_BQ: Tensor,
) -> Tensor:
    """Return the mixed values [B, Q, H, C], step by step as in the papers, with a vector for every pair of tokens.

    This is the path to read; the others compute the same (a test holds them equal). biases: u, v and b, each [H, C].
    """
    u, v, b = (bias[:, None, None] for bias in biases)
    content = torch.einsum("hbqc,hbkc->hbqk", query_HBQC + u, key_HBKC)
    between_HBQKC = distance_HPC[:, distance_of(at_BQ, key_HBKC.shape[2], distance_HPC.shape[1])]
    distance = torch.einsum("hbqc,hbqkc->hbqk", query_HBQC + v, between_HBQKC)
    relation_BQK = (query_types_BQ[:, :, None] != key_types_BK[:, None, :]).long()
    segment = torch.einsum("hbqc,bqkhc->hbqk", query_HBQC + b, segments_2HC[relation_BQK])
    score_HBQK = (content + distance + segment) / math.sqrt(query_HBQC.shape[-1])
    weight_HBQK = torch.softmax(score_HBQK.masked_fill(~visible_BQK, float("-inf")), -1)
    return torch.einsum("hbqk,hbkc->bqhc", weight_HBQK, value_HBKC)
