"""Learning from another model's scores: soft and hard cross-entropy over one pass through the vocabulary.

N places, M of them with a target (the first ones), V vocabulary, D width of the token table.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from elision.model import heads


def distilled_sums(
    hidden_ND: Tensor,
    table_VD: Tensor,
    bias_V: Tensor | None,
    targets_M: Tensor,
    teach: Callable[[int, int], Tensor],
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Return (T^2 sum_n KL(teacher_n || student_n), -sum_m log student_m[target_m]), without ever holding all scores.

    The distributions of the first sum are softmax(scores / T), those of the second softmax(scores). `teach(begin, end)`
    returns the teacher's scores [end - begin, V] for a stretch of the places; no gradient reaches it. The student's
    scores are formed once, chunk by chunk, together with the gradients of both sums.
    """
    return _DistilledSums.apply(hidden_ND, table_VD, bias_V, targets_M, teach, temperature)


class _DistilledSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden: Tensor,
        table: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        teach: Callable[[int, int], Tensor],
        temperature: float,
    ) -> tuple[Tensor, Tensor]:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else table.dtype
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        ctx.dtypes = hidden.dtype, table.dtype
        step = max(1, heads.CHUNK_NUMEL // table.shape[0])
        hidden, weight = hidden.to(dtype), table.to(dtype)
        soft, hard = _Gradients(hidden, weight, bias, len(hidden)), _Gradients(hidden, weight, bias, len(targets))
        soft_total = torch.zeros((), dtype=exact, device=hidden.device)
        hard_total = torch.zeros((), dtype=exact, device=hidden.device)
        for start in range(0, hidden.shape[0], step):
            end = min(start + step, hidden.shape[0])
            theirs = teach(start, end)
            with torch.autocast(device, enabled=False):
                part = hidden[start:end]
                scores = (part @ weight.T).to(exact)
                if bias is not None:
                    scores += bias
                if start < len(targets):
                    target = targets[start:end, None]
                    slope = torch.log_softmax(scores[: len(target)], -1)
                    hard_total -= slope.gather(1, target).sum()
                    # d loss / d scores = softmax - one-hot.
                    slope.exp_().scatter_add_(1, target, torch.full_like(target, -1, dtype=exact))
                    hard.add(start, slope)
                log_taught = torch.log_softmax(theirs.to(exact) / temperature, -1)
                taught = log_taught.exp()
                log_learned = torch.log_softmax(scores.div_(temperature), -1)
                soft_total += temperature**2 * (taught * log_taught.sub_(log_learned)).sum()
                soft.add(start, log_learned.exp_().sub_(taught).mul_(temperature))
        ctx.save_for_backward(*soft.tensors, *hard.tensors)
        return soft_total, hard_total

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, soft: Tensor, hard: Tensor) -> tuple[Tensor | None, ...]:
        soft_hidden, soft_table, soft_bias, hard_hidden, hard_table, hard_bias = ctx.saved_tensors
        hidden_dtype, table_dtype = ctx.dtypes
        grad_hidden = soft_hidden * soft
        grad_hidden[: len(hard_hidden)] += hard_hidden * hard
        return (
            grad_hidden.to(hidden_dtype),
            (soft_table * soft).add_(hard_table * hard).to(table_dtype),
            None if soft_bias is None else (soft_bias * soft + hard_bias * hard).to(table_dtype),
            None,
            None,
            None,
        )


class _Gradients:
    """The gradients of one sum with respect to states, table and bias, gathered chunk by chunk."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, num_places: int):
        exact = torch.float64 if weight.dtype == torch.float64 else torch.float32
        self._hidden, self._weight = hidden, weight
        self.hidden = torch.empty_like(hidden[:num_places])
        self.table = torch.zeros_like(weight, dtype=exact)
        self.bias = torch.zeros_like(bias, dtype=exact) if bias is not None else None

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """All of them."""
        return self.hidden, self.table, self.bias

    def add(self, start: int, slope: Tensor) -> None:
        """Take in d sum / d scores for the places from `start` on."""
        if self.bias is not None:
            self.bias += slope.sum(0)
        rows = slice(start, start + len(slope))
        slope = slope.to(self._weight.dtype)
        torch.mm(slope, self._weight, out=self.hidden[rows])
        if slope.dtype == self.table.dtype:
            self.table.addmm_(slope.T, self._hidden[rows])
        else:
            self.table += slope.T @ self._hidden[rows]
