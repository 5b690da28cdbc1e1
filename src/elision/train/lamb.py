"""LAMB: Adam whose step, for every tensor, is as long as the tensor itself (You et al. 2020, algorithm 2)."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from elision.train.groups import groups_of
from elision.train.ranges import check_fraction, check_rate

# Matrices that other code keeps apart, so that each has a length of its own.
_FUSED = {"query_key_value.weight": 3}


@dataclasses.dataclass(frozen=True)
class Lamb:
    """Layer-wise adaptive moments: for batches of thousands of examples.

    As in the released ALBERT code: no bias correction; biases and norms have neither decay nor a trust ratio.
    """

    learning_rate: float = 0.00176
    """the peak; the schedule scales it"""
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    """added outside the square root"""
    weight_decay: float = 0.01
    bias_correction: bool = False
    """divide the moments by 1 - beta^t, as in the paper"""
    clip_norm: float = 1.0
    """scale the gradient down to this global norm when it is longer; 0 = never"""
    clip_apart: bool = False
    """clip the gradient of the backbone and of each objective's head on its own"""

    def __post_init__(self) -> None:
        check_rate(self)
        check_fraction(self, "beta1")
        check_fraction(self, "beta2")

    def build(self, model: nn.Module) -> "LambOptimizer":
        """Return the optimiser over all trained tensors."""
        fused = {
            parameter: parts
            for name, parameter in model.named_parameters()
            for ending, parts in _FUSED.items()
            if name.endswith(ending)
        }
        return LambOptimizer(groups_of(model, self.weight_decay), self, fused)

    def prepare(self, optimizer: "LambOptimizer", update: int, learning_rate: float) -> None:
        """Set the learning rate of update number `update` (the first is 1)."""
        for group in optimizer.param_groups:
            group["lr"], group["update"] = learning_rate, update


class LambOptimizer(torch.optim.Optimizer):
    """w -= rate * |w| / |u| * u, where u = m / (sqrt(v) + eps) + decay * w; without the ratio for biases and norms."""

    def __init__(self, groups: list[dict[str, Any]], settings: Lamb, fused: dict[nn.Parameter, int]):
        super().__init__(groups, {"lr": settings.learning_rate, "update": 1})
        self._settings, self._fused = settings, fused

    @torch.no_grad()
    def step(self) -> None:
        """Make one update."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, weight: Tensor, group: dict[str, Any]) -> None:
        settings, held = self._settings, self.state[weight]
        if not held:
            held["exp_avg"], held["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        first, second = held["exp_avg"], held["exp_avg_sq"]
        first.lerp_(weight.grad, 1 - settings.beta1)
        second.mul_(settings.beta2).addcmul_(weight.grad, weight.grad, value=1 - settings.beta2)
        change = second.sqrt()
        if settings.bias_correction:
            change.div_(math.sqrt(1 - settings.beta2 ** group["update"]))
        torch.div(first, change.add_(settings.eps), out=change)
        if settings.bias_correction:
            change.div_(1 - settings.beta1 ** group["update"])
        if weight.dim() > 1:
            change.add_(weight, alpha=group["decay"])
            parts = self._fused.get(weight, 1)
            change.view(parts, -1).mul_(_trust_ratio(weight.view(parts, -1), change.view(parts, -1)))
        weight.add_(change, alpha=-group["lr"])


def _trust_ratio(weight: Tensor, change: Tensor) -> Tensor:
    """Return |w| / |u| for each row [P, 1]; 1 where either is 0."""
    length, step = weight.norm(dim=1, keepdim=True), change.norm(dim=1, keepdim=True)
    return torch.where((length > 0) & (step > 0), length / step, 1.0)
