"""Attention on a CPU, block of queries by block of queries, as in Dao et al. 2022 (FlashAttention): the weights are
formed again in the backward pass instead of being kept, so memory grows with T and not with T * T. It does what
PyTorch's fused kernel there cannot: dropout, a bias that learns, and passing over keys that no query of a block sees.

B rows, H heads, G heads of keys and values (each serves R = H / G consecutive heads of queries), Q queries, K keys, C
channels of a head, q queries of a block, k keys that they see.
"""

import dataclasses
import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from elision.model.dropout import keep_mask, kept_share
from elision.model.visibility import Visible

# Queries at a time: large enough for efficient products, small enough that causal blocks skip most of what is unseen.
BLOCK_QUERIES = 128
# What is added to a score that may not be seen. Finite, so that a query that sees nothing at all stays a number.
UNSEEN = -1e30


def attend_in_blocks(
    query_BHQC: Tensor,
    key_BGKC: Tensor,
    value_BGKC: Tensor,
    visible: Visible,
    dropout: float,
    scale: float | None = None,
    bias_HQK: Tensor | None = None,
) -> Tensor:
    """Return the mixed values [B, H, Q, C]; the weights are dropped out with probability `dropout`.

    scale: what queries times keys are multiplied by, None = 1 / sqrt(C). bias: added to the scores after that; gets a
    gradient. Which weights are dropped follows from one number drawn from PyTorch's global generator. What a query mixes
    that sees nothing means nothing.
    """
    plan = _Plan(
        _blocks(query_BHQC.shape[2], key_BGKC.shape[2], visible),
        visible.causal,
        visible.window,
        1 / math.sqrt(query_BHQC.shape[-1]) if scale is None else scale,
        dropout,
        int(torch.randint(2**62, ())) if dropout > 0 else 0,
    )
    return _BlockwiseAttention.apply(query_BHQC, key_BGKC, value_BGKC, visible.mask, bias_HQK, plan)


@dataclasses.dataclass(frozen=True)
class _Plan:
    blocks: list[tuple[int, int, int, int]]
    causal: bool
    window: int | None
    scale: float
    dropout: float
    seed: int


class _BlockwiseAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        bias: Tensor | None,
        plan: _Plan,
    ) -> Tensor:
        key, value = key.contiguous(), value.contiguous()
        mixed = torch.empty(query.shape, dtype=query.dtype)
        for start, stop, low, high in plan.blocks:
            weight = _weights(query, key, mask, bias, plan, start, stop, low, high)
            if plan.dropout > 0:
                weight *= _factor(weight, plan.dropout, plan.seed + start)
            block = weight.to(value.dtype) @ value[:, :, low:high]
            mixed[:, :, start:stop] = block.view(*query.shape[:2], stop - start, -1)
        ctx.save_for_backward(query, key, value, mask, bias, mixed)
        ctx.plan = plan
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask, bias, mixed = ctx.saved_tensors
        plan = ctx.plan
        groups = key.shape[1]
        grad_query = torch.empty(query.shape, dtype=query.dtype)
        grad_key, grad_value = torch.zeros_like(key), torch.zeros_like(value)
        grad_bias = torch.zeros_like(bias) if ctx.needs_input_grad[4] else None
        for start, stop, low, high in plan.blocks:
            above, out = (_grouped(each[:, :, start:stop], groups) for each in (upstream, mixed))
            weight = _weights(query, key, mask, bias, plan, start, stop, low, high)
            slope = (above @ value[:, :, low:high].transpose(-1, -2)).to(weight.dtype)
            if plan.dropout > 0:
                factor = _factor(weight, plan.dropout, plan.seed + start)
                slope *= factor
                kept = factor.mul_(weight)
            else:
                kept = weight
            grad_value[:, :, low:high] += kept.to(value.dtype).transpose(-1, -2) @ above
            # The softmax's own slope: w * (g - sum w g), and the sum is that of upstream * output.
            slope -= (above * out).sum(-1, keepdim=True, dtype=weight.dtype)
            slope *= weight
            if grad_bias is not None:
                grad_bias[:, start:stop, low:high] = slope.sum(0).view(-1, stop - start, high - low)
            slope = slope.mul_(plan.scale).to(key.dtype)
            block = slope @ key[:, :, low:high]
            grad_query[:, :, start:stop] = block.view(*query.shape[:2], stop - start, -1)
            grad_key[:, :, low:high] += slope.transpose(-1, -2) @ _grouped(query[:, :, start:stop], groups)
        return grad_query, grad_key, grad_value, None, grad_bias, None


def _blocks(num_queries: int, num_keys: int, visible: Visible) -> list[tuple[int, int, int, int]]:
    """Return (first query, end query, first key, end key) of each block; none of its queries sees another key."""
    found = []
    for start in range(0, num_queries, BLOCK_QUERIES):
        stop = min(start + BLOCK_QUERIES, num_queries)
        low, high = 0, num_keys
        if visible.causal:
            high = num_keys - num_queries + stop
        if visible.window is not None:
            low = max(0, num_keys - num_queries + start - visible.window + 1)
        if visible.mask is not None and visible.mask.shape[2] > BLOCK_QUERIES:
            some = visible.mask[:, 0, start:stop].any(0).any(0).nonzero()
            if len(some):
                low, high = max(low, int(some[0])), min(high, int(some[-1]) + 1)
        assert low < high
        found.append((start, stop, low, high))
    return found


def _grouped(states_BHqC: Tensor, groups: int) -> Tensor:
    """Return [B, G, R * q, C]: what looks at the same keys lies together."""
    rows, heads, length, channels = states_BHqC.shape
    return states_BHqC if heads == groups else states_BHqC.reshape(rows, groups, heads // groups * length, channels)


def _weights(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    plan: _Plan,
    start: int,
    stop: int,
    low: int,
    high: int,
) -> Tensor:
    """Return the attention weights [B, G, R * q, k] of a block, in at least float32."""
    block = _grouped(query[:, :, start:stop], key.shape[1])
    score = (block * plan.scale) @ key[:, :, low:high].transpose(-1, -2)
    score = score if score.dtype == torch.float64 else score.float()
    by_query = score.view(*query.shape[:2], stop - start, high - low)
    if bias is not None:
        by_query += bias[:, start:stop, low:high]
    hides = _hides(mask, plan, query.shape[2], key.shape[2], start, stop, low, high)
    if hides is not None:
        # On a CPU, adding takes a tenth of the time that filling in by a mask does.
        by_query += hides.to(score.dtype).mul_(UNSEEN)
    return torch.softmax(score, -1)


def _hides(
    mask: Tensor | None, plan: _Plan, num_queries: int, num_keys: int, start: int, stop: int, low: int, high: int
) -> Tensor | None:
    """Return bool [B or 1, 1, q or 1, k], True = may not be seen, or None where a block sees all of its keys."""
    hides = None
    if mask is not None:
        hides = ~(mask[:, :, start:stop, low:high] if mask.shape[2] > 1 else mask[..., low:high])
    first = num_keys - num_queries
    queries = torch.arange(first + start, first + stop)[:, None]
    keys = torch.arange(low, high)
    if plan.causal and high > first + start + 1:
        later = keys > queries
        hides = later if hides is None else hides | later
    if plan.window is not None and low <= first + stop - 1 - plan.window:
        far = keys <= queries - plan.window
        hides = far if hides is None else hides | far
    return hides


def _factor(weight: Tensor, dropout: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return keep_mask(weight.shape, dropout, generator).to(weight.dtype).mul_(1 / kept_share(dropout))
