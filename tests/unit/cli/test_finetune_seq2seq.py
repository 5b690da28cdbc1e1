"""`elision finetune seq2seq` as a user types it, and `elision predict`, `evaluate` on what it made."""

import json
from pathlib import Path

import pytest

from elision.cli import main
from tests import tiny
from tests.unit.tasks import toy_pairs

QUICK = ["--batch-size", "8", "--learning-rate", "3e-3", "--precision", "float32", "--eval-texts", "4"]


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_pairs.untrained(tmp_path_factory.mktemp("bart") / "model", "bart")


def aligned(folder: Path, name: str, num: int, seed: int) -> list[str]:
    pairs = toy_pairs.pairs(num, seed)
    paths = [folder / f"{name}.aa", folder / f"{name}.bb"]
    paths[0].write_text("".join(f"{pair.source}\n" for pair in pairs), encoding="utf-8")
    paths[1].write_text("".join(f"{pair.targets[0]}\n" for pair in pairs), encoding="utf-8")
    return [str(path) for path in paths]


@pytest.fixture(scope="module")
def run(bart: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train, valid, test = (aligned(folder, name, num, num) for name, num in (("train", 64), ("dev", 8), ("test", 6)))
    out = folder / "run"
    arguments = ["finetune", "seq2seq", "--model", str(bart), "--data", *train, "--valid", *valid, "--test", *test]
    assert main([*arguments, "--out", str(out), "--decoding.num-beams", "2", "--epochs", "10", *QUICK]) == 0
    return out


def test_a_run_shows_scores_signatures_rivals_and_samples(
    bart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, valid = aligned(tmp_path, "train", 40, 1), aligned(tmp_path, "dev", 6, 2)
    arguments = ["--model", str(bart), "--data", *train, "--valid", *valid, "--out", str(tmp_path / "run")]
    assert main(["finetune", "seq2seq", *arguments, "--epochs", "3", *QUICK]) == 0
    said = capsys.readouterr().err
    for words in (
        "train.aa + ", "40 pairs", "held out, 6 pairs", "rougeL", "copying", "dictionary", "picks the best checkpoint",
        "BLEU|nrefs:1|case:mixed|eff:no|tok:13a", "chrF2|", "ROUGE-1,2,L F1|", "reference", "output", "predictions.jsonl",
        "elision predict --model",
    ):  # fmt: skip
        assert words in said, words


def test_the_test_set_is_measured_at_the_end_and_all_texts_are_kept(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    assert results["num_valid"] == 8 and results["test"]["num"] == 6
    assert {"bleu", "chrf", "rouge1", "rouge2", "rougeL", "exact_match", "loss"} == set(results["metrics"])
    assert len((run / "predictions.jsonl").read_text().splitlines()) == 8
    assert len((run / "test-predictions.jsonl").read_text().splitlines()) == 6
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("chrf" in line for line in steps if line["split"] == "validation")


def test_predict_writes_a_line_for_a_line(run: Path, tmp_path: Path) -> None:
    (tmp_path / "in.aa").write_text("ba do\n\nki\n", encoding="utf-8")
    assert (
        main(["predict", "--model", str(run), "--data", str(tmp_path / "in.aa"), "--out", str(tmp_path / "o.bb")]) == 0
    )
    lines = (tmp_path / "o.bb").read_text().split("\n")
    assert len(lines) == 4 and lines[0] and not lines[1] and lines[2] and not lines[3]


def test_predict_takes_texts_and_settings_of_decoding(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--model", str(run), "ba do ki", "lu"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["source"] for row in rows] == ["ba do ki", "lu"] and all(row["output"] for row in rows)
    # The first token is the frame's.
    assert main(["predict", "--model", str(run), "ba do ki", "--decoding.num-tokens", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["output"] == ""


def test_predict_reads_tables_by_the_column_of_the_training(run: Path, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("id\tsource\n1\tba\n2\tki lu\n", encoding="utf-8")
    out = tmp_path / "out.tsv"
    assert main(["predict", "--model", str(run), "--data", str(tmp_path / "t.tsv"), "--out", str(out)]) == 0
    rows = [line.split("\t") for line in out.read_text().splitlines()]
    assert rows[0] == ["source", "output"] and [row[0] for row in rows[1:]] == ["ba", "ki lu"]


def test_predict_refuses_a_form_for_tags(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--model", str(run), "ba", "--format", "conll"]) == 2
    assert "written texts come as jsonl, tsv, csv or txt" in capsys.readouterr().err


def test_evaluate_takes_an_encoder_decoder_and_one_that_was_taught_to_write(
    bart: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tiny.text_store(tmp_path / "store", toy_pairs.recipe("bart").tokenizer, num_pairs=40)
    for model in (bart, run):
        assert main(["evaluate", str(model), "--data", str(store.path), "--examples", "8"]) == 0
        said = capsys.readouterr().out
        assert "all that is written" in said and "of it, the text" in said and "copying" in said


def test_an_encoder_decoder_that_nobody_taught_more_writes_as_it_was_trained(
    bart: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "--model", str(bart), "ba do", "--decoding.num-tokens", "4"]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == "ba do"


@pytest.mark.parametrize(
    ("data", "more", "words"),
    [
        (["a.aa"], [], "no file"),
        (["TRAIN", "TRAIN", "TRAIN"], [], "3 files"),
        (["empty.aa", "empty.bb"], [], "hold no text"),
        (["TRAIN", "short.bb"], [], "has 1 lines, but"),
        (["TABLE"], ["--source-column", "sorce"], "Did you mean 'source'?"),
        (["TABLE"], ["--prompt", "no place"], "say once where the source stands"),
        (["TABLE"], ["--metric", "blue"], "Did you mean 'bleu'?"),
    ],
)
def test_bad_input_is_said_without_a_traceback(
    data: list[str], more: list[str], words: str, bart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = aligned(tmp_path, "train", 8, 1)[0]
    for name, text in (("empty.aa", ""), ("empty.bb", ""), ("short.bb", "one\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "t.tsv").write_text("source\ttarget\nba\tra\nki\tti\nlu\tve\n", encoding="utf-8")
    named = {"TRAIN": train, "TABLE": str(tmp_path / "t.tsv")}
    paths = [named.get(name, str(tmp_path / name)) for name in data]
    arguments = ["--model", str(bart), "--data", *paths, "--out", str(tmp_path / "run"), *more]
    assert main(["finetune", "seq2seq", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said and not (tmp_path / "run").exists()


def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["finetune", "seq2seq", "--help"])
    assert leaving.value.code == 0
    said = capsys.readouterr().out
    assert said.count("elision finetune seq2seq ") >= 3 and "{source}" in said
