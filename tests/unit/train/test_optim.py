"""AdamW against plain loops."""

import math

import pytest
import torch
from torch import nn

from elision.errors import InputError
from elision.train.optim import AdamW


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3)).double()


def updates(settings: AdamW, rates: list[float]) -> nn.Sequential:
    """Train a model of this library's optimiser on fixed noise, one update for each rate."""
    model = small_model()
    optimizer = settings.build(model)
    torch.manual_seed(1)
    for number, rate in enumerate(rates, 1):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        settings.prepare(optimizer, number, rate)
        optimizer.step()
    return model


RATES = [0.0, *[1e-2 * step / 10 for step in range(1, 10)], *[1e-2 * (1 - step / 25) for step in range(10, 20)]]
"""Twenty updates of BERT's schedule, whose first has rate 0."""


def test_without_bias_correction_it_is_the_optimiser_of_the_bert_code() -> None:
    """p -= rate * (m / (sqrt(v) + eps) + decay * p), with no decay on biases and norms."""
    settings = AdamW(learning_rate=1e-2, eps=1e-6, weight_decay=0.01, bias_correction=False)
    ours = updates(settings, RATES)
    plain = small_model()
    first = {name: torch.zeros_like(p) for name, p in plain.named_parameters()}
    second = {name: torch.zeros_like(p) for name, p in plain.named_parameters()}
    torch.manual_seed(1)
    with torch.no_grad():
        for rate in RATES:
            for name, parameter in plain.named_parameters():
                gradient = torch.randn_like(parameter)
                first[name] = 0.9 * first[name] + 0.1 * gradient
                second[name] = 0.999 * second[name] + 0.001 * gradient**2
                update = first[name] / (second[name].sqrt() + 1e-6)
                if parameter.dim() > 1:
                    update = update + 0.01 * parameter
                parameter -= rate * update
    for (name, mine), theirs in zip(ours.named_parameters(), plain.parameters()):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-13, msg=name)


def test_with_bias_correction_it_is_pytorchs_adamw() -> None:
    settings = AdamW(learning_rate=1e-2, beta2=0.95, weight_decay=0.1, decay_all=True)
    ours, theirs = updates(settings, RATES), small_model()
    reference = torch.optim.AdamW(theirs.parameters(), betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, foreach=False)
    torch.manual_seed(1)
    for rate in RATES:
        for parameter in theirs.parameters():
            parameter.grad = torch.randn_like(parameter)
        reference.param_groups[0]["lr"] = rate
        reference.step()
    for mine, other in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-13)


def test_the_two_variants_differ_by_far() -> None:
    with_it, without = (updates(AdamW(bias_correction=flag), RATES) for flag in (True, False))
    assert float((with_it[0].weight - without[0].weight).detach().abs().max()) > 1e-3


def test_decay_acts_on_matrices_only_unless_asked() -> None:
    model = small_model()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = AdamW(weight_decay=0.1).build(model).param_groups
    assert [group["decay"] for group in groups] == [0.1, 0.0]
    assert [sorted(names[id(p)] for p in group["params"]) for group in groups] == [
        ["0.weight", "2.weight"],
        ["0.bias", "1.bias", "1.weight", "2.bias"],
    ]
    (everything,) = AdamW(weight_decay=0.1, decay_all=True).build(model).param_groups
    assert len(everything["params"]) == 6 and everything["decay"] == 0.1


def test_frozen_parameters_are_left_out() -> None:
    model = small_model()
    model[0].weight.requires_grad = False
    assert sum(len(group["params"]) for group in AdamW().build(model).param_groups) == 5


@pytest.mark.parametrize("bias_correction", [True, False])
def test_a_rate_of_zero_changes_no_weight_but_moves_the_moments(bias_correction: bool) -> None:
    settings = AdamW(bias_correction=bias_correction, weight_decay=0.1)
    model, before = updates(settings, [0.0]), small_model()
    for after, start in zip(model.parameters(), before.parameters()):
        assert torch.equal(after, start)
    later, fresh = updates(settings, [0.0, 1e-2]), updates(settings, [1e-2])
    assert not torch.equal(later[0].weight, fresh[0].weight)


class Deep(nn.Module):
    """The names of a model of three blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.embeddings = nn.Embedding(3, 2)
        self.backbone.project = nn.Linear(2, 2)
        self.backbone.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
        self.backbone.pooler = nn.Linear(2, 2)
        self.heads = nn.ModuleDict({"classification": nn.Linear(2, 2)})


def test_layer_decay_slows_each_block_against_the_one_above_as_in_the_electra_code() -> None:
    model = Deep()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    settings = AdamW(layer_decay=0.8, weight_decay=0.1)
    optimizer = settings.build(model)
    settings.prepare(optimizer, 1, 1e-3)
    exponent = {
        names[id(parameter)]: round(math.log(group["lr"] / 1e-3, 0.8), 6)
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert {name: value for name, value in exponent.items() if name.endswith("weight")} == {
        "heads.classification.weight": 0,
        "backbone.pooler.weight": 1,
        "backbone.blocks.2.weight": 2,
        "backbone.blocks.1.weight": 3,
        "backbone.blocks.0.weight": 4,
        "backbone.project.weight": 5,
        "backbone.embeddings.weight": 5,
    }
    assert all(exponent[name] == exponent[name.replace("bias", "weight")] for name in exponent)
    assert {
        (names[id(p)].rsplit(".")[-1], group["decay"]) for group in optimizer.param_groups for p in group["params"]
    } == {
        ("weight", 0.1),
        ("bias", 0.0),
    }


@pytest.mark.parametrize("bias_correction", [True, False])
def test_with_layer_decay_the_first_step_of_every_parameter_is_that_share_of_the_rate(bias_correction: bool) -> None:
    model = Deep().double()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    settings = AdamW(layer_decay=0.5, weight_decay=0.1, bias_correction=bias_correction, eps=1e-12)
    optimizer = settings.build(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    settings.prepare(optimizer, 1, 1e-2)
    optimizer.step()
    size = 1.0 if bias_correction else 0.1 / math.sqrt(0.001)
    for name, share in (("heads.classification.weight", 1), ("backbone.blocks.1.weight", 1 / 8)):
        step = before[name] - dict(model.named_parameters())[name]
        torch.testing.assert_close(step, 1e-2 * share * (size + 0.1 * before[name]), rtol=1e-9, atol=0)


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_a_layer_decay_that_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(InputError, match=f"layer_decay is {share}"):
        AdamW(layer_decay=share)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"beta1": 1.0}, "beta1 is 1.0"),
        ({"beta2": -0.1}, "beta2 is -0.1"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AdamW(**settings)
