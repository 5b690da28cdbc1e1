"""LAMB: Adam whose step, for every tensor, is as long as the tensor itself (You et al. 2020, algorithm 2)."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from elision.train.groups import fused_rows, groups_of
from elision.train.ranges import check_fraction, check_rate


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
        return LambOptimizer(groups_of(model, self.weight_decay), self, fused_rows(model))

    def prepare(self, optimizer: "LambOptimizer", update: int, learning_rate: float) -> None:
        """Set the learning rate of update number `update` (the first is 1)."""
        for group in optimizer.param_groups:
            group["lr"], group["update"] = learning_rate, update


class LambOptimizer(torch.optim.Optimizer):
    """w -= rate * |w| / |u| * u, where u = m / (sqrt(v) + eps) + decay * w; without the ratio for biases and norms.

    Matrices that other code keeps apart have a length of their own each, though they lie in one tensor.
    """

    def __init__(self, groups: list[dict[str, Any]], settings: Lamb, fused: dict[nn.Parameter, tuple[int, ...]]):
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
            sizes = self._fused.get(weight, (len(weight),))
            for mine, step in zip(weight.split(sizes), change.split(sizes), strict=True):
                step.mul_(_trust_ratio(mine, step))
        weight.add_(change, alpha=-group["lr"])


def _trust_ratio(weight: Tensor, change: Tensor) -> Tensor:
    """Return |w| / |u|; 1 where either is 0."""
    length, step = weight.norm(), change.norm()
    return torch.where((length > 0) & (step > 0), length / step, 1.0)
