"""Clipping, of the whole gradient and part by part."""

import math

import pytest
import torch
from torch import nn

from elision.train.clipping import clip_, parts_of


def with_gradients() -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    for parameter, gradient in zip(parameters, ([3.0, 0.0], [4.0])):
        parameter.grad = torch.tensor(gradient)
    return parameters


def test_a_long_gradient_is_scaled_to_the_limit_and_its_norm_returned() -> None:
    parameters = with_gradients()
    assert float(clip_([parameters], 1.0)) == pytest.approx(5.0)
    assert math.sqrt(sum(float(p.grad.square().sum()) for p in parameters)) == pytest.approx(1.0, rel=1e-5)
    assert float(clip_([parameters], 2.0)) == pytest.approx(1.0, rel=1e-5)
    assert parameters[1].grad.item() == pytest.approx(0.8, rel=1e-5)


def test_a_limit_of_zero_means_no_clipping() -> None:
    parameters = with_gradients()
    assert float(clip_([parameters], 0.0)) == pytest.approx(5.0)
    assert parameters[1].grad.item() == 4.0


def test_apart_each_part_has_the_limit_to_itself() -> None:
    long, short = with_gradients()
    short.grad = torch.tensor([0.5])
    assert float(clip_([[long], [short]], 1.0)) == pytest.approx(math.sqrt(9.25))
    assert long.grad.tolist() == pytest.approx([1.0, 0.0], rel=1e-5)
    assert short.grad.item() == 0.5


def test_apart_means_the_backbone_and_each_head() -> None:
    model = nn.ModuleDict(
        {
            "backbone": nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)),
            "heads": nn.ModuleDict({"mlm": nn.Linear(2, 3), "rtd": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))}),
        }
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    parts = [{names[id(parameter)].rsplit(".", 1)[0] for parameter in part} for part in parts_of(model, True)]
    assert parts == [{"backbone.0", "backbone.1"}, {"heads.mlm"}, {"heads.rtd.0", "heads.rtd.1"}]
    assert [len(part) for part in parts_of(model, False)] == [10]
    model["backbone"].requires_grad_(False)
    assert [len(part) for part in parts_of(model, True)] == [2, 4]
