"""Bad input to `elision pretrain`: status 2, the field, the value and the fix, and never a traceback."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from elision import cli, recipes
from elision.data.store import Store
from elision.recipe import Recipe
from elision.text.tokenizer import ByteLevelBPE
from elision.train import loop
from elision.train.checkpoint import find
from tests import tiny

Run = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the measurement of the machine."""
    monkeypatch.setattr(loop, "matmul_peak", lambda device, dtype: 1e9)


@pytest.fixture
def run(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in an empty folder; returns its status and all that it says, on one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")

    def command(*arguments: object) -> tuple[int, str]:
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            status = leaving.code
        said = "".join(capsys.readouterr())
        assert "Traceback" not in said
        return status, " ".join(said.split())

    return command


def refused(outcome: tuple[int, str], *parts: str) -> None:
    status, said = outcome
    assert status == 2, said
    for part in parts:
        assert part in said


def config(tmp_path: Path, recipe: Recipe) -> Path:
    recipe.save(tmp_path / "config.json")
    return tmp_path / "config.json"


def test_an_unknown_command_suggests_the_nearest(run: Run) -> None:
    refused(run("pretain", "bert-tiny"), "There is no command 'pretain'.", "Did you mean 'pretrain'?")


@pytest.mark.parametrize(("name", "nearest"), [("bert-bas", "bert-base"), ("gpt2-smal", "gpt2-small")])
def test_an_unknown_recipe_suggests_the_nearest(run: Run, name: str, nearest: str) -> None:
    refused(run("pretrain", name, "--data", "store"), f"There is no recipe {name!r}", f"Did you mean {nearest!r}?")


def test_no_recipe_at_all_says_how_to_name_one(run: Run, wordpiece_store: Store) -> None:
    refused(run("pretrain", "--data", wordpiece_store.path), "name a recipe first", "elision recipes")
    refused(run("pretrain"), "name a recipe first")


@pytest.mark.parametrize(
    ("flag", "nearest"),
    [
        ("--train.step", "--train.steps"),
        ("--backbone.num-layer", "--backbone.num-layers"),
        ("--noise.rat", "--noise.rate"),
        ("--train.optimizer.learning-rat", "--train.optimizer.learning-rate"),
    ],
)
def test_an_unknown_option_suggests_the_nearest(run: Run, flag: str, nearest: str) -> None:
    refused(run("pretrain", "bert-tiny", "--data", "store", flag, "3"), flag, nearest)


@pytest.mark.parametrize("spelling", ["--backbone.num-layers", "--backbone.num_layers"])
def test_options_may_be_spelt_with_hyphens_or_underscores(
    run: Run, spelling: str, wordpiece_store: Store, tmp_path: Path
) -> None:
    small = config(tmp_path, tiny.recipe("bert-tiny", steps=1))
    status, said = run(
        "pretrain", "--config", small, "--data", wordpiece_store.path, spelling, 1, "--out", tmp_path / "run"
    )
    assert status == 0, said
    assert Recipe.load(tmp_path / "run" / "recipe.json").backbone.num_layers == 1


@pytest.mark.parametrize(
    ("flag", "value", "parts"),
    [
        ("--train.steps", "many", ["--train.steps", "'many'"]),
        ("--train.steps", "0", ["train.steps is 0", "at least 1"]),
        ("--train.batch-size", "-4", ["train.batch_size is -4"]),
        ("--train.budget", "3 parsecs", ["train.budget is '3 parsecs'", "'20min'"]),
        ("--train.budget", "1.2.3 steps", ["train.budget is '1.2.3 steps'"]),
        ("--train.precision", "float8", ["float8", "bfloat16"]),
        ("--train.optimizer.learning-rate", "0", ["learning_rate is 0"]),
        ("--noise.rate", "1.5", ["rate is 1.5", "from 0 to 1"]),
        ("--backbone.num-heads", "3", ["hidden_size 128 is not a multiple of num_heads 3"]),
        ("--backbone.dropout", "1", ["dropout is 1.0"]),
        ("--segmenter.max-length", "3", ["max_length is 3"]),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_named(run: Run, flag: str, value: str, parts: list[str]) -> None:
    refused(run("pretrain", "bert-tiny", "--data", "store", flag, value), *parts)


def test_a_sequence_longer_than_the_position_table_is_refused(run: Run) -> None:
    outcome = run("pretrain", "bert-tiny", "--data", "store", "--segmenter.max-length", 600)
    refused(
        outcome, "segmenter.max_length is 600", "backbone.positions.num_positions is 512", "Lower the first or raise"
    )


def test_a_store_that_is_missing_or_none_is_named(run: Run, tmp_path: Path) -> None:
    refused(run("pretrain", "bert-tiny"), "--data")
    refused(run("pretrain", "bert-tiny", "--data", tmp_path / "nowhere"), "nowhere does not exist", "elision prepare")
    refused(run("pretrain", "bert-tiny", "--data", tmp_path), "is no token store", "elision prepare")
    (tmp_path / "file").write_text("text")
    refused(run("pretrain", "bert-tiny", "--data", tmp_path / "file"), "is no token store")
    assert not (tmp_path / "runs").exists(), "nothing is made before the store is known to be one"


def test_a_store_whose_tokenizer_lacks_the_mask_is_refused(run: Run, bytes_store: Store) -> None:
    outcome = run("pretrain", "bert-tiny", "--data", bytes_store.path)
    refused(outcome, "The tokenizer has no 'mask' token (it has: bos, eos)", "elision prepare --recipe")


def test_a_store_whose_tokenizer_lacks_the_frame_is_refused(run: Run, tmp_path: Path) -> None:
    masked = ByteLevelBPE(vocab_size=300, extra_special_tokens=("<mask>",)).train(["some text"] * 3)
    masked = type(masked)(masked.raw, masked.roles | {"mask": "<mask>"})
    tiny.id_store(tmp_path / "store", masked, [[[300 % 256, 5, 6]], [[7, 8]]])
    refused(run("pretrain", "bert-tiny", "--data", tmp_path / "store"), "no 'cls' token")


def test_a_store_without_an_end_of_text_is_refused_for_gpt2(run: Run, wordpiece_store: Store) -> None:
    refused(run("pretrain", "gpt2-tiny", "--data", wordpiece_store.path), "no 'eos' token", "cls, sep, mask")


@pytest.mark.parametrize("below", ["file", "file/deeper"])
def test_an_output_that_cannot_be_written_is_named(
    run: Run, below: str, wordpiece_store: Store, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    outcome = run("pretrain", "bert-tiny", "--data", wordpiece_store.path, "--out", tmp_path / below)
    refused(outcome, str(tmp_path / below), "cannot be written", "--out")
    assert (tmp_path / "file").read_text() == "in the way"


def test_an_output_with_other_files_is_refused(run: Run, wordpiece_store: Store, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    outcome = run("pretrain", "bert-tiny", "--data", wordpiece_store.path, "--out", tmp_path / "thesis")
    refused(outcome, "thesis holds files that are no run", "--out")


def test_a_config_is_checked_to_the_field(run: Run, tmp_path: Path) -> None:
    refused(run("pretrain", "--config"), "--config needs a file")
    refused(
        run("pretrain", "--config", tmp_path / "none.json", "--data", "store"), "there is no recipe at", "none.json"
    )
    (tmp_path / "text.json").write_text("hello")
    refused(run("pretrain", "--config", tmp_path / "text.json", "--data", "store"), "is not JSON")
    values = recipes.get("bert-tiny").to_dict()
    values["backbone"]["num_layer"] = 3
    (tmp_path / "wrong.json").write_text(json.dumps(values))
    refused(
        run("pretrain", "--config", tmp_path / "wrong.json", "--data", "store"),
        "recipe.backbone.num_layer is not a field of Transformer", "Did you mean 'num_layers'?",
    )  # fmt: skip


def test_a_config_may_be_given_with_an_equals_sign(run: Run, wordpiece_store: Store, tmp_path: Path) -> None:
    small = config(tmp_path, tiny.recipe("bert-tiny", steps=1))
    status, said = run("pretrain", f"--config={small}", "--data", wordpiece_store.path, "--out", tmp_path / "run")
    assert status == 0, said


def test_a_start_from_what_is_no_model_is_refused(run: Run, wordpiece_store: Store, tmp_path: Path) -> None:
    small = config(tmp_path, tiny.recipe("bert-tiny", steps=1))
    common = ("pretrain", "--config", small, "--data", wordpiece_store.path, "--out", tmp_path / "run", "--init-from")
    refused(run(*common, tmp_path / "nowhere"), "nowhere")
    (tmp_path / "folder").mkdir()
    refused(run(*common, tmp_path / "folder"), "folder")


def test_a_start_from_a_model_with_another_tokenizer_is_refused(
    run: Run, wordpiece_store: Store, bytes_store: Store, tmp_path: Path
) -> None:
    small = config(tmp_path, tiny.recipe("gpt2-tiny", steps=1))
    status, said = run("pretrain", "--config", small, "--data", bytes_store.path, "--out", tmp_path / "first")
    assert status == 0, said
    bert = config(tmp_path, tiny.recipe("bert-tiny", steps=1))
    outcome = run(
        "pretrain", "--config", bert, "--data", wordpiece_store.path, "--out", tmp_path / "second",
        "--init-from", tmp_path / "first",
    )  # fmt: skip
    refused(outcome, "has another tokenizer", "--tokenizer")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "tpu:x", "meta"])
def test_a_device_that_is_not_there_is_refused(run: Run, device: str, wordpiece_store: Store, tmp_path: Path) -> None:
    small = config(tmp_path, tiny.recipe("bert-tiny", steps=1))
    outcome = run(
        "pretrain", "--config", small, "--data", wordpiece_store.path, "--out", tmp_path / "run", "--device", device
    )
    refused(outcome, "--device", device)


def test_going_on_with_other_settings_or_data_is_refused_and_leaves_the_run_alone(
    run: Run, wordpiece_store: Store, tmp_path: Path
) -> None:
    small = config(tmp_path, tiny.recipe("bert-tiny", steps=2))
    common = ("pretrain", "--config", small, "--data", wordpiece_store.path, "--out", tmp_path / "run")
    assert run(*common)[0] == 0
    before = (find(tmp_path / "run", "last") / "weights.safetensors").read_bytes()
    refused(run(*common, "--train.seed", 5), "train.seed was 1, now 5", "--out")
    tiny.id_store(tmp_path / "other", wordpiece_store.tokenizer, [[[10, 11], [12, 13, 14]], [[15, 16], [17]]], 0.5)
    outcome = run("pretrain", "--config", small, "--data", tmp_path / "other", "--out", tmp_path / "run")
    refused(outcome, "was trained on the store", "--data")
    assert (find(tmp_path / "run", "last") / "weights.safetensors").read_bytes() == before
    torn = find(tmp_path / "run", "last") / "weights.safetensors"
    torn.write_bytes(before[:100])
    refused(run(*common), "weights.safetensors is torn")


def test_a_run_says_what_it_made_and_what_to_do_next(run: Run, wordpiece_store: Store, tmp_path: Path) -> None:
    small = config(tmp_path, tiny.recipe("bert-tiny", steps=4, log_every=2))
    status, said = run("pretrain", "--config", small, "--data", wordpiece_store.path, "--out", tmp_path / "run")
    assert status == 0
    for part in (
        "4 steps of 8 examples",
        "held out",
        "bits per byte",
        "best checkpoint",
        "elision export",
        "elision evaluate",
    ):
        assert part in said
    status, said = run("pretrain", "--help")
    assert status == 0 and "elision pretrain RECIPE --data STORE" in said and "gpt2-small" in said
