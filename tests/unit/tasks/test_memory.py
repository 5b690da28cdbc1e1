"""A model that remembers, measured with another memory than it was trained with."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import elision
from elision import cli
from elision.data.segment import Streams
from elision.data.store import Store
from elision.errors import InputError
from elision.recipe import Recipe
from elision.tasks.evaluate import evaluate_model
from elision.tasks.memory import set_memory
from tests import tiny
from tests.unit.tasks import toy

StoreOf = Callable[[Recipe], Store]


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.untrained(tmp_path_factory.mktemp("transformer-xl") / "model", "transformer-xl-tiny")


def test_an_evaluation_may_remember_more_than_training_did(
    untrained: Path, store_of: StoreOf, capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_of(tiny.recipe("transformer-xl-tiny"))
    loaded = elision.load(untrained)
    trained_with = loaded.recipe.backbone

    def loss() -> float:
        evaluation = evaluate_model(loaded, store, "train", num_examples=64, baselines=False, precision="float32")
        return evaluation.lines[0].loss

    before = loss()
    set_memory(loaded)
    assert loaded.recipe.backbone == trained_with and loss() == before
    set_memory(loaded, memory_length=40, same_length=True, clamp_distance=30, segment_length=5)
    assert loaded.model.backbone.settings.memory_length == 40
    assert loaded.recipe.segmenter == Streams(max_length=5)
    longer = loss()
    assert longer != before
    command = ["evaluate", str(untrained), "--data", str(store.path), "--split", "train", "--examples", "64", "--json"]
    longer_command = [*command, "--memory-length", "40", "--same-length", "--clamp-distance", "30"]
    for flags, expected in ((command, before), ([*longer_command, "--segment-length", "5"], longer)):
        assert cli.main([*flags, "--no-baselines"]) == 0
        line = json.loads(capsys.readouterr().out)["lines"][0]
        assert line["loss"] == pytest.approx(expected, rel=1e-6)
        assert line["bits_per_byte"] > 0


def test_a_model_without_a_memory_cannot_be_given_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = toy.untrained(tmp_path / "model", "gpt2-tiny")
    with pytest.raises(InputError, match="memory_length cannot be set for gpt2-tiny: Transformer has no such setting"):
        set_memory(elision.load(folder), memory_length=3)
    assert cli.main(["evaluate", str(folder), "--data", str(tmp_path), "--memory-length", "3"]) == 2
    assert "memory_length cannot be set" in " ".join(capsys.readouterr().err.split())
