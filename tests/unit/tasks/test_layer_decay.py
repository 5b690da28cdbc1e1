"""Fine-tuning with a rate for each layer."""

import dataclasses
from pathlib import Path

import pytest

import elision
from elision.errors import InputError
from elision.tasks.classify import finetune_classifier
from elision.train.checkpoint import read_weights
from tests.unit.tasks import toy

ONE_STEP = dataclasses.replace(toy.SETTINGS, steps=1, weight_decay=0.0, learning_rate=1e-2)


def test_each_block_moves_less_than_the_one_above(tmp_path: Path) -> None:
    base = toy.untrained(tmp_path / "base", "bert-tiny")
    settings = dataclasses.replace(ONE_STEP, layer_decay=0.5)
    run = finetune_classifier(base, toy.rows(16, 1), toy.rows(8, 2), tmp_path / "run", settings)
    before, after = read_weights(base), elision.load(run.folder).model.state_dict()
    # The first step of Adam is as long as the rate, wherever there is a gradient.
    moved = {
        name: float((after[name] - before[name]).abs().max())
        for name in ("backbone.pooler.weight", *(f"backbone.blocks.{n}.feedforward.output.weight" for n in (1, 0)))
    }
    assert list(moved.values()) == pytest.approx([1e-2 / 2, 1e-2 / 4, 1e-2 / 8], rel=1e-3)


def test_layers_that_share_their_weights_have_no_rates_of_their_own(tmp_path: Path) -> None:
    base = toy.untrained(tmp_path / "base", "albert-tiny")
    settings = dataclasses.replace(ONE_STEP, layer_decay=0.8)
    with pytest.raises(InputError, match="the blocks of albert-tiny share their weights"):
        finetune_classifier(base, toy.rows(16, 1), toy.rows(8, 2), tmp_path / "run", settings)
