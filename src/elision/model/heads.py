"""Output heads. A head never sees more places than have something to be predicted.

N places with a target, V vocabulary, D hidden size, E examples, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Logits held at a time, in numbers: 2^22 float32 are 16 MiB. Larger only costs memory, smaller costs speed.
CHUNK_NUMEL = 1 << 22


class VocabularyHead(nn.Module):
    """Scores of every token by the (tied) token table, with or without a bias."""

    def __init__(self, vocab_size: int, bias: bool):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if bias else None

    def logits(self, hidden_ND: Tensor, table_VD: Tensor) -> Tensor:
        """Return [..., V] for [..., D]."""
        return F.linear(hidden_ND, table_VD, self.bias)

    def loss(self, hidden_ND: Tensor, table_VD: Tensor, targets_N: Tensor) -> Tensor:
        """Return the summed cross-entropy in nats, a float32 (or float64) scalar."""
        return cross_entropy_sum(hidden_ND, table_VD, self.bias, targets_N)

    def num_flops(self, num_places: int, width: int, vocab_size: int) -> float:
        """Return the floating-point operations of a forward pass."""
        return 2.0 * num_places * width * vocab_size


class MaskedHead(VocabularyHead):
    """BERT's head: dense (to the width of the token table), activation and layer norm before the table and its bias."""

    def __init__(self, vocab_size: int, hidden_size: int, table_width: int, activation: nn.Module, norm_eps: float):
        super().__init__(vocab_size, bias=True)
        self.dense = nn.Linear(hidden_size, table_width)
        self.activation = activation
        self.norm = nn.LayerNorm(table_width, eps=norm_eps)

    def logits(self, hidden_ND: Tensor, table_VD: Tensor) -> Tensor:
        """Return [..., V] for [..., D]."""
        return super().logits(self.transform(hidden_ND), table_VD)

    def loss(self, hidden_ND: Tensor, table_VD: Tensor, targets_N: Tensor) -> Tensor:
        """Return the summed cross-entropy in nats, a float32 (or float64) scalar."""
        return super().loss(self.transform(hidden_ND), table_VD, targets_N)

    def transform(self, hidden_ND: Tensor) -> Tensor:
        """Return the states as the token table reads them."""
        return self.norm(self.activation(self.dense(hidden_ND)))

    def num_flops(self, num_places: int, width: int, vocab_size: int) -> float:
        """Return the floating-point operations of a forward pass."""
        table_width = self.dense.out_features
        return super().num_flops(num_places, table_width, vocab_size) + 2.0 * num_places * width * table_width


def cross_entropy_sum(hidden_ND: Tensor, table_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor) -> Tensor:
    """Return sum_n -log softmax(hidden_n @ table^T + bias)[target_n], without ever holding all logits.

    The gradient is formed chunk by chunk together with the loss, so the peak memory is that of one chunk of logits
    whatever N * V is, and the products are as many as in the plain form.
    """
    return _CrossEntropySum.apply(hidden_ND, table_VD, bias_V, targets_N)


class _CrossEntropySum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, hidden: Tensor, table: Tensor, bias: Tensor | None, targets: Tensor
    ) -> Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else table.dtype
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        ctx.dtypes = hidden.dtype, table.dtype
        with torch.autocast(device, enabled=False):
            hidden, weight = hidden.to(dtype), table.to(dtype)
            wants_hidden, wants_table = ctx.needs_input_grad[:2]
            grad_hidden = torch.empty_like(hidden) if wants_hidden else None
            grad_table = torch.zeros_like(weight, dtype=exact) if wants_table else None
            grad_bias = torch.zeros_like(bias, dtype=exact) if bias is not None and ctx.needs_input_grad[2] else None
            total = torch.zeros((), dtype=exact, device=hidden.device)
            step = max(1, CHUNK_NUMEL // weight.shape[0])
            for start in range(0, hidden.shape[0], step):
                part, target = hidden[start : start + step], targets[start : start + step, None]
                logits = (part @ weight.T).to(exact)
                if bias is not None:
                    logits += bias
                # log softmax in place: exponentials cost as much as a product of width 30, so they are formed once.
                logits -= logits.amax(-1, keepdim=True)
                chosen = logits.gather(1, target)
                share = logits.exp_()
                norm = share.sum(-1, keepdim=True)
                total += (norm.log() - chosen).sum()
                if not (wants_hidden or wants_table or grad_bias is not None):
                    continue
                # d loss / d logits = softmax - one-hot.
                slope = share.div_(norm)
                slope.scatter_add_(1, target, torch.full_like(target, -1, dtype=exact))
                if grad_bias is not None:
                    grad_bias += slope.sum(0)
                slope = slope.to(dtype)
                if grad_hidden is not None:
                    torch.mm(slope, weight, out=grad_hidden[start : start + step])
                if grad_table is not None:
                    if dtype == exact:
                        grad_table.addmm_(slope.T, part)
                    else:
                        grad_table += slope.T @ part
        ctx.save_for_backward(grad_hidden, grad_table, grad_bias)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_table, grad_bias = ctx.saved_tensors
        hidden_dtype, table_dtype = ctx.dtypes
        return (
            None if grad_hidden is None else (grad_hidden * upstream).to(hidden_dtype),
            None if grad_table is None else grad_table.mul_(upstream).to(table_dtype),
            None if grad_bias is None else grad_bias.mul_(upstream).to(table_dtype),
            None,
        )
