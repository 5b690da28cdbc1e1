"""The blocks of Transformer-XL: attention over a memory and a segment, whose scores know distances alone.

Dai et al. 2019, section 3.3. The kernels of relative attention are those that XLNet uses, too (`model.relative`).

B rows, T tokens, M tokens in memory, K = M + T keys, P distances, D hidden size, H heads, C = D / H.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.model.attention import at_places
from elision.model.cache import Cache, LayerCache
from elision.model.dropout import Dropout
from elision.model.relative import Keys, attend_relative
from elision.model.relative_blocks import UNSEEN

# Attention weights held at once on a CPU, in numbers (16 MiB in float32): for so few of them, forming them again in the backward
# pass costs more than they do.
HELD_NUMEL = 1 << 22


class AttentionBiases(nn.Module):
    """What a query asks of any content (u) and of any distance (v), whatever token asks; [H, C] each."""

    def __init__(self, num_heads: int, channels: int):
        super().__init__()
        self.content = nn.Parameter(torch.zeros(num_heads, channels))
        self.distance = nn.Parameter(torch.zeros(num_heads, channels))


class RecurrentAttention(nn.Module):
    """Attention of a segment to itself and to the memory before it; no biases in its projections.

    score(i, j) = [(q_i + u) k_j + (q_i + v) W_R R(i - j)] / sqrt(C)
    """

    def __init__(self, width: int, num_heads: int, dropout: float):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.weight_dropout = Dropout(dropout)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.distance = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def keys(self, states_BKD: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values [H, B, K, C] of states."""
        split = self.key_value(states_BKD).unflatten(2, (2, self.num_heads, -1))
        key_HBKC, value_HBKC = split.permute(2, 3, 0, 1, 4)
        return key_HBKC, value_HBKC

    def distance_keys(self, distances_PD: Tensor) -> Tensor:
        """Return the keys of distances, [H, P, C]."""
        return self.distance(distances_PD).unflatten(1, (self.num_heads, -1)).transpose(0, 1)

    def forward(self, hidden_BTD: Tensor, biases: AttentionBiases, keys: Keys, visible: Tensor | None) -> Tensor:
        """Return the mixed values [B, T, D], before the output projection, for queries at the last T of the keys.

        visible: bool [B or 1, T, T'], who sees the last T' keys, or None (everything); those before them are seen by all.
        """
        query_BTHC = self.query(hidden_BTD).unflatten(2, (self.num_heads, -1))
        scale = 1 / math.sqrt(query_BTHC.shape[-1])
        query_HBTC = query_BTHC.permute(2, 0, 1, 3).contiguous() * scale
        content = query_HBTC + (biases.content[:, None, None] * scale).to(query_HBTC.dtype)
        distance = query_HBTC + (biases.distance[:, None, None] * scale).to(query_HBTC.dtype)
        num_weights = content.shape[:3].numel() * keys.key.shape[2]
        if content.device.type == "cpu" and num_weights <= HELD_NUMEL and not torch.compiler.is_compiling():
            mixed_BTHC = attend_at_once(content, distance, keys, visible, self.weight_dropout)
        else:
            mixed_BTHC = attend_relative(content, distance, keys, visible, None, self.dropout if self.training else 0.0)
        return mixed_BTHC.flatten(2)


def attend_at_once(content: Tensor, distance: Tensor, keys: Keys, visible: Tensor | None, dropout: nn.Module) -> Tensor:
    """Return the mixed values [B, T, H, C] of scaled queries [H, B, T, C] at the last T of the keys, all weights held.

    As `attend_relative` has it, for queries that never see what follows them; None is for a single query.
    """
    heads, rows, length, _ = content.shape
    num_keys = keys.key.shape[2]
    assert visible is not None or length == 1
    # Query i finds its keys from place T - 1 - i on, each row one place before the one above: the table as one that is a
    # place narrower. What that reads of the next row is what is hidden from it, so no distances to the right are needed, but
    # for the one place.
    between = keys.distance[:, : num_keys + min(1, length - 1)]
    flat = torch.bmm(distance.flatten(1, 2), between.transpose(1, 2)).view(heads * rows, -1)
    by_distance = flat[:, length - 1 : length - 1 + length * num_keys].unflatten(1, (length, num_keys))
    score = torch.baddbmm(by_distance, content.flatten(0, 1), keys.key.flatten(0, 1).transpose(1, 2))
    if visible is not None:
        # Adding takes a tenth of the time of filling in by a mask.
        exact = torch.float64 if score.dtype == torch.float64 else torch.float32
        hidden = (~visible).to(exact).mul_(UNSEEN).to(score.dtype)
        score.view(heads, rows, length, num_keys)[..., num_keys - visible.shape[2] :].add_(hidden)
    weight = dropout(torch.softmax(score, -1)).to(keys.value.dtype)
    mixed = torch.bmm(weight, keys.value.flatten(0, 1))
    return mixed.view(heads, rows, length, -1).permute(1, 2, 0, 3)


