"""LAMB against plain loops."""

import math

import pytest
import torch
from torch import nn

from elision.errors import InputError
from elision.model.attention import Attention
from elision.train.lamb import Lamb

RATES = [0.0, *[1e-2 * step / 5 for step in range(1, 6)], *[1e-2 * (1 - step / 15) for step in range(6, 12)]]


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3)).double()


def updates(settings: Lamb, model: nn.Module, rates: list[float] = RATES) -> nn.Module:
    """Train a model on fixed noise, one update for each rate."""
    optimizer = settings.build(model)
    torch.manual_seed(1)
    for number, rate in enumerate(rates, 1):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        settings.prepare(optimizer, number, rate)
        optimizer.step()
    return model


def plain(model: nn.Module, bias_correction: bool, pieces: dict[str, int] | None = None) -> nn.Module:
    """The algorithm tensor by tensor, as in the released ALBERT code (or with the paper's correction)."""
    first = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    second = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    torch.manual_seed(1)
    with torch.no_grad():
        for number, rate in enumerate(RATES, 1):
            for name, parameter in model.named_parameters():
                gradient = torch.randn_like(parameter)
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.999 * second[name] + 0.001 * gradient**2
                m, v = first[name], second[name]
                if bias_correction:
                    m, v = m / (1 - 0.9**number), v / (1 - 0.999**number)
                update = m / (v.sqrt() + 1e-6)
                if parameter.dim() == 1:
                    parameter -= rate * update
                    continue
                update = update + 0.01 * parameter
                count = (pieces or {}).get(name, 1)
                for weight, change in zip(parameter.chunk(count), update.chunk(count), strict=True):
                    length, step = (math.sqrt(float(x.square().sum())) for x in (weight, change))
                    weight -= rate * (length / step if length > 0 and step > 0 else 1.0) * change
    return model


@pytest.mark.parametrize("bias_correction", [False, True])
def test_every_matrix_moves_by_its_own_length_and_biases_and_norms_as_in_adam(bias_correction: bool) -> None:
    ours = updates(Lamb(bias_correction=bias_correction), small_model())
    theirs = plain(small_model(), bias_correction)
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-13, msg=name)


def test_queries_keys_and_values_have_lengths_of_their_own_though_they_lie_in_one_matrix() -> None:
    def attention() -> nn.Module:
        torch.manual_seed(0)
        model = Attention(4, 2, 0.0).double()
        with torch.no_grad():
            model.query_key_value.weight[:4] *= 10
        return model

    ours, theirs = updates(Lamb(), attention()), plain(attention(), False, {"query_key_value.weight": 3})
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-13)
    whole = plain(attention(), False)
    assert not torch.allclose(ours.query_key_value.weight, whole.query_key_value.weight, rtol=0, atol=1e-3)


def test_a_matrix_of_zeros_moves_by_the_plain_step() -> None:
    model = nn.Linear(3, 2, bias=False).double()
    nn.init.zeros_(model.weight)
    after = updates(Lamb(), model, [1e-2]).weight
    # m / sqrt(v) of a first step is 0.1 / sqrt(0.001) whatever the gradient.
    torch.testing.assert_close(after.abs(), torch.full_like(after, 1e-2 * 0.1 / math.sqrt(0.001)), rtol=1e-3, atol=0)


def test_a_rate_of_zero_changes_no_weight() -> None:
    for after, before in zip(updates(Lamb(), small_model(), [0.0]).parameters(), small_model().parameters()):
        assert torch.equal(after, before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"learning_rate": 0}, "learning_rate is 0"), ({"beta1": 1.0}, "beta1 is 1.0"), ({"beta2": -1}, "beta2 is -1")],
)
def test_settings_out_of_range_are_named(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Lamb(**settings)
