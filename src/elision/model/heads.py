"""Output heads. A head never sees more places than have something to be predicted.

N places with a target, V vocabulary, D hidden size, E examples, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Logits held at a time, in numbers: 2^22 float32 are 16 MiB. Larger only costs memory, smaller costs speed.
CHUNK_NUMEL = 1 << 22

# Columns summed at once on the way to a drawn one.
PICK_BLOCK = 192


class VocabularyHead(nn.Module):
    """Scores of every token by the (tied) token table, with or without a bias.

    own_width: width of a table of its own, which scores tokens in place of the tied one; None = none. label_smoothing and
    z_loss change the loss in training, never in evaluation (see `cross_entropy_sum`).
    """

    def __init__(
        self,
        vocab_size: int,
        bias: bool,
        own_width: int | None = None,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
    ):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if bias else None
        self.table = None if own_width is None else nn.Linear(own_width, vocab_size, bias=False)
        self.label_smoothing, self.z_loss = label_smoothing, z_loss

    def logits(self, hidden_ND: Tensor, table_VD: Tensor) -> Tensor:
        """Return [..., V] for [..., D]."""
        return F.linear(hidden_ND, table_VD if self.table is None else self.table.weight, self.bias)

    def loss(self, hidden_ND: Tensor, table_VD: Tensor, targets_N: Tensor) -> Tensor:
        """Return the summed cross-entropy in nats, a float32 (or float64) scalar."""
        table_VD = table_VD if self.table is None else self.table.weight
        if not self.training:
            return cross_entropy_sum(hidden_ND, table_VD, self.bias, targets_N)
        return cross_entropy_sum(hidden_ND, table_VD, self.bias, targets_N, self.label_smoothing, self.z_loss)

    def loss_and_draws(
        self, hidden_ND: Tensor, table_VD: Tensor, targets_N: Tensor, draws_N: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Return the summed cross-entropy, and int64 [N]: a token for each place, as `cross_entropy_and_draws` does."""
        return cross_entropy_and_draws(hidden_ND, table_VD, self.bias, targets_N, draws_N, temperature)

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

    def loss_and_draws(
        self, hidden_ND: Tensor, table_VD: Tensor, targets_N: Tensor, draws_N: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Return the summed cross-entropy, and int64 [N]: a token for each place, as `cross_entropy_and_draws` does."""
        return super().loss_and_draws(self.transform(hidden_ND), table_VD, targets_N, draws_N, temperature)

    def transform(self, hidden_ND: Tensor) -> Tensor:
        """Return the states as the token table reads them."""
        return self.norm(self.activation(self.dense(hidden_ND)))

    def num_flops(self, num_places: int, width: int, vocab_size: int) -> float:
        """Return the floating-point operations of a forward pass."""
        table_width = self.dense.out_features
        return super().num_flops(num_places, table_width, vocab_size) + 2.0 * num_places * width * table_width


def cross_entropy_sum(
    hidden_ND: Tensor,
    table_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Tensor:
    """Return sum_n -log softmax(hidden_n @ table^T + bias)[target_n], without ever holding all logits.

    With label smoothing e the target counts 1 - e of that and every token e / V; z_loss adds that much of (log Z)^2, Z the
    normaliser of the softmax. The gradient is formed chunk by chunk together with the loss, so the peak memory is that of one
    chunk of logits whatever N * V is, and the products are as many as in the plain form.
    """
    return _CrossEntropySum.apply(hidden_ND, table_VD, bias_V, targets_N, None, 1.0, label_smoothing, z_loss)[0]


def cross_entropy_and_draws(
    hidden_ND: Tensor,
    table_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    draws_N: Tensor,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return `cross_entropy_sum` and, from the same logits, int64 [N]: a token drawn from softmax(logits / temperature).

    draws: float64 [N], uniform from 0 to 1. Place n gets the token at which the running sum of the probabilities passes
    draws[n], so that equal draws give equal tokens. No gradient passes through them.
    """
    return _CrossEntropySum.apply(hidden_ND, table_VD, bias_V, targets_N, draws_N, temperature, 0.0, 0.0)


class _CrossEntropySum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden: Tensor,
        table: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        draws: Tensor | None,
        temperature: float,
        smoothing: float,
        z_loss: float,
    ) -> tuple[Tensor, Tensor]:
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
            drawn = torch.empty_like(targets)
            step = max(1, CHUNK_NUMEL // weight.shape[0])
            for start in range(0, hidden.shape[0], step):
                part, target = hidden[start : start + step], targets[start : start + step, None]
                logits = (part @ weight.T).to(exact)
                if bias is not None:
                    logits += bias
                # log softmax in place: exponentials cost as much as a product of width 30, so they are formed once.
                most = logits.amax(-1, keepdim=True)
                logits -= most
                chosen = logits.gather(1, target)
                if smoothing:
                    chosen = (1 - smoothing) * chosen + smoothing * logits.mean(-1, keepdim=True)
                share = logits.exp_()
                norm = share.sum(-1, keepdim=True)
                total += (norm.log() - chosen).sum()
                if z_loss:
                    log_norm = norm.log() + most
                    total += z_loss * log_norm.square().sum()
                if draws is not None:
                    weights = share if temperature == 1 else share.pow(1 / temperature)
                    drawn[start : start + step] = pick_by_share(weights, draws[start : start + step])
                if not (wants_hidden or wants_table or grad_bias is not None):
                    continue
                # d loss / d logits = softmax - one-hot.
                slope = share.div_(norm)
                if z_loss:
                    slope *= 1 + 2 * z_loss * log_norm
                if smoothing:
                    slope -= smoothing / slope.shape[1]
                slope.scatter_add_(1, target, torch.full_like(target, smoothing - 1, dtype=exact))
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
        ctx.mark_non_differentiable(drawn)
        return total, drawn

    @staticmethod
    @once_differentiable
    def backward(
        ctx: torch.autograd.function.FunctionCtx, upstream: Tensor, _: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_table, grad_bias = ctx.saved_tensors
        hidden_dtype, table_dtype = ctx.dtypes
        return (
            None if grad_hidden is None else (grad_hidden * upstream).to(hidden_dtype),
            None if grad_table is None else grad_table.mul_(upstream).to(table_dtype),
            None if grad_bias is None else grad_bias.mul_(upstream).to(table_dtype),
            None,
            None,
            None,
            None,
            None,
        )


def pick_by_share(weights_NV: Tensor, draws_N: Tensor) -> Tensor:
    """Return int64 [N]: the first column at which the running sum of a row passes its draw times the whole sum.

    Running sums over blocks find the block, and one over that block the column, which takes a tenth of the time of
    summing along the whole row. In float64, so that rare columns get their share.
    """
    num_columns = weights_NV.shape[1]
    whole = num_columns // PICK_BLOCK
    blocks = weights_NV[:, : whole * PICK_BLOCK].unflatten(1, (whole, PICK_BLOCK)).sum(-1)
    rest = weights_NV[:, whole * PICK_BLOCK :].sum(-1, keepdim=True)
    after = torch.cat([blocks, rest], 1).double().cumsum(-1)
    goal = draws_N[:, None] * after[:, -1:]
    block = torch.searchsorted(after, goal, right=True).clamp_(max=whole)
    before = F.pad(after, (1, 0)).gather(1, block)
    columns = block * PICK_BLOCK + torch.arange(PICK_BLOCK, device=block.device)
    inside = weights_NV.gather(1, columns.clamp(max=num_columns - 1)).double()
    inside = inside.masked_fill(columns >= num_columns, 0.0).cumsum(-1)
    # Where rounding leaves the sum within the block short of the goal, its last column is meant.
    goal = torch.minimum(goal - before, inside[:, -1:] * (1 - 1e-15))
    column = torch.searchsorted(inside, goal, right=True)
    return (columns[:, :1] + column)[:, 0].clamp_(max=num_columns - 1)
