"""`elision finetune classify` as a user types it."""

import json
from pathlib import Path

import pytest

from elision.cli import main
from tests.unit.tasks import toy

QUICK = ["--epochs", "3", "--batch-size", "8", "--learning-rate", "3e-3", "--precision", "float32"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.untrained(tmp_path_factory.mktemp("bert") / "model", "bert-tiny")


def table(path: Path, num_rows: int, seed: int) -> str:
    rows = toy.rows(num_rows, seed)
    path.write_text("sentence\tlabel\n" + "".join(f"{row.text}\t{row.label}\n" for row in rows), encoding="utf-8")
    return str(path)


def classify(bert: Path, folder: Path, *more: str) -> int:
    data, valid = table(folder / "train.tsv", 80, 1), table(folder / "dev.tsv", 20, 2)
    out = str(folder / "run")
    return main(["finetune", "classify", "--model", str(bert), "--data", data, "--valid", valid, "--out", out, *more])


def test_a_run_is_written_with_its_task_and_results(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(bert, tmp_path, *QUICK) == 0
    said = capsys.readouterr().err
    assert "classification of 2 classes (blue, red)" in said and "accuracy of the commonest class" in said
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["metrics"]["accuracy"] > 0.9 and [line["label"] for line in results["by_class"]] == ["blue", "red"]
    folders = list((tmp_path / "run" / "checkpoints").iterdir())
    assert folders and all((folder / "task.json").is_file() for folder in folders)
    # The same command again finds the run finished and says the same.
    assert classify(bert, tmp_path, *QUICK) == 0
    assert json.loads((tmp_path / "run" / "results.json").read_text())["metrics"] == results["metrics"]


def test_several_seeds_give_runs_of_their_own_and_a_mean(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(bert, tmp_path, *QUICK, "--seeds", "2") == 0
    assert "mean ± std" in capsys.readouterr().err
    accuracy = json.loads((tmp_path / "run" / "seeds.json").read_text())["metrics"]["accuracy"]
    each = [
        json.loads((tmp_path / "run" / f"seed-{n}" / "results.json").read_text())["metrics"]["accuracy"] for n in (1, 2)
    ]
    assert accuracy["values"] == each and accuracy["mean"] == pytest.approx(sum(each) / 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["finetune"], "say what to learn"),
        (["finetune", "clasify"], "Did you mean 'classify'?"),
        (
            ["finetune", "classify", "--model", "nowhere", "--data", "no.tsv", "--valid", "x", "--out", "y"],
            "no file no.tsv",
        ),
    ],
)
def test_what_cannot_work_is_said_without_a_traceback(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said


def test_a_folder_that_is_no_run_is_left_alone(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    assert classify(bert, tmp_path, *QUICK) == 2
    assert "holds files that are no run" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["finetune", "classify"], ["predict"], ["evaluate"]])
def test_help_teaches_by_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([*command, "--help"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out.count(f"elision {' '.join(command)} ") >= 2
