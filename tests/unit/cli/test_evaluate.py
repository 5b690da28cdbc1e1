"""`elision evaluate` as a user types it."""

import json
from pathlib import Path

import pytest

from elision.cli import main
from elision.data.store import Store
from elision.tasks.task import Task, save_task
from tests.unit.tasks import toy


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.untrained(tmp_path_factory.mktemp("bert") / "model", "bert-tiny")


def test_the_table_shows_the_model_beside_its_baselines(
    bert: Path, wordpiece_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(bert), "--data", str(wordpiece_store.path), "--examples", "20"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "masked tokens",
        "next sentence",
        "unigram",
        "trigram",
        "majority",
        "Witten-Bell",
        "Pseudo-perplexity",
    ):
        assert words in shown


def test_json_holds_the_same_numbers(bert: Path, wordpiece_store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", str(bert), "--data", str(wordpiece_store.path), "--examples", "20", "--json"]
    assert main(command) == 0
    values = json.loads(capsys.readouterr().out)
    assert [(line["term"], line["model"]) for line in values["lines"]] == [
        ("mlm", "model"), ("mlm", "unigram"), ("mlm", "trigram"), ("nsp", "model"), ("nsp", "majority"),
    ]  # fmt: skip
    assert main([*command, "--no-baselines"]) == 0
    assert len(json.loads(capsys.readouterr().out)["lines"]) == 3


def test_other_tokenizers_other_splits_and_classifiers_are_refused(
    bert: Path, wordpiece_store: Store, bytes_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(bert), "--data", str(bytes_store.path)]) == 2
    assert "another tokenizer" in capsys.readouterr().err
    assert main(["evaluate", str(bert), "--data", str(wordpiece_store.path), "--split", "test"]) == 2
    assert "no split 'test'" in capsys.readouterr().err
    save_task(Task("regression", (), False, 24, "pearson"), tmp_path)
    assert main(["evaluate", str(tmp_path), "--data", str(bytes_store.path)]) == 2
    assert "predicts no tokens" in capsys.readouterr().err
