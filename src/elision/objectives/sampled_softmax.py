"""Cross-entropy over a vocabulary of which, while training, only a sample is looked at (Jean et al. 2015).

N places, D hidden size, V vocabulary, S sampled words.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from elision.model.heads import CHUNK_NUMEL, cross_entropy_sum


class SampledSoftmaxHead(nn.Module):
    """An output table of its own, with a bias. While training, the target competes with sampled words alone."""

    def __init__(self, vocab_size: int, width: int, num_samples: int):
        super().__init__()
        self.num_samples = num_samples
        self.weight = nn.Parameter(torch.empty(vocab_size, width))
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        nn.init.normal_(self.weight, std=width**-0.5)

    @property
    def samples(self) -> bool:
        """Whether the loss is over a sample now: in training, when that is less than all."""
        return self.training and 0 < self.num_samples < len(self.weight)

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """Return [..., V] for [..., D]."""
        return F.linear(hidden_ND, self.weight, self.bias)

    def loss(self, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
        """Return the summed cross-entropy in nats: over the sample in training, over all words in evaluation.

        Words are sampled on the host from PyTorch's global generator: a device need not be waited for.
        """
        if not self.samples:
            return cross_entropy_sum(hidden_ND, self.weight, self.bias, targets_N)
        vocab_size = len(self.weight)
        sampled, num_tries = draw_log_uniform(self.num_samples, vocab_size)
        sampled_S = torch.from_numpy(sampled).to(hidden_ND.device)
        rows = torch.cat([sampled_S, targets_N])
        weights, biases = F.embedding(rows, self.weight), self.bias.index_select(0, rows)
        offsets = biases - log_expected_count(rows, vocab_size, num_tries).to(biases.dtype)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            return _SampledCrossEntropySum.apply(hidden_ND.to(weights.dtype), weights, offsets, sampled_S, targets_N)

    def num_flops(self, num_places: int) -> float:
        """Return the floating-point operations of a forward pass."""
        scored = self.num_samples + 1 if self.samples else len(self.weight)
        return 2.0 * num_places * self.weight.shape[1] * scored


def draw_log_uniform(num_samples: int, vocab_size: int) -> tuple[np.ndarray, int]:
    """Return distinct ids, int64 [num_samples], and how many draws that took, repeated ones included.

    Word k has probability log((k + 2) / (k + 1)) / log(V + 1), which is near to how frequent words are when the most
    frequent comes first. From PyTorch's global generator.
    """
    assert num_samples < vocab_size
    drawn = np.empty(0, np.int64)
    while True:
        uniform = torch.rand(2 * num_samples + 64, dtype=torch.float64).numpy()
        ids = np.exp(uniform * math.log(vocab_size + 1)).astype(np.int64) - 1
        drawn = np.concatenate([drawn, np.minimum(ids, vocab_size - 1)])
        distinct, first = np.unique(drawn, return_index=True)
        if len(distinct) >= num_samples:
            chosen = np.sort(first)[:num_samples]
            return drawn[chosen], int(chosen[-1]) + 1


def log_expected_count(ids: Tensor, vocab_size: int, num_tries: int) -> Tensor:
    """Return log(1 - (1 - p)^num_tries), float64: how likely each word is to be in such a sample."""
    place = ids.double()
    probability = (torch.log1p(1 / (place + 1))) / math.log(vocab_size + 1)
    return torch.log(-torch.expm1(num_tries * torch.log1p(-probability)))


class _SampledCrossEntropySum(torch.autograd.Function):
    """sum_n -log softmax([h_n . w_target + o_target, h_n . w_sampled + o_sampled])[0], in chunks of places.

    weights [S + N, D] and offsets [S + N] are those of the sampled words and of the targets. A sampled word that is
    the target itself does not count.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden: Tensor,
        weights: Tensor,
        offsets: Tensor,
        sampled: Tensor,
        targets: Tensor,
    ) -> Tensor:
        size = len(sampled)
        shared, own = weights[:size], weights[size:]
        grad_hidden, grad_weights, grad_offsets = (torch.empty_like(each) for each in (hidden, weights, offsets))
        grad_shared, grad_shared_offsets = grad_weights[:size].zero_(), grad_offsets[:size].zero_()
        total = hidden.new_zeros(())
        step = max(1, CHUNK_NUMEL // size)
        for start in range(0, len(hidden), step):
            part = slice(start, start + step)
            mine = slice(size + start, min(size + start + step, len(weights)))
            logits = torch.addmm(offsets[:size], hidden[part], shared.T)
            logits.masked_fill_(targets[part, None] == sampled, -math.inf)
            right = (hidden[part] * own[part]).sum(-1) + offsets[mine]
            largest = torch.maximum(logits.amax(-1), right)
            share = logits.sub_(largest[:, None]).exp_()
            right = right - largest
            norm = share.sum(-1) + right.exp()
            total += (norm.log() - right).sum()
            share.div_(norm[:, None])
            slope = right.exp() / norm - 1
            grad_offsets[mine] = slope
            grad_weights[mine] = slope[:, None] * hidden[part]
            grad_hidden[part] = (slope[:, None] * own[part]).addmm_(share, shared)
            grad_shared.addmm_(share.T, hidden[part])
            grad_shared_offsets += share.sum(0)
        ctx.save_for_backward(grad_hidden, grad_weights, grad_offsets)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return (*(gradient * upstream for gradient in ctx.saved_tensors), None, None)
