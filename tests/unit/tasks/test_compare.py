"""Models side by side: sizes, speeds and scores at the same places."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import elision
from elision.cli import main
from elision.data.store import Store
from elision.errors import InputError
from elision.model.language_model import LanguageModel
from elision.recipe import Recipe
from elision.tasks.classify import finetune_classifier
from elision.tasks.compare import compare_models
from elision.train.checkpoint import write_weights
from elision.train.pretrain import loader_of
from tests import tiny
from tests.unit.tasks import toy


def save(recipe: Recipe, store: Store, folder: Path) -> Path:
    folder.mkdir(parents=True)
    torch.manual_seed(len(recipe.name))
    recipe.save(folder / "recipe.json")
    store.tokenizer.save(folder / "tokenizer")
    write_weights(folder, LanguageModel(recipe.backbone, recipe.objectives, store.tokenizer.vocabulary.size))
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return tiny.text_store(tmp_path_factory.mktemp("text") / "store", tiny.WORDPIECE, validation=0.4)


@pytest.fixture(scope="module")
def teacher(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny.recipe("bert-tiny", num_layers=6), store, tmp_path_factory.mktemp("models") / "teacher")


@pytest.fixture(scope="module")
def student(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tiny.recipe("distilbert-tiny"), store, tmp_path_factory.mktemp("models") / "student")


def test_sizes_are_counted_and_the_smaller_model_is_faster(teacher: Path, student: Path) -> None:
    loaded = [elision.load(path) for path in (teacher, student)]
    found = compare_models(loaded, rows=4, length=32, seconds=0.3)
    assert [line.num_parameters for line in found] == [model.model.num_parameters() for model in loaded]
    assert [line.name for line in found] == [str(teacher), str(student)]
    assert found[1].tokens_per_second > 1.2 * found[0].tokens_per_second
    assert all(line.bits_per_byte is None and line.score is None for line in found)


def test_held_out_scores_are_those_of_the_same_left_out_tokens(teacher: Path, student: Path, store: Store) -> None:
    loaded = [elision.load(path) for path in (teacher, student)]
    found = compare_models(loaded, store, num_examples=12, rows=1, length=8, seconds=0.01)
    split = store.split("validation")
    # The first model's noise decides, for both.
    batches = list(loader_of(loaded[0].recipe, split, store.tokenizer.vocabulary, 16).in_order(12))
    for line, model in zip(found, loaded, strict=True):
        nats, right, count = 0.0, 0, 0
        for batch in batches:
            logits, targets = model.model.logits(batch).detach(), batch.targets
            at = targets >= 0
            nats += float(F.cross_entropy(logits[at], targets[at], reduction="sum"))
            right += int((logits[at].argmax(-1) == targets[at]).sum())
            count += int(at.sum())
        bits = nats / count * split.num_tokens / split.num_bytes / torch.log(torch.tensor(2.0))
        assert line.bits_per_byte == pytest.approx(float(bits), rel=1e-5)
        assert line.accuracy == pytest.approx(right / count)


def test_models_that_predict_other_things_are_refused(teacher: Path, store: Store, tmp_path: Path) -> None:
    gpt2 = tiny.recipe("gpt2-tiny")
    other = save(dataclasses.replace(gpt2, tokenizer=tiny.WORDPIECE), store, tmp_path / "gpt2")
    with pytest.raises(InputError, match=r"predicts next tokens and .* masked ones"):
        compare_models([elision.load(teacher), elision.load(other)], store, rows=1, length=8, seconds=0.01)


def test_the_command_shows_fine_tuned_models_with_their_scores(
    tmp_path: Path, teacher: Path, student: Path, store: Store, capsys: pytest.CaptureFixture
) -> None:
    quick = dataclasses.replace(toy.SETTINGS, steps=20)
    for name, path in (("large", teacher), ("small", student)):
        finetune_classifier(path, toy.rows(40, 1), toy.rows(20, 2), tmp_path / name, quick)
    paths = [str(tmp_path / "large"), str(tmp_path / "small")]
    fast = ["--rows", "1", "--length", "8", "--seconds", "0.01"]
    assert main(["compare", *paths, *fast, "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert [line["name"] for line in lines] == paths
    for line, path in zip(lines, paths, strict=True):
        written = json.loads((Path(path) / "results.json").read_text())
        assert line["metric"] == "accuracy" and line["score"] == written["metrics"]["accuracy"]
    assert main(["compare", *paths, *fast]) == 0
    assert "accuracy" in capsys.readouterr().out


def test_the_command_compares_on_a_store_and_wants_two_models(
    teacher: Path, student: Path, store: Store, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["--rows", "1", "--length", "8", "--seconds", "0.01", "--examples", "8"]
    assert main(["compare", str(teacher), str(student), "--data", str(store.path), *arguments]) == 0
    assert "bits/byte" in capsys.readouterr().out
    assert main(["compare", str(teacher)]) == 2
    assert "name at least two models" in capsys.readouterr().err
