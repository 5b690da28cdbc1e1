"""Relative attention on a CPU, block of queries by block of queries: its weights are never held all at once.

The scores of a block by distance cover only the distances that occur between its queries and the keys, and are read
as scores by key through a skewed view. The backward pass forms the weights again, as in Dao et al. 2022.

B rows, Q queries, K keys, P distances, H heads, C channels, S segments, W distances of a block.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from elision.model.dropout import keep_mask, kept_share

# Queries at a time: large enough for efficient products, small enough that few distances are computed for nothing and
# that blocks skip what none of their queries may see.
BLOCK_QUERIES = 128
# What is added to a score that may not be seen. Finite, so that a query that sees nothing at all stays a number.
UNSEEN = -1e30


def attend_relative_in_blocks(
    content: Tensor,
    distance: Tensor,
    key: Tensor,
    value: Tensor,
    distance_key: Tensor,
    visible: Tensor | None,
    places: Tensor | None,
    dropout: float,
) -> Tensor:
    """Return the mixed values [B, Q, H, C] of scaled queries, content [H, B, Q, C + S] and distance [H, B, Q, C].

    key [H, B, K, C + S], value [H, B, K, C], distance_key [H, P, C]. visible: bool [B or 1, Q, T] or None, who sees the
    last T keys; all see those before them. places: int64 [B, Q, K], which row of the distance table lies between a query
    and a key; None: the queries are those of the last Q keys, in order. Which weights are dropped follows from one number
    drawn from PyTorch's global generator.
    """
    seed = int(torch.randint(2**62, ())) if dropout > 0 else 0
    blocks = _blocks(content.shape[2], key.shape[2], visible)
    # On a CPU, adding this takes a tenth of the time that filling in by a mask does.
    hidden = None
    if visible is not None:
        exact = torch.float64 if content.dtype == torch.float64 else torch.float32
        hidden = (~visible).to(exact).mul_(UNSEEN)
    return _RelativeBlocks.apply(content, distance, key, value, distance_key, hidden, places, blocks, dropout, seed)


class _RelativeBlocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        content: Tensor,
        distance: Tensor,
        key: Tensor,
        value: Tensor,
        distance_key: Tensor,
        hidden: Tensor | None,
        places: Tensor | None,
        blocks: list[tuple[int, int, int]],
        dropout: float,
        seed: int,
    ) -> Tensor:
        content, distance, key, value = (each.contiguous() for each in (content, distance, key, value))
        heads, rows, num_queries, _ = distance.shape
        mixed = distance.new_empty(rows, num_queries, heads, value.shape[-1])
        by_head = mixed.permute(2, 0, 1, 3)
        for start, stop, seen in blocks:
            weight = _weights(content, distance, key, distance_key, hidden, places, start, stop, seen)
            if dropout > 0:
                weight *= _factor(weight, dropout, seed + start)
            by_head[:, :, start:stop] = weight.to(value.dtype) @ value[:, :, :seen]
        ctx.save_for_backward(content, distance, key, value, distance_key, hidden, places, mixed)
        ctx.settings = blocks, dropout, seed
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        content, distance, key, value, distance_key, hidden, places, mixed = ctx.saved_tensors
        blocks, dropout, seed = ctx.settings
        heads, rows, num_queries, _ = distance.shape
        # The softmax's own slope: w * (g - sum w g), and the sum is that of upstream * output.
        level = (upstream * mixed).sum(-1, dtype=torch.promote_types(upstream.dtype, torch.float32))
        level = level.permute(2, 0, 1)[..., None]
        upstream = upstream.permute(2, 0, 1, 3).contiguous()
        grad_content, grad_distance = torch.empty_like(content), torch.empty_like(distance)
        grad_key, grad_value = torch.zeros_like(key), torch.zeros_like(value)
        grad_distance_key = torch.zeros(distance_key.shape, dtype=distance_key.dtype)
        for start, stop, seen in blocks:
            above = upstream[:, :, start:stop]
            weight = _weights(content, distance, key, distance_key, hidden, places, start, stop, seen)
            slope = (above @ value[:, :, :seen].transpose(-1, -2)).to(weight.dtype)
            if dropout > 0:
                factor = _factor(weight, dropout, seed + start)
                slope *= factor
                kept = factor.mul_(weight)
            else:
                kept = weight
            grad_value[:, :, :seen] += kept.to(value.dtype).transpose(-1, -2) @ above
            slope -= level[:, :, start:stop]
            slope = slope.mul_(weight).to(key.dtype)
            grad_content[:, :, start:stop] = slope @ key[:, :, :seen]
            grad_key[:, :, :seen] += slope.transpose(-1, -2) @ content[:, :, start:stop]
            first, last = _span(num_queries, distance_key.shape[1], places, start, stop, seen)
            spread = slope.new_zeros(heads, rows, stop - start, last - first)
            if places is None:
                _skewed(spread, seen).copy_(slope)
            else:
                spread.scatter_(3, places[:, start:stop, :seen].expand(heads, -1, -1, -1), slope)
            spread = spread.view(heads, -1, last - first)
            block = distance[:, :, start:stop].reshape(heads, spread.shape[1], -1)
            grad_distance[:, :, start:stop] = (spread @ distance_key[:, first:last]).view(heads, rows, stop - start, -1)
            grad_distance_key[:, first:last] += spread.transpose(-1, -2) @ block
        return grad_content, grad_distance, grad_key, grad_value, grad_distance_key, None, None, None, None, None


def _blocks(num_queries: int, num_keys: int, visible: Tensor | None) -> list[tuple[int, int, int]]:
    """Return (first query, end query, end of the keys that any of them may see) of each block."""
    found = []
    for start in range(0, num_queries, BLOCK_QUERIES):
        stop = min(start + BLOCK_QUERIES, num_queries)
        seen = num_keys
        if visible is not None:
            some = visible[:, start:stop].any(0).any(0).nonzero()
            past = num_keys - visible.shape[2]
            seen = max(1, past + (int(some[-1]) + 1 if len(some) else 0))
        found.append((start, stop, seen))
    return found


def _span(
    num_queries: int, num_distances: int, places: Tensor | None, start: int, stop: int, seen: int
) -> tuple[int, int]:
    """Return which rows of the distance table (first, end) the queries of a block need."""
    if places is not None:
        return 0, num_distances
    return num_queries - stop, num_queries - start + seen - 1


def _skewed(score: Tensor, num_keys: int) -> Tensor:
    """View scores by distance [H, B, q, W] as scores by key [H, B, q, K]: each row begins one place earlier."""
    heads, rows, num_queries, width = score.shape
    strides = (score.stride(0), score.stride(1), width - 1, 1)
    return score.as_strided((heads, rows, num_queries, num_keys), strides, num_queries - 1)


def _weights(
    content: Tensor,
    distance: Tensor,
    key: Tensor,
    distance_key: Tensor,
    hidden: Tensor | None,
    places: Tensor | None,
    start: int,
    stop: int,
    seen: int,
) -> Tensor:
    """Return the attention weights [H, B, q, seen keys] of the queries start ... stop - 1, in at least float32."""
    heads, rows, num_queries, _ = distance.shape
    score = content[:, :, start:stop] @ key[:, :, :seen].transpose(-1, -2)
    score = score if score.dtype == torch.float64 else score.float()
    first, last = _span(num_queries, distance_key.shape[1], places, start, stop, seen)
    block = distance[:, :, start:stop].reshape(heads, rows * (stop - start), -1)
    by_distance = (block @ distance_key[:, first:last].transpose(-1, -2)).view(heads, rows, stop - start, -1)
    if places is None:
        score += _skewed(by_distance, seen)
    else:
        score += by_distance.gather(3, places[:, start:stop, :seen].expand(heads, -1, -1, -1))
    if hidden is not None:
        past = key.shape[2] - hidden.shape[2]
        score[..., past:] += hidden[:, start:stop, : seen - past]
    return torch.softmax(score, -1)


def _factor(weight: Tensor, dropout: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return keep_mask(weight.shape, dropout, generator).to(weight.dtype).mul_(1 / kept_share(dropout))
