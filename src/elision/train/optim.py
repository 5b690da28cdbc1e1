"""The optimisers a recipe can choose from; here AdamW in the variants that papers use, on PyTorch's fused kernel."""

import dataclasses
import math

import torch
from torch import nn

from elision.errors import InputError
from elision.train.adafactor import Adafactor
from elision.train.adagrad import Adagrad
from elision.train.groups import groups_of
from elision.train.lamb import Lamb
from elision.train.ranges import check_fraction, check_rate


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
    clip_apart: bool = False
    """clip the gradient of the backbone and of each objective's head on its own (DeBERTa v3's generator)"""
    layer_decay: float = 1.0
    """each block learns at this share of the rate of the block above it, embeddings slowest (ELECTRA fine-tunes at 0.8)"""

    def __post_init__(self) -> None:
        check_rate(self)
        check_fraction(self, "beta1")
        check_fraction(self, "beta2")
        if not 0 < self.layer_decay <= 1:
            raise InputError(f"layer_decay is {self.layer_decay}: give a share above 0 and up to 1")

    def build(self, model: nn.Module) -> torch.optim.AdamW:
        """Return the optimiser over all trained tensors, in groups with and without decay, and by rate."""
        groups = groups_of(model, self.weight_decay, decay_all=self.decay_all, layer_decay=self.layer_decay)
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
            group["lr"], group["eps"] = rate * group["share"], eps
            group["weight_decay"] = group["decay"] * learning_rate / rate if rate else 0.0


# Closed union of what a recipe accepts.
Optimizer = AdamW | Lamb | Adagrad | Adafactor
