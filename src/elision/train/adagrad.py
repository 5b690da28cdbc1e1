"""Adagrad: every number's own rate falls with the gradients it has seen (Duchi et al. 2011)."""

import dataclasses

import torch
from torch import nn

from elision.errors import InputError
from elision.train.groups import groups_of
from elision.train.ranges import check_rate


@dataclasses.dataclass(frozen=True)
class Adagrad:
    """w -= rate * g / sqrt(a + sum of all g^2 so far), without decay: the optimiser of ELMo."""

    learning_rate: float = 0.2
    """the peak; the schedule scales it"""
    initial_accumulator: float = 1.0
    """a: what the sum of squares starts from"""
    eps: float = 1e-10
    """added outside the square root"""
    clip_norm: float = 10.0
    """scale the gradient down to this global norm when it is longer; 0 = never"""
    clip_apart: bool = False
    """clip the gradient of the backbone and of each objective's head on its own"""

    def __post_init__(self) -> None:
        check_rate(self)
        if self.initial_accumulator < 0:
            raise InputError(f"initial_accumulator is {self.initial_accumulator}: it must be at least 0")

    def build(self, model: nn.Module) -> torch.optim.Adagrad:
        """Return the optimiser over all trained tensors."""
        return torch.optim.Adagrad(
            groups_of(model, 0.0),
            lr=self.learning_rate,
            initial_accumulator_value=self.initial_accumulator,
            eps=self.eps,
            # The fused kernel exists for CPUs only.
            fused=all(parameter.device.type == "cpu" for parameter in model.parameters()) or None,
        )

    def prepare(self, optimizer: torch.optim.Adagrad, update: int, learning_rate: float) -> None:
        """Set the learning rate of update number `update` (the first is 1)."""
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
