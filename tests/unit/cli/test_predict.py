"""`elision predict` as a user types it."""

import csv
import io
import json
from pathlib import Path

import pytest

from elision.cli import main
from elision.tasks.classify import finetune_classifier
from tests.unit.tasks import toy


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("colours")
    base = toy.untrained(folder / "model", "bert-tiny")
    return str(finetune_classifier(base, toy.rows(80, 1), toy.rows(20, 2), folder / "run", toy.SETTINGS).folder)


def test_texts_as_arguments_are_labelled_on_standard_output(colours: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--model", colours, "ba do ba", "ki lu"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["text"], line["label"]) for line in lines] == [("ba do ba", "red"), ("ki lu", "blue")]
    assert all(0.5 < line["probability"] <= 1 for line in lines)


def test_more_rows_than_fit_in_memory_at_a_time_keep_their_order(
    colours: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = toy.rows(1500, 5)
    source = tmp_path / "rows.csv"
    source.write_text("id,text\n" + "".join(f"{n},{row.text}\n" for n, row in enumerate(rows)), encoding="utf-8")
    out = tmp_path / "labelled.csv"
    assert main(["predict", "--model", colours, "--data", str(source), "--out", str(out), "--probabilities"]) == 0
    found = list(csv.DictReader(out.open(encoding="utf-8")))
    assert [line["text"] for line in found] == [row.text for row in rows]
    assert [line["label"] for line in found] == [row.label for row in rows]
    assert all(float(line[f"probability of {line['label']}"]) == float(line["probability"]) for line in found)


def test_standard_input_is_read_line_by_line(
    colours: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"ba ba\n\nlu ki\n")))
    assert main(["predict", "--model", colours, "--data", "-", "--format", "tsv"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["text", "label", "probability"]
    assert [line[:2] for line in lines[1:]] == [["ba ba", "red"], ["lu ki", "blue"]]


def test_what_cannot_work_is_said_and_nothing_is_left_behind(
    colours: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "ba"}\n{"text": 3}\n')
    out = tmp_path / "out.jsonl"
    assert main(["predict", "--model", colours, "--data", str(bad), "--out", str(out)]) == 2
    assert "bad.jsonl:2: the text (column 'text') is 3" in capsys.readouterr().err
    assert not out.exists() and sorted(p.name for p in tmp_path.iterdir()) == ["bad.jsonl"]
    assert main(["predict", "--model", colours]) == 2
    assert main(["predict", "--model", str(Path(colours).parent / "model"), "ba"]) == 2
    assert "is no run of `elision finetune`" in capsys.readouterr().err
