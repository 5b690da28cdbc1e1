"""The commands as a user types them."""

import io
import json
from pathlib import Path

import pytest
import torch

import elision
from elision.cli import main
from tests import tiny
from tests.unit.export.test_folders import checkpoint


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return checkpoint(tmp_path_factory.mktemp("bert") / "ours", tiny.recipe("bert-tiny"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return checkpoint(tmp_path_factory.mktemp("gpt2") / "ours", tiny.recipe("gpt2-tiny"))


@pytest.mark.parametrize("command", ["export", "import", "fill", "generate"])
def test_help_teaches_by_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([command, "--help"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out.count(f"elision {command} ") >= 2


def test_export_then_import_gives_a_checkpoint_of_equal_logits(bert: Path, tmp_path: Path) -> None:
    assert main(["export", str(bert), str(tmp_path / "hf")]) == 0
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["architectures"] == ["BertForPreTraining"]
    assert main(["import", str(tmp_path / "hf"), str(tmp_path / "back")]) == 0
    assert torch.equal(elision.load(bert).logits([6, 7, 8]), elision.load(tmp_path / "back").logits([6, 7, 8]))


def test_import_wants_a_tokenizer_and_an_empty_place(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hf = tmp_path / "hf"
    assert main(["export", str(bert), str(hf)]) == 0
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        (hf / name).unlink()
    assert main(["import", str(hf), str(tmp_path / "out")]) == 2
    assert "--tokenizer PATH" in capsys.readouterr().err
    assert main(["import", str(hf), str(tmp_path / "out"), "--tokenizer", str(bert)]) == 0
    assert main(["import", str(hf), str(tmp_path / "out"), "--tokenizer", str(bert)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["import", str(hf), str(tmp_path / "out"), "--tokenizer", str(bert), "--overwrite"]) == 0
    assert main(["import", str(hf), str(hf), "--tokenizer", str(bert), "--overwrite"]) == 2
    assert (hf / "config.json").exists()


def test_import_says_which_heads_start_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str], bert: Path) -> None:
    import safetensors.torch

    hf = tmp_path / "hf"
    assert main(["export", str(bert), str(hf)]) == 0
    tensors = safetensors.torch.load_file(hf / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if name.startswith("bert.")}
    safetensors.torch.save_file(kept, hf / "model.safetensors")
    capsys.readouterr()
    assert main(["import", str(hf), str(tmp_path / "out")]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "no head for mlm" in said and "no head for nsp" in said


def test_fill_prints_the_text_and_its_candidates(bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fill", str(bert), "ba [MASK] do ___", "--top-k", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ba") and len(lines) == 7
    assert sum("%" in line for line in lines) == 6 and lines[4].startswith("blank 2")


def test_fill_reads_lines_and_one_bad_line_costs_no_other(
    bert: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("ba ___\n\nno blank\ndo <mask>\n"))
    assert main(["fill", str(bert), "--top-k", "1"]) == 2
    output = capsys.readouterr()
    assert output.out.count("%") == 2
    assert "line 3: 'no blank' has no blank" in output.err


def test_generate_prints_prompt_and_continuation(
    gpt2: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(gpt2), "ba do", "--num-tokens", "12", "--temperature", "1", "--seed", "5"]
    expected = "".join(elision.load(gpt2).generate("ba do", num_tokens=12, temperature=1.0, seed=5))
    assert main(["generate", *arguments]) == 0
    assert capsys.readouterr().out == f"ba do{expected}\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("ba do\n"))
    arguments[1] = "-"
    assert main(["generate", *arguments, "--no-cache"]) == 0
    assert capsys.readouterr().out == f"ba do{expected}\n"


def test_generate_writes_a_file_of_prompts_in_their_order(
    gpt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = ["ba do ki lu", "ba", "me no"]
    (tmp_path / "in.txt").write_text("".join(f"{prompt}\n" for prompt in prompts))
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": prompt}) + "\n" for prompt in prompts))
    options = ["--num-tokens", "8", "--temperature", "1", "--seed", "5", "--rows", "2"]
    for source, target in (("in.txt", "out.txt"), ("in.jsonl", "out.jsonl")):
        files = ["--input", str(tmp_path / source), "--output", str(tmp_path / target)]
        assert main(["generate", str(gpt2), *files, *options]) == 0
    wanted = ["".join(elision.load(gpt2).generate(each, num_tokens=8, temperature=1.0, seed=5)) for each in prompts]
    lines = (tmp_path / "out.txt").read_text().split("\n")
    assert lines == [text.replace("\n", " ").strip() for text in wanted] + [""]
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["prompt"], row["texts"][0]["text"]) for row in rows] == list(zip(prompts, wanted, strict=True))
    assert all(row["texts"][0]["log_likelihood"] < 0 and row["texts"][0]["reason"] for row in rows)
    capsys.readouterr()
    assert main(["generate", str(gpt2), "--input", str(tmp_path / "in.txt"), *options]) == 0
    assert capsys.readouterr().out.split("\n") == lines


def test_generate_prints_several_texts_with_their_likelihoods(gpt2: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(gpt2), "ba", "--num-tokens", "5", "--num-beams", "3", "--num-texts", "2"]) == 0
    output = capsys.readouterr()
    assert output.err.count("log-likelihood") == 2 and output.out.count("\n") >= 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--input", "{nothing}/in.txt"], "is no file"),
        (["ba", "--input", "{here}/bad.jsonl"], "either a prompt or --input"),
        (["--input", "{here}/bad.jsonl"], "line 2: expected a text"),
        (["--input", "{here}/empty.txt"], "holds no prompts"),
        (["ba", "--output", "{here}"], "is a folder"),
        (["ba", "--stop", ""], "an empty text in stop"),
        (["ba", "--start", "[ko]"], "no symbol of the tokenizer"),
    ],
)
def test_generate_says_what_is_wrong_with_its_files_and_symbols(
    arguments: list[str], message: str, gpt2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "ba"}\n{"prompt": "ba"}\n')
    (tmp_path / "empty.txt").write_text("")
    places = {"nothing": tmp_path / "nothing", "here": tmp_path}
    assert main(["generate", str(gpt2), *(argument.format(**places) for argument in arguments)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["generate", "{bert}", "ba"], "needs a causal language model"),
        (["fill", "{gpt2}", "ba ___"], "cannot fill blanks"),
        (["generate", "{gpt2}", "ba", "--top-p", "2"], "top_p is 2.0"),
        (["export", "{nothing}", "{nothing}/out"], "does not exist"),
        (["import", "{bert}", "{nothing}"], "it has no config.json"),
    ],
)
def test_bad_input_is_a_message_and_status_2(
    arguments: list[str],
    message: str,
    bert: Path,
    gpt2: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"bert": bert, "gpt2": gpt2, "nothing": tmp_path / "nothing"}
    assert main([argument.format(**places) for argument in arguments]) == 2
    assert message in capsys.readouterr().err
