"""Adafactor against transformers' own, and against the formula written out."""

import pytest
import torch
from torch import nn
from transformers.optimization import Adafactor as Reference

from elision.errors import InputError
from elision.model.attention import Attention, CrossAttention
from elision.train.adafactor import Adafactor
from elision.train.groups import fused_rows

RATES = [0.01, 0.01, 0.05, 0.02, 0.005, 0.03]


class ManyShapes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.matrix, self.norm, self.zeros = nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(3, 4)
        self.convolution, self.scalar = nn.Conv1d(3, 4, 2), nn.Parameter(torch.tensor(0.5))
        nn.init.zeros_(self.zeros.weight)
        self.double()


def gradients(model: nn.Module, number: int) -> list[torch.Tensor]:
    torch.manual_seed(number)
    return [torch.randn_like(parameter) * 10.0 ** (number - 3) for parameter in model.parameters()]


def updates(settings: Adafactor, model: nn.Module) -> nn.Module:
    optimizer = settings.build(model)
    for number, rate in enumerate(RATES, 1):
        for parameter, gradient in zip(model.parameters(), gradients(model, number), strict=True):
            parameter.grad = gradient
        settings.prepare(optimizer, number, rate)
        optimizer.step()
    return model


@pytest.mark.parametrize("parameter_scaled", [True, False])
def test_every_step_is_that_of_transformers(parameter_scaled: bool) -> None:
    ours, theirs = ManyShapes(), ManyShapes()
    settings = Adafactor(parameter_scaled=parameter_scaled)
    optimizer = settings.build(ours)
    reference = Reference(
        theirs.parameters(), lr=1.0, scale_parameter=parameter_scaled, relative_step=False, warmup_init=False
    )
    for number, rate in enumerate(RATES, 1):
        for mine, other, gradient in zip(ours.parameters(), theirs.parameters(), gradients(ours, number)):
            mine.grad, other.grad = gradient, gradient.clone()
        settings.prepare(optimizer, number, rate)
        optimizer.step()
        reference.param_groups[0]["lr"] = rate
        reference.step()
        for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-15, msg=f"{name} at update {number}")


def test_a_tensor_of_zeros_moves_by_the_least_scale() -> None:
    model = ManyShapes()
    settings = Adafactor(min_scale=1e-3)
    optimizer = settings.build(model)
    for parameter, gradient in zip(model.parameters(), gradients(model, 1), strict=True):
        parameter.grad = gradient
    settings.prepare(optimizer, 1, 0.01)
    optimizer.step()
    # The first update is clipped to a root mean square of 1 (or is a little shorter), whatever the gradient's scale.
    assert 0.5e-5 < float(model.zeros.weight.detach().square().mean().sqrt()) < 1.0001e-5


def test_a_matrix_is_remembered_by_its_rows_and_columns_alone() -> None:
    model = ManyShapes()
    optimizer = Adafactor().build(model)
    for parameter, gradient in zip(model.parameters(), gradients(model, 1), strict=True):
        parameter.grad = gradient
    optimizer.step()
    held = {name: value.shape for name, value in optimizer.state[model.matrix.weight].items()}
    assert held == {"rows": (7,), "columns": (5,)}
    assert {name: value.shape for name, value in optimizer.state[model.norm.weight].items()} == {"exp_avg_sq": (7,)}


def test_queries_keys_and_values_are_matrices_of_their_own_though_they_lie_in_one() -> None:
    def attention() -> nn.Module:
        torch.manual_seed(0)
        model = Attention(4, 2, 0.0).double()
        with torch.no_grad():
            model.query_key_value.weight[:4] *= 100
            model.query_key_value.bias.uniform_(-1, 1)[:4] *= 10
        return model

    class Apart(nn.Module):
        def __init__(self, whole: nn.Module) -> None:
            super().__init__()
            fused = whole.query_key_value
            self.weights = nn.ParameterList(fused.weight.detach().clone().chunk(3))
            self.biases = nn.ParameterList(fused.bias.detach().clone().chunk(3))

    whole, apart = attention(), Apart(attention())
    settings = Adafactor()
    optimizers = [settings.build(whole), settings.build(apart)]
    for number, rate in enumerate(RATES, 1):
        torch.manual_seed(number)
        for parameter in whole.parameters():
            parameter.grad = torch.randn_like(parameter)
        fused = whole.query_key_value
        for mine, gradient in zip(apart.weights, fused.weight.grad.chunk(3), strict=True):
            mine.grad = gradient.clone()
        for mine, gradient in zip(apart.biases, fused.bias.grad.chunk(3), strict=True):
            mine.grad = gradient.clone()
        for optimizer in optimizers:
            settings.prepare(optimizer, number, rate)
            optimizer.step()
    torch.testing.assert_close(fused.weight, torch.cat(list(apart.weights)), rtol=1e-12, atol=0)
    torch.testing.assert_close(fused.bias, torch.cat(list(apart.biases)), rtol=1e-12, atol=0)


def test_fewer_heads_of_keys_and_values_have_fewer_rows_each() -> None:
    shared = Attention(12, 6, 0.0, num_key_value_heads=2, head_size=3)
    assert fused_rows(shared) == dict.fromkeys(shared.query_key_value.parameters(), (18, 6, 6))
    cross = CrossAttention(8, 2, 0.0)
    assert fused_rows(cross) == dict.fromkeys(cross.key_value.parameters(), (8, 8))


def test_rows_that_got_no_gradient_stay_where_they_are() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"tokens": nn.Embedding(6, 3)})
    before = model["tokens"].weight.detach().clone()
    settings = Adafactor()
    optimizer = settings.build(model)
    model["tokens"].weight.grad = torch.zeros(6, 3).index_fill_(0, torch.tensor([1, 4]), 0.25)
    settings.prepare(optimizer, 1, 0.01)
    optimizer.step()
    moved = (model["tokens"].weight.detach() != before).any(dim=1)
    assert moved.tolist() == [False, True, False, False, True, False]


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(InputError, match="decay_exponent is 0"):
        Adafactor(decay_exponent=0)
    with pytest.raises(InputError, match="clip_threshold is -1"):
        Adafactor(clip_threshold=-1)
    with pytest.raises(InputError, match="learning_rate is 0"):
        Adafactor(learning_rate=0)
