"""Root mean square norm (Zhang & Sennrich 2019): layer norm without mean and bias. PyTorch's own has no CPU kernel of one
piece and takes six to fifteen times as long there, both ways, as its layer norm.

N places, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

SMALL_NUMEL = 1 << 13


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, computed in at least float32."""

    def __init__(self, width: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """Return a tensor of the same shape and type."""
        exact = torch.promote_types(hidden.dtype, torch.float32)
        # For a few places, as in decoding, one call costs less than several.
        is_small = hidden.numel() < SMALL_NUMEL and hidden.dtype == exact and not torch.is_grad_enabled()
        if hidden.device.type != "cpu" or torch.compiler.is_compiling() or is_small:
            return F.rms_norm(hidden, self.weight.shape, self.weight, self.eps)
        if torch.is_grad_enabled():
            return _CpuRMSNorm.apply(hidden.to(exact), self.weight, self.eps).to(hidden.dtype)
        hidden_ND = hidden.to(exact)
        return hidden_ND.mul(_inverse_root(hidden_ND, self.eps)).mul_(self.weight).to(hidden.dtype)

    def extra_repr(self) -> str:
        """Return what repr() shows."""
        return f"{len(self.weight)}, eps={self.eps}"


def _inverse_root(hidden: Tensor, eps: float) -> Tensor:
    """Return 1 / sqrt(mean(x^2) + eps), [..., 1]."""
    norm = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
    return norm.square_().mul_(1 / hidden.shape[-1]).add_(eps).rsqrt_()


class _CpuRMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = _inverse_root(hidden, eps)
        ctx.save_for_backward(hidden, weight, inverse)
        return hidden.mul(inverse).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        # With s = 1 / rms and p = g * x: dw = sum_n s p, dx = s w g - x s^3 (p . w) / D. Sums are matrix products.
        hidden, weight, inverse = ctx.saved_tensors
        width = weight.shape[0]
        inverse_N1 = inverse.reshape(-1, 1)
        product_ND = (upstream * hidden).reshape(-1, width)
        grad_weight = (inverse_N1.T @ product_ND)[0]
        shrink_N1 = (product_ND @ weight[:, None]).mul_(inverse_N1.pow(3)).mul_(-1 / width)
        grad_ND = (upstream * weight).reshape(-1, width).mul_(inverse_N1)
        grad_ND.addcmul_(hidden.reshape(-1, width), shrink_N1)
        return grad_ND.view(hidden.shape), grad_weight, None
