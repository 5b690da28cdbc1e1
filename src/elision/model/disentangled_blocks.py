"""Disentangled attention on a CPU, a few heads of a few rows at a time; the weights are formed again in the backward pass
instead of being kept, so memory grows with T and not with T * T.

B rows, H heads, T tokens, C channels of a head, G heads of rows at a time, S queries or keys of a block, N = 2T - 1
distances from -(T - 1) to T - 1, W = T + S - 1 of them that a block is concerned with.

What a token scores a distance is a product [S, W] in which the entries for the T partners of a token lie side by side, one
place further for each token: a view with a row stride of W - 1 reads them without an index. For the queries' view on
distances the partners are keys and come with falling distance, for the keys' view they are queries, with rising distance.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from elision.model.dropout import LEVELS, kept_share

# Scores held at a time, in numbers: one head of 512 tokens is 1 MiB, which a core's own cache holds.
GROUP_NUMEL = 1 << 18

# Tokens of a block: the products of a block are for T + 128 distances, most of which each of its tokens needs.
BLOCK = 128


def attend_in_blocks(
    query_BHTC: Tensor,
    key_BHTC: Tensor,
    value_BHTC: Tensor,
    position_key_HNC: Tensor | None,
    position_query_HNC: Tensor | None,
    mask: Tensor | None,
    scale: float,
    dropout: float,
) -> Tensor:
    """Return the mixed values [B, H, T, C]; mask: bool [B or 1, 1, T, T] or None, True = may attend.

    Which weights are dropped follows from one number drawn from PyTorch's global generator.
    """
    seed = int(torch.randint(2**62, ())) if dropout > 0 else 0
    # By falling distance, so that the keys of a query come in the order of the row.
    falling_HNC = None if position_key_HNC is None else position_key_HNC.flip(1)
    return _DisentangledBlocks.apply(
        query_BHTC, key_BHTC, value_BHTC, falling_HNC, position_query_HNC, mask, scale, dropout, seed
    )


class _DisentangledBlocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        falling: Tensor | None,
        rising: Tensor | None,
        mask: Tensor | None,
        scale: float,
        dropout: float,
        seed: int,
    ) -> Tensor:
        mixed = torch.empty(value.shape, dtype=value.dtype)
        scaled_rising = None if rising is None else rising * scale
        for rows, heads, number in _groups(query.shape):
            weight = _weights(query, key, falling, scaled_rising, mask, scale, rows, heads)
            part = _folded(value, rows, heads)
            if dropout > 0:
                weight *= _keep(weight, dropout, seed + number)
                part = part * (1 / kept_share(dropout))
            mixed[rows, heads] = torch.bmm(weight.to(part.dtype), part).view(mixed[rows, heads].shape)
        ctx.save_for_backward(query, key, value, falling, rising, mask, mixed)
        ctx.settings = scale, dropout, seed
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, falling, rising, mask, mixed = ctx.saved_tensors
        scale, dropout, seed = ctx.settings
        scaled_rising = None if rising is None else rising * scale
        grad_query, grad_key, grad_value = (torch.empty(each.shape, dtype=each.dtype) for each in (query, key, value))
        grad_falling = None if falling is None else torch.zeros_like(falling)
        grad_rising = None if rising is None else torch.zeros_like(rising)
        for rows, heads, number in _groups(query.shape):
            weight = _weights(query, key, falling, scaled_rising, mask, scale, rows, heads)
            above, part = _folded(upstream, rows, heads), _folded(value, rows, heads)
            asked, offered = _folded(query, rows, heads) * scale, _folded(key, rows, heads)
            kept = weight
            if dropout > 0:
                kept = _keep(weight, dropout, seed + number).mul_(weight)
                above_scaled = above * (1 / kept_share(dropout))
            else:
                above_scaled = above
            _put(grad_value, rows, heads, torch.bmm(kept.to(part.dtype).transpose(1, 2), above_scaled))
            # The softmax's own slope: w * (g - sum w g), and the sum is that of upstream * output.
            total = (above * _folded(mixed, rows, heads)).sum(-1, keepdim=True, dtype=weight.dtype)
            slope = torch.bmm(above_scaled, part.transpose(1, 2)).to(weight.dtype).mul_(kept)
            slope = slope.addcmul_(weight, total, value=-1).to(key.dtype)
            del weight, kept
            above_query = torch.bmm(slope, offered)
            above_key = torch.bmm(slope.transpose(1, 2), asked)
            if falling is not None:
                _skewed_backward(slope, asked, falling[heads], above_query, grad_falling[heads])
            if rising is not None:
                _skewed_backward(slope.transpose(1, 2), offered, scaled_rising[heads], above_key, grad_rising[heads])
            _put(grad_query, rows, heads, above_query.mul_(scale))
            _put(grad_key, rows, heads, above_key)
        if grad_rising is not None:
            grad_rising *= scale
        return grad_query, grad_key, grad_value, grad_falling, grad_rising, None, None, None, None


def _groups(shape: torch.Size) -> Iterator[tuple[slice, slice, int]]:
    """Yield (rows, heads, a number of its own): many short rows at once, or some of the heads of one long row."""
    num_rows, num_heads, length, _ = shape
    at_once = max(1, GROUP_NUMEL // length**2)
    heads_at_once = min(at_once, num_heads)
    rows_at_once = max(1, at_once // num_heads)
    number = 0
    for row in range(0, num_rows, rows_at_once):
        for head in range(0, num_heads, heads_at_once):
            yield slice(row, row + rows_at_once), slice(head, head + heads_at_once), number
            number += 1


def _folded(tensor: Tensor, rows: slice, heads: slice) -> Tensor:
    """Return [G, T, C] of a group."""
    return tensor[rows, heads].flatten(0, 1)


def _put(into: Tensor, rows: slice, heads: slice, value: Tensor) -> None:
    place = into[rows, heads]
    place.copy_(value.view(place.shape))


def _weights(
    query: Tensor,
    key: Tensor,
    falling: Tensor | None,
    rising: Tensor | None,
    mask: Tensor | None,
    scale: float,
    rows: slice,
    heads: slice,
) -> Tensor:
    """Return the attention weights [G, T, T] in at least float32; `rising` is scaled already."""
    asked, offered = _folded(query, rows, heads) * scale, _folded(key, rows, heads)
    score = torch.bmm(asked, offered.transpose(1, 2))
    score = score if score.dtype == torch.float64 else score.float()
    if falling is not None:
        for start, stop, seen in _skewed(asked, falling[heads]):
            score[:, start:stop] += seen
    if rising is not None:
        for start, stop, seen in _skewed(offered, rising[heads]):
            score[:, :, start:stop].transpose(1, 2).add_(seen)
    if mask is not None:
        rows_of_mask = mask[rows] if mask.shape[0] > 1 else mask
        hidden = torch.zeros(rows_of_mask.shape, dtype=score.dtype).masked_fill_(~rows_of_mask, float("-inf"))
        score.view(*query[rows, heads].shape[:2], *score.shape[1:]).add_(hidden)
    return torch.softmax(score, -1)


def _skewed(states_GTC: Tensor, table_gNC: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """Yield (start, stop, the products [G, S, T] of a block of states with the distances to all T partners)."""
    for start, stop, window in _blocks(states_GTC.shape[1]):
        product = torch.bmm(states_GTC[:, start:stop], _repeated(table_gNC[:, window], states_GTC).transpose(1, 2))
        yield start, stop, _view(product)


def _skewed_backward(
    slope_GTT: Tensor, states_GTC: Tensor, table_gNC: Tensor, grad_states_GTC: Tensor, grad_table_gNC: Tensor
) -> None:
    """Add what `_skewed` hands back: to the gradients of its states and, summed over rows, of its table."""
    groups, length, _ = states_GTC.shape
    product = None
    for start, stop, window in _blocks(length):
        if product is None or product.shape[1] != stop - start:
            product = slope_GTT.new_zeros(groups, stop - start, window.stop - window.start)
        # Each block overwrites the same entries; the others stay 0.
        _view(product).copy_(slope_GTT[:, start:stop])
        grad_states_GTC[:, start:stop].baddbmm_(product, _repeated(table_gNC[:, window], states_GTC))
        above = torch.bmm(product.transpose(1, 2), states_GTC[:, start:stop])
        grad_table_gNC[:, window] += above.view(-1, table_gNC.shape[0], *above.shape[1:]).sum(0)


def _blocks(length: int) -> Iterator[tuple[int, int, slice]]:
    """Yield (first token, end token, the distances from any of them to any of the tokens)."""
    for start in range(0, length, BLOCK):
        stop = min(start + BLOCK, length)
        yield start, stop, slice(length - stop, 2 * length - 1 - start)


def _view(product_GSW: Tensor) -> Tensor:
    """Return the view [G, S, T] of what belongs to the T partners of each of the S tokens."""
    groups, size, width = product_GSW.shape
    shape, strides = (groups, size, width - size + 1), (size * width, width - 1, 1)
    return product_GSW.as_strided(shape, strides, product_GSW.storage_offset() + size - 1)


def _repeated(table_gWC: Tensor, states_GTC: Tensor) -> Tensor:
    """Return the table of each head once for each row of the group."""
    times = states_GTC.shape[0] // table_gWC.shape[0]
    return table_gWC if times == 1 else table_gWC.repeat(times, 1, 1)


def _keep(weight: Tensor, dropout: float, seed: int) -> Tensor:
    """Return 1 where a weight is kept and 0 where it is dropped, in the type of `weight`.

    As `dropout.keep_mask`, but from a generator that draws faster: this is a third of the work of a small head.
    """
    numel = weight.numel()
    words = np.random.Generator(np.random.SFC64(seed)).integers(0, 2**64, (numel + 3) // 4, np.uint64)
    threshold = round(dropout * LEVELS) - LEVELS // 2
    drawn = torch.from_numpy(words.view(np.int16)[:numel]).view(weight.shape)
    return torch.ge(drawn, threshold, out=torch.empty_like(weight))
