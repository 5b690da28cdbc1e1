"""AdamW in the variants that papers use, on PyTorch's fused kernel."""

import dataclasses
import math

import torch
from torch import Tensor, nn

from elision.errors import InputError


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019) and clipping of the global gradient norm."""

    learning_rate: float = 1e-4
    """the peak; the schedule scales it"""
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    """added outside the square root"""
    weight_decay: float = 0.01
    decay_all: bool = False
    """decay biases and norms too; most papers leave them out"""
    bias_correction: bool = True
    """divide the moments by 1 - beta^t (Kingma & Ba 2015); the optimiser of the BERT code does not"""
    clip_norm: float = 1.0
    """scale the gradient down to this global norm when it is longer; 0 = never"""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise InputError(f"learning_rate is {self.learning_rate}: it must be above 0")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give a number from 0 to below 1")

    def build(self, model: nn.Module) -> torch.optim.AdamW:
        """Return the optimiser over all trained tensors, in two groups: with and without decay."""
        decayed, plain = [], []
        for _, parameter in sorted(model.named_parameters(), key=lambda item: item[0]):
            if parameter.requires_grad:
                (decayed if self.decay_all or parameter.dim() > 1 else plain).append(parameter)
        groups = [
            {"params": group, "decay": decay} for group, decay in ((decayed, self.weight_decay), (plain, 0.0)) if group
        ]
        fused = all(p.device.type in ("cpu", "cuda") for p in model.parameters())
        return torch.optim.AdamW(groups, lr=self.learning_rate, betas=(self.beta1, self.beta2), fused=fused)

    def prepare(self, optimizer: torch.optim.AdamW, update: int, learning_rate: float) -> None:
        """Set the hyperparameters of update number `update` (the first is 1).

        The kernel computes lr * (m / c1) / (sqrt(v) / sqrt(c2) + eps) with c = 1 - beta^t. Handing it
        lr * c1 / sqrt(c2) and eps / sqrt(c2) leaves lr * m / (sqrt(v) + eps): no bias correction. The decay, which it
        multiplies by the rate it is handed, is scaled back.
        """
        rate, eps = learning_rate, self.eps
        if not self.bias_correction:
            root = math.sqrt(1 - self.beta2**update)
            rate, eps = learning_rate * (1 - self.beta1**update) / root, self.eps / root
        for group in optimizer.param_groups:
            group["lr"], group["eps"] = rate, eps
            group["weight_decay"] = group["decay"] * learning_rate / rate if rate else 0.0

    def clip_(self, parameters: list[nn.Parameter]) -> Tensor:
        """Clip the gradients in place; returns their global norm before clipping, on the device."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients, foreach=True)
        # A factor of 1 is a pass over all gradients for nothing. Looking first costs nothing on a CPU, while a GPU would
        # have to be waited for. The 1e-6 is what clip_grads_with_norm_ adds to the norm.
        if self.clip_norm > 0 and (norm.device.type != "cpu" or not norm + 1e-6 <= self.clip_norm):
            nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm, foreach=True)
        return norm


Optimizer = AdamW
