"""Adagrad against PyTorch's own and against plain loops."""

import pytest
import torch
from torch import nn

from elision.errors import InputError
from elision.train.adagrad import Adagrad

RATES = [0.2, 0.2, 0.1, 0.05]


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3)).double()


def test_it_is_pytorchs_adagrad_and_the_formula() -> None:
    settings = Adagrad(learning_rate=0.2, initial_accumulator=1.0)
    ours, theirs, plain = small_model(), small_model(), small_model()
    optimizer = settings.build(ours)
    reference = torch.optim.Adagrad(theirs.parameters(), initial_accumulator_value=1.0, foreach=False)
    sums = [torch.ones_like(parameter) for parameter in plain.parameters()]
    torch.manual_seed(1)
    for number, rate in enumerate(RATES, 1):
        for mine, other, (index, bare) in zip(ours.parameters(), theirs.parameters(), enumerate(plain.parameters())):
            gradient = torch.randn_like(mine)
            mine.grad, other.grad = gradient, gradient.clone()
            with torch.no_grad():
                sums[index] += gradient**2
                bare -= rate * gradient / sums[index].sqrt()
        settings.prepare(optimizer, number, rate)
        optimizer.step()
        reference.param_groups[0]["lr"] = rate
        reference.step()
    for mine, other, bare in zip(ours.parameters(), theirs.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-14)
        torch.testing.assert_close(mine, bare, rtol=0, atol=1e-9)


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(InputError, match="initial_accumulator is -1"):
        Adagrad(initial_accumulator=-1)
    with pytest.raises(InputError, match="learning_rate is 0"):
        Adagrad(learning_rate=0)
