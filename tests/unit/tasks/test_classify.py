"""Fine-tuning, from rows to a classifier."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import elision
from elision.errors import InputError
from elision.tasks.classifier import Classifier, scores_of
from elision.tasks.classify import finetune_classifier, prepare
from elision.tasks.finetune import Result
from elision.tasks.labelled import Row
from elision.train import checkpoint
from tests.unit.tasks import toy


@pytest.fixture(scope="module", params=["bert-tiny", "gpt2-tiny"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.untrained(tmp_path_factory.mktemp("base") / "model", request.param)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.untrained(tmp_path_factory.mktemp("bert") / "model", "bert-tiny")


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return finetune_classifier(
        base, toy.rows(80, 1), toy.rows(30, 2), tmp_path_factory.mktemp("run") / "colours", toy.SETTINGS
    )


def test_separable_classes_are_learned_to_the_last_row(trained: Result) -> None:
    assert trained.metrics["accuracy"] == 1.0 and trained.metrics["f1"] == 1.0
    assert trained.task.labels == ("blue", "red") and trained.task.type == "classification"
    train, valid = ([row.label for row in toy.rows(*drawn)] for drawn in ((80, 1), (30, 2)))
    assert trained.baseline.value == valid.count(max(set(train), key=train.count)) / 30


def test_a_loaded_classifier_labels_new_text_as_the_run_did(trained: Result) -> None:
    classifier = Classifier.load(trained.folder)
    fresh = toy.rows(40, 3)
    found = list(classifier.predict(fresh))
    assert [prediction.label for prediction in found] == [row.label for row in fresh]
    assert all(abs(sum(prediction.probabilities) - 1) < 1e-5 for prediction in found)


def test_packed_and_unpacked_examples_get_the_same_scores(trained: Result, base: Path) -> None:
    prepared = prepare(base, toy.rows(10, 1), toy.rows(50, 2), toy.SETTINGS)
    model = Classifier.load(trained.folder).model.double()
    packed = scores_of(model, prepared.held_out.plan)
    alone = scores_of(model, prepared.held_out.plan, packing=False)
    torch.testing.assert_close(packed, alone, rtol=1e-6, atol=1e-6)
    assert packed.std(0).min() > 0.1


def test_scores_of_pairs_are_learned(base: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(toy.SETTINGS, epochs=25)
    result = finetune_classifier(base, toy.pairs(80, 1), toy.pairs(30, 2), tmp_path / "run", settings)
    assert result.task.type == "regression" and result.task.pair and result.task.labels == ()
    assert result.metrics["pearson"] > 0.95
    assert result.metrics["mean_squared_error"] < result.baseline.value / 4
    predicted = next(Classifier.load(tmp_path / "run").predict([("me no", "ba ba ba ba")]))
    assert predicted.label is None and abs(predicted.score - 4.5) < 1.5


def test_the_head_of_a_causal_model_has_no_bias_and_a_bidirectional_one_has(trained: Result) -> None:
    recipe = json.loads((trained.folder / "recipe.json").read_text())
    names = checkpoint.read_weights(checkpoint.find(trained.folder)).keys()
    causal = recipe["backbone"]["visibility"] == "causal"
    assert ("heads.classification.output.bias" in names) is not causal
    assert "heads.classification.output.weight" in names


def test_an_interrupted_fine_tuning_ends_with_the_weights_of_an_undisturbed_one(bert: Path, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    settings = dataclasses.replace(toy.SETTINGS, epochs=4)

    def kill(progress: object) -> None:
        if progress.split == "validation" and progress.step > 25:
            raise Killed

    train, valid = toy.rows(80, 1), toy.rows(30, 2)
    with pytest.raises(Killed):
        finetune_classifier(bert, train, valid, tmp_path / "killed", settings, report=kill)
    stopped = checkpoint.read_index(tmp_path / "killed")["last"]
    assert stopped is not None and int(stopped.removeprefix("step-")) < 40
    again = finetune_classifier(bert, train, valid, tmp_path / "killed", settings)
    undisturbed = finetune_classifier(bert, train, valid, tmp_path / "whole", settings)
    ours, theirs = (checkpoint.read_weights(checkpoint.find(r.folder, "last")) for r in (again, undisturbed))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.metrics == undisturbed.metrics and again.best_step == undisturbed.best_step


def test_going_on_with_other_settings_or_rows_is_refused_by_name(bert: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(toy.SETTINGS, steps=2)
    train, valid = toy.rows(20, 1), toy.rows(10, 2)
    finetune_classifier(bert, train, valid, tmp_path / "run", settings)
    with pytest.raises(InputError, match=r"batch_size 8, now it is 4"):
        finetune_classifier(bert, train, valid, tmp_path / "run", dataclasses.replace(settings, batch_size=4))
    with pytest.raises(InputError, match="another model or on other rows"):
        finetune_classifier(bert, train[1:], valid, tmp_path / "run", settings)


def test_pretrained_weights_are_where_training_starts_and_from_scratch_they_are_not(bert: Path, tmp_path: Path) -> None:
    pretrained = elision.load(bert).model.backbone.state_dict()
    settings = dataclasses.replace(toy.SETTINGS, steps=1, learning_rate=1e-9)
    moved = {}
    for scratch in (False, True):
        chosen = dataclasses.replace(settings, from_scratch=scratch)
        result = finetune_classifier(bert, toy.rows(20, 1), toy.rows(10, 2), tmp_path / str(scratch), chosen)
        weights = checkpoint.read_weights(checkpoint.find(result.folder))
        moved[scratch] = max(float((weights[f"backbone.{n}"] - v).abs().max()) for n, v in pretrained.items())
    assert moved[False] < 1e-6 and moved[True] > 1e-2


def test_a_frozen_backbone_does_not_move_while_its_head_does(bert: Path, tmp_path: Path) -> None:
    pretrained = elision.load(bert).model.backbone.state_dict()
    settings = dataclasses.replace(toy.SETTINGS, steps=4, freeze_backbone=True)
    result = finetune_classifier(bert, toy.rows(20, 1), toy.rows(10, 2), tmp_path / "run", settings)
    last = checkpoint.read_weights(checkpoint.find(result.folder, "last"))
    assert all(torch.equal(last[f"backbone.{name}"], value) for name, value in pretrained.items())
    # Four updates of Adam at up to 3e-3 each move every weight by more than it takes to notice.
    assert float(last["heads.classification.output.bias"].abs().max()) > 1e-3


def test_a_fine_tuned_model_can_be_fine_tuned_again(bert: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(toy.SETTINGS, steps=3)
    first = finetune_classifier(bert, toy.rows(20, 1), toy.rows(10, 2), tmp_path / "first", settings)
    second = finetune_classifier(first.folder, toy.pairs(20, 1), toy.pairs(10, 2), tmp_path / "second", settings)
    assert second.task.type == "regression"


def test_a_label_that_training_never_saw_is_refused_with_file_and_line(bert: Path, tmp_path: Path) -> None:
    valid = [Row("ba", "green", where="dev.tsv:7")]
    with pytest.raises(InputError, match=r"dev\.tsv:7: the label 'green' is none of the training data's \(blue, red\)"):
        finetune_classifier(bert, toy.rows(20, 1), valid, tmp_path / "run", toy.SETTINGS)


def test_pairs_and_single_texts_together_are_refused(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pairs and single texts are mixed"):
        finetune_classifier(bert, toy.rows(20, 1), [Row("a", "red", pair="b")], tmp_path / "run", toy.SETTINGS)
    with pytest.raises(InputError, match="reads single texts"):
        settings = dataclasses.replace(toy.SETTINGS, steps=1)
        done = finetune_classifier(bert, toy.rows(20, 1), toy.rows(10, 2), tmp_path / "single", settings)
        list(Classifier.load(done.folder).predict([("a", "b")]))


def test_rows_may_be_tuples_or_mappings(bert: Path) -> None:
    rows = toy.rows(20, 1)
    forms = [rows, [(row.text, row.label) for row in rows], [{"text": row.text, "label": row.label} for row in rows]]
    assert len({prepare(bert, form, form, toy.SETTINGS).fingerprint for form in forms}) == 1
    pairs = toy.pairs(20, 1)
    forms = [pairs, [(row.text, row.pair, row.label) for row in pairs]]
    assert len({prepare(bert, form, form, toy.SETTINGS).fingerprint for form in forms}) == 1


def test_a_length_beyond_the_position_table_is_refused(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_length is 33: it must be from 5 to 32"):
        finetune_classifier(
            bert, toy.rows(20, 1), toy.rows(9, 2), tmp_path / "run", dataclasses.replace(toy.SETTINGS, max_length=33)
        )
