"""What the README says must be true: its Python example runs, its commands and files exist."""

import re
from pathlib import Path

import pytest

from elision.cli import COMMANDS

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "README.ko.md")


@pytest.mark.parametrize("name", READMES)
def test_python_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
    assert code.count('"5min"') == 1
    sentences = [f"The {noun} sat on the {place}. It looked at the {noun}." for noun in NOUNS for place in NOUNS]
    (tmp_path / "corpus.txt").write_text("\n\n".join(sentences * 2), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    changes = '"train.steps": 2, "train.batch_size": 4, "train.eval_examples": 4, "tokenizer.vocab_size": 120'
    exec(code.replace('"train.budget": "5min"', changes), {})
    assert (tmp_path / "runs" / "bert-tiny" / "checkpoints" / "step-00000002").is_dir()


NOUNS = ("cat", "mat", "dog", "log", "fox", "box", "goat", "boat")


@pytest.mark.parametrize("name", READMES)
def test_commands_and_links_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for command in re.findall(r"(?:^ {4}|`)elision ([a-z]+)", text, re.MULTILINE):
        assert command in COMMANDS, command
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link
