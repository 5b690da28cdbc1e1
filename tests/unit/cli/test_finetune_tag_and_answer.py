"""`elision finetune tag` and `elision finetune answer` as a user types them, and `elision predict` on what they made."""

import json
from pathlib import Path

import pytest
import torch

import elision
from elision.cli import main
from elision.data.store import Store
from elision.train.pretrain import prepare_run
from tests import tiny
from tests.unit.tasks import toy, toy_tags

QUICK = ["--batch-size", "8", "--learning-rate", "3e-3", "--precision", "float32"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.untrained(tmp_path_factory.mktemp("bert") / "model", "bert-tiny")


def conll(path: Path, num_texts: int, seed: int) -> str:
    texts = toy_tags.texts(num_texts, seed)
    blocks = ("".join(f"{token} {tag}\n" for token, tag in zip(text.tokens, text.tags)) for text in texts)
    path.write_text("\n".join(blocks), encoding="utf-8")
    return str(path)


def squad(path: Path, num_questions: int, seed: int) -> str:
    paragraphs = [
        {
            "context": row.context,
            "qas": [
                {
                    "id": row.id,
                    "question": row.question,
                    "answers": [{"text": each.text, "answer_start": each.begin} for each in row.answers],
                    "is_impossible": not row.answers,
                }
            ],
        }
        for row in toy_tags.questions(num_questions, seed, answerable=0.7)
    ]
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def names(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("names")
    data, valid = conll(folder / "train.conll", 80, 1), conll(folder / "dev.conll", 20, 2)
    command = ["finetune", "tag", "--model", str(bert), "--data", data, "--valid", valid, "--out", str(folder / "run")]
    assert main([*command, *QUICK, "--epochs", "5"]) == 0
    return str(folder / "run")


@pytest.fixture(scope="module")
def answers(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("answers")
    command = ["finetune", "answer", "--model", str(bert), "--data", squad(folder / "train.json", 130, 1)]
    assert main([*command, "--out", str(folder / "run"), *QUICK, "--epochs", "12", "--stride", "16"]) == 0
    return str(folder / "run")


def test_a_tagging_run_says_what_it_learns_and_writes_its_results(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = conll(tmp_path / "train.conll", 40, 1)
    command = ["finetune", "tag", "--model", str(bert), "--data", data, "--out", str(tmp_path / "run"), *QUICK]
    assert main([*command, "--steps", "12", "--seeds", "2", "--hold-out", "0.25"]) == 0
    said = capsys.readouterr().err
    assert "tagging of 5 tags (O, B-LOC, I-LOC, B-PER, I-PER)" in said and "f1 of each word's commonest tag" in said
    assert "30 texts" in said and "held out of it: 10 texts" in said and "mean ± std" in said
    results = json.loads((tmp_path / "run" / "seed-1" / "results.json").read_text())
    assert results["task"] == "tagging" and {"f1", "precision", "recall", "accuracy"} <= results["metrics"].keys()
    assert {line["label"] for line in results["by_class"]} == {"LOC", "PER"} and results["num_valid"] == 10
    assert main(["predict", "--model", str(tmp_path / "run"), "ba"]) == 2
    assert "holds the runs of several seeds" in capsys.readouterr().err


def test_tags_are_predicted_as_json_lines_or_columns(
    names: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "--model", names, "me ba do su", "ki lu"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["tags"] for line in lines] == [["O", "B-PER", "I-PER", "O"], ["B-LOC", "I-LOC"]]
    assert [(each["text"], each["label"], each["start"], each["end"]) for each in lines[0]["entities"]] == [
        ("ba do", "PER", 3, 8)
    ]
    source, out = conll(tmp_path / "test.conll", 15, 3), tmp_path / "out.conll"
    assert main(["predict", "--model", names, "--data", source, "--out", str(out)]) == 0
    assert out.read_text().split() == Path(source).read_text().split()
    assert main(["predict", "--model", names, "--format", "json", "ba"]) == 2
    assert "tags are written as jsonl or conll" in capsys.readouterr().err


def test_answers_are_predicted_for_arguments_and_for_files_as_squads_scripts_read_them(
    answers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = json.loads((Path(answers) / "results.json").read_text())
    assert results["task"] == "answering" and results["metrics"]["f1"] > results["baseline"]["value"]
    assert json.loads((Path(answers) / "task.json").read_text())["windows"]["stride"] == 16
    assert main(["predict", "--model", answers, "ve", "me ba ki do su", "--top", "2"]) == 0
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert line["answer"] == "ki" and (line["start"], line["end"]) == (6, 8) and len(line["others"]) == 1
    source, out = squad(tmp_path / "dev.json", 30, 9), tmp_path / "out.json"
    assert main(["predict", "--model", answers, "--data", source, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    truth = {row.id: row.answers[0].text if row.answers else "" for row in toy_tags.questions(30, 9, answerable=0.7)}
    assert found.keys() == truth.keys()
    assert sum(found[key] == truth[key] for key in truth) > 20
    assert main(["predict", "--model", answers, "ve"]) == 2
    assert "give a question and its context" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["tag", "answer"])
def test_help_teaches_by_example(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["finetune", kind, "--help"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out.count(f"elision finetune {kind} ") >= 2
    assert main(["finetune", "--help"]) == 0
    assert kind in capsys.readouterr().out


def test_what_cannot_be_read_is_said_without_a_traceback(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.conll"
    bad.write_text("Ann\n")
    common = ["--model", str(bert), "--out", str(tmp_path / "run")]
    assert main(["finetune", "tag", "--data", str(bad), *common]) == 2
    assert "bad.conll:1: 'Ann' is no word with its tag" in capsys.readouterr().err
    assert main(["finetune", "answer", "--data", str(tmp_path / "no.json"), *common]) == 2
    assert "There is no file" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_exported_and_imported_again_a_tagger_still_tags(
    names: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", names, str(tmp_path / "hf")]) == 0
    assert main(["import", str(tmp_path / "hf"), str(tmp_path / "back")]) == 0
    said = capsys.readouterr().err
    assert "TokenClassification" in said and "fine-tuned for tagging (O, B-LOC, I-LOC, B-PER, I-PER)" in said
    found = []
    for model in (names, str(tmp_path / "hf"), str(tmp_path / "back")):
        assert main(["predict", "--model", model, "me ba do su ki lu"]) == 0
        found.append(json.loads(capsys.readouterr().out)["tags"])
    assert found[0] == found[1] == found[2] == ["O", "B-PER", "I-PER", "O", "B-LOC", "I-LOC"]


def test_pretraining_goes_on_from_the_backbone_of_a_fine_tuned_model(
    names: str, wordpiece_store: Store, tmp_path: Path
) -> None:
    tagger = elision.load(names)
    run = prepare_run(tiny.recipe("bert-tiny"), wordpiece_store, tmp_path / "run", init_from=Path(names))
    assert set(run.model.heads) == {"mlm", "nsp"}
    for name, value in tagger.model.backbone.state_dict().items():
        assert torch.equal(run.model.backbone.state_dict()[name], value), name