class FeedForward(nn.Module):
    """Two linear layers with ReLU between them, and dropout after both."""

    def __init__(self, width: int, inner_width: int, dropout: float):
        super().__init__()
        self.inner = nn.Linear(width, inner_width)
        self.output = nn.Linear(inner_width, width)
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return [..., D] for [..., D]."""
        return self.dropout(self.output(self.dropout(F.relu(self.inner(hidden)))))


class Block(nn.Module):
    """Attention, then feed-forward, each added to what it read and normalised."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        feedforward_size: int,
        *,
        norm_eps: float,
        dropout: float,
        attention_dropout: float,
    ):
        super().__init__()
        self.attention = RecurrentAttention(width, num_heads, attention_dropout)
        self.norm_after_attention = nn.LayerNorm(width, eps=norm_eps)
        self.feedforward = FeedForward(width, feedforward_size, dropout)
        self.norm_after_feedforward = nn.LayerNorm(width, eps=norm_eps)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        hidden_BTD: Tensor,
        memory_BMD: Tensor | None,
        distances_PD: Tensor,
        biases: AttentionBiases,
        visible: Tensor | None,
        needed_at: Tensor | None = None,
    ) -> Tensor:
        """Return [B, T, D] for [B, T, D]; or, for the places at `needed_at` alone, [., D]."""
        attention = self.attention
        key, value = attention.keys(hidden_BTD)
        if memory_BMD is not None:
            # On their own: joined with the others, they would have a gradient formed that is thrown away.
            old_key, old_value = attention.keys(memory_BMD)
            key, value = torch.cat([old_key, key], 2), torch.cat([old_value, value], 2)
        keys = Keys(key, value, attention.distance_keys(distances_PD))
        mixed_BTD = attention(hidden_BTD, biases, keys, visible)
        if needed_at is not None:
            hidden_BTD, mixed_BTD = at_places(hidden_BTD, needed_at), at_places(mixed_BTD, needed_at)
        return self._finish(hidden_BTD, mixed_BTD)

    def continue_with(
        self, hidden_BTD: Tensor, cache: LayerCache, distance: Tensor, biases: AttentionBiases, visible: Tensor | None
    ) -> Tensor:
        """Return [B, T, D] for the states of tokens that follow those in the cache, which takes in their keys.

        distance: the keys of all distances that occur, [H, P, C].
        """
        held = cache.append(*(each.transpose(0, 1) for each in self.attention.keys(hidden_BTD)))
        key, value = (each.transpose(0, 1) for each in held)
        keys = Keys(key, value, distance[:, distance.shape[1] - key.shape[2] - hidden_BTD.shape[1] + 1 :])
        return self._finish(hidden_BTD, self.attention(hidden_BTD, biases, keys, visible))

    def _finish(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        hidden = self.norm_after_attention(hidden + self.dropout(self.attention.output(mixed)))
        return self.norm_after_feedforward(hidden + self.feedforward(hidden))


class RecurrentCache(Cache):
    """Keys and values of what has been read, and in every layer the keys of all distances that occurred so far.

    Those do not depend on the text; to form them again for each token would cost more than all else.
    """

    def __init__(self, num_layers: int, window: int | None, padding_B: Tensor | None):
        super().__init__([window] * num_layers, padding_B)
        # One tensor [H, P, C] for each layer, from the farthest distance down to 0.
        self.distances: list[Tensor] = []

    @property
    def num_distances(self) -> int:
        """How many distances have keys."""
        return self.distances[0].shape[1] if self.distances else 0
