"""Attention with dropout on a CPU, block of queries by block of queries, as in Dao et al. 2022 (FlashAttention): the
weights are formed again in the backward pass instead of being kept, so memory grows with T and not with T * T.

B rows, H heads, Q queries, K keys, C channels of a head.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from elision.model.dropout import keep_mask, kept_share
from elision.model.visibility import Visible, causal_mask

# Queries at a time: large enough for efficient products, small enough that causal blocks skip most of what is unseen.
BLOCK_QUERIES = 128


def attend_in_blocks(
    query_BHQC: Tensor, key_BHKC: Tensor, value_BHKC: Tensor, visible: Visible, dropout: float
) -> Tensor:
    """Return the mixed values [B, H, Q, C]; the weights are dropped out with probability `dropout`.

    Which weights are dropped follows from one number drawn from PyTorch's global generator.
    """
    seed = int(torch.randint(2**62, ()))
    return _BlockwiseAttention.apply(query_BHQC, key_BHKC, value_BHKC, visible.mask, visible.causal, dropout, seed)


class _BlockwiseAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        causal: bool,
        dropout: float,
        seed: int,
    ) -> Tensor:
        key, value = key.contiguous(), value.contiguous()
        mixed = torch.empty(query.shape, dtype=query.dtype)
        for start, stop, seen in _blocks(query.shape[2], key.shape[2], causal):
            weight = _weights(query[:, :, start:stop], key[:, :, :seen], mask, causal, start, stop)
            weight *= _factor(weight, dropout, seed + start)
            mixed[:, :, start:stop] = weight.to(value.dtype) @ value[:, :, :seen]
        ctx.save_for_backward(query, key, value, mask, mixed)
        ctx.settings = causal, dropout, seed
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask, mixed = ctx.saved_tensors
        causal, dropout, seed = ctx.settings
        scale = 1 / math.sqrt(query.shape[-1])
        grad_query = torch.empty(query.shape, dtype=query.dtype)
        grad_key, grad_value = torch.zeros_like(key), torch.zeros_like(value)
        for start, stop, seen in _blocks(query.shape[2], key.shape[2], causal):
            block, above = query[:, :, start:stop], upstream[:, :, start:stop]
            weight = _weights(block, key[:, :, :seen], mask, causal, start, stop)
            factor = _factor(weight, dropout, seed + start)
            grad_value[:, :, :seen] += (weight * factor).to(value.dtype).transpose(-1, -2) @ above
            slope = (above @ value[:, :, :seen].transpose(-1, -2)).to(weight.dtype).mul_(factor)
            # The softmax's own slope: w * (g - sum w g), and the sum is that of upstream * output.
            slope -= (above * mixed[:, :, start:stop]).sum(-1, keepdim=True, dtype=weight.dtype)
            slope = slope.mul_(weight).mul_(scale).to(key.dtype)
            grad_query[:, :, start:stop] = slope @ key[:, :, :seen]
            grad_key[:, :, :seen] += slope.transpose(-1, -2) @ block
        return grad_query, grad_key, grad_value, None, None, None, None


def _blocks(num_queries: int, num_keys: int, causal: bool) -> Iterator[tuple[int, int, int]]:
    """Yield (first query, end query, keys that any of them may see)."""
    for start in range(0, num_queries, BLOCK_QUERIES):
        stop = min(start + BLOCK_QUERIES, num_queries)
        yield start, stop, num_keys - num_queries + stop if causal else num_keys


def _weights(query: Tensor, key: Tensor, mask: Tensor | None, causal: bool, start: int, stop: int) -> Tensor:
    """Return the attention weights [B, H, block, seen keys], in at least float32."""
    score = (query * (1 / math.sqrt(query.shape[-1]))) @ key.transpose(-1, -2)
    score = score if score.dtype == torch.float64 else score.float()
    if causal:
        score.masked_fill_(~causal_mask(stop - start, key.shape[2], score.device), float("-inf"))
    if mask is not None:
        score.masked_fill_(~mask[:, :, start:stop, : key.shape[2]], float("-inf"))
    return torch.softmax(score, -1)


def _factor(weight: Tensor, dropout: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return keep_mask(weight.shape, dropout, generator).to(weight.dtype).mul_(1 / kept_share(dropout))
