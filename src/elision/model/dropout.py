"""Dropout (Srivastava et al. 2014). On a CPU, PyTorch draws one number for each element, which takes longer than the
matrix products of a small model; here one 64-bit draw decides four elements, 16 bits each."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LEVELS = 1 << 16


def keep_mask(shape: torch.Size, rate: float, generator: torch.Generator | None = None) -> Tensor:
    """Return bool of `shape` on the CPU, False with probability `rate` rounded to 1/65536, independently."""
    numel = shape.numel()
    words = torch.empty((numel + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    # int16 runs from -32768: below the threshold lie round(rate * 65536) of its 65536 values.
    threshold = round(rate * LEVELS) - LEVELS // 2
    return (words.view(torch.int16)[:numel] >= threshold).view(shape)


def kept_share(rate: float) -> float:
    """Return the probability with which `keep_mask` really keeps an element."""
    return 1 - round(rate * LEVELS) / LEVELS


class Dropout(nn.Module):
    """Zero each element with probability `rate` while training, and scale the others so that the mean stays."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, hidden: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        if not self.training or self.rate == 0:
            return hidden
        if hidden.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(hidden, self.rate)
        return _CpuDropout.apply(hidden, self.rate)

    def extra_repr(self) -> str:
        """Return what repr() shows."""
        return f"rate={self.rate}"


class _CpuDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, hidden: Tensor, rate: float) -> Tensor:
        factor = keep_mask(hidden.shape, rate).to(hidden.dtype).mul_(1 / kept_share(rate))
        ctx.save_for_backward(factor)
        return hidden * factor

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, upstream: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return upstream * factor, None
