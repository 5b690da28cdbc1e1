"""Adafactor: Adam without momentum that remembers rows and columns instead of every number (Shazeer & Stern 2018)."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from elision.errors import InputError
from elision.train.groups import fused_rows, groups_of
from elision.train.ranges import check_rate

# Squares are summed over columns for so many numbers at a time: they then stay in a processor's cache, and no second
# matrix is held. A GPU gains nothing by it.
BLOCK = 1 << 18


@dataclasses.dataclass(frozen=True)
class Adafactor:
    """w -= rate * max(rms(w), min_scale) * u / max(1, rms(u) / clip_threshold), where u = g / sqrt(v): T5's optimiser.

    v is a running mean of g^2 with the decay 1 - t^-decay_exponent at update t; of a matrix only the means of its rows and
    of its columns are kept. As in the released T5 code: no momentum, no weight decay, and no clipping of the gradient,
    whose length does not matter here.
    """

    learning_rate: float = 0.01
    """the peak; the schedule scales it. With `parameter_scaled` it is relative to the size of the weights"""
    decay_exponent: float = 0.8
    clip_threshold: float = 1.0
    """the root mean square that the update of a tensor is scaled down to when it is larger"""
    parameter_scaled: bool = True
    """multiply the rate of a tensor by the root mean square of its weights"""
    min_scale: float = 1e-3
    """what a tensor's root mean square counts as when it is smaller, so that weights can leave 0"""
    eps: float = 1e-30
    """added to the squares of the gradient"""
    clip_norm: float = 0.0
    """scale the gradient down to this global norm when it is longer; 0 = never"""
    clip_apart: bool = False
    """clip the gradient of the backbone and of each objective's head on its own"""

    def __post_init__(self) -> None:
        check_rate(self)
        for name in ("decay_exponent", "clip_threshold", "eps"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must be above 0")
        if self.min_scale < 0:
            raise InputError(f"min_scale is {self.min_scale}: it must be at least 0")

    def build(self, model: nn.Module) -> "AdafactorOptimizer":
        """Return the optimiser over all trained tensors."""
        return AdafactorOptimizer(groups_of(model, 0.0), self, fused_rows(model))

    def prepare(self, optimizer: "AdafactorOptimizer", update: int, learning_rate: float) -> None:
        """Set the learning rate of update number `update` (the first is 1)."""
        for group in optimizer.param_groups:
            group["lr"], group["update"] = learning_rate, update


class AdafactorOptimizer(torch.optim.Optimizer):
    """Updates every tensor, and every one of the matrices that other code keeps apart in one tensor, by itself.

    It uses the gradients as its working memory: after a step they hold the updates.
    """

    def __init__(self, groups: list[dict[str, Any]], settings: Adafactor, fused: dict[nn.Parameter, tuple[int, ...]]):
        super().__init__(groups, {"lr": settings.learning_rate, "update": 1})
        self._settings, self._fused = settings, fused

    @torch.no_grad()
    def step(self) -> None:
        """Make one update."""
        for group in self.param_groups:
            # 0 at the first update: what the means start from does not matter.
            decay = 1.0 - group["update"] ** -self._settings.decay_exponent
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, decay, group["lr"])

    def _update(self, weight: Tensor, decay: float, rate: float) -> None:
        held = self.state[weight]
        sizes = self._fused.get(weight)
        if not held:
            if weight.dim() > 1:
                pieces = (len(sizes),) if sizes else ()
                held["rows"] = weight.new_zeros(weight.shape[:-1])
                held["columns"] = weight.new_zeros((*pieces, *weight.shape[:-2], weight.shape[-1]))
            else:
                held["exp_avg_sq"] = torch.zeros_like(weight)
        if sizes is None:
            self._update_piece(weight, weight.grad, held, decay, rate)
            return
        first = 0
        for number, size in enumerate(sizes):
            mine = slice(first, first + size)
            moments = {name: value[number if name == "columns" else mine] for name, value in held.items()}
            self._update_piece(weight[mine], weight.grad[mine], moments, decay, rate)
            first += size

    def _update_piece(
        self, weight: Tensor, gradient: Tensor, moments: dict[str, Tensor], decay: float, rate: float
    ) -> None:
        """Update one tensor."""
        settings, size = self._settings, math.sqrt(weight.numel())
        scale = (weight.norm() / size).clamp(min=settings.min_scale) * rate if settings.parameter_scaled else rate
        if "rows" in moments:
            rows, columns = moments["rows"], moments["columns"]
            rows.lerp_(gradient.norm(dim=-1).square() / weight.shape[-1] + settings.eps, 1 - decay)
            columns.lerp_(_column_squares(gradient) / weight.shape[-2] + settings.eps, 1 - decay)
            gradient.mul_((rows / rows.mean(dim=-1, keepdim=True)).rsqrt().unsqueeze(-1))
            gradient.mul_(columns.rsqrt().unsqueeze(-2))
        else:
            second = moments["exp_avg_sq"].lerp_(gradient.square() + settings.eps, 1 - decay)
            gradient.mul_(second.rsqrt())
        gradient.mul_(scale / (gradient.norm() / (size * settings.clip_threshold)).clamp(min=1.0))
        weight.sub_(gradient)


def _column_squares(matrix: Tensor) -> Tensor:
    """Return the sum of squares of each column, [..., C] for [..., R, C]."""
    if matrix.device.type != "cpu":
        return matrix.norm(dim=-2).square()
    blocks = matrix.split(max(1, BLOCK // matrix.shape[-1]), dim=-2)
    return sum(block.square().sum(dim=-2) for block in blocks)
