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
