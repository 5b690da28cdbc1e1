"""What export and import refuse, and what they leave untouched."""

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import elision
from elision.errors import InputError
from elision.export.reading import read_folder
from elision.export.writing import MARK, write_folder
from elision.model.language_model import LanguageModel
from elision.recipe import Recipe
from elision.train.checkpoint import write_weights
from tests import tiny


def checkpoint(folder: Path, recipe: Recipe) -> Path:
    """Write a checkpoint with fresh weights."""
    tokenizer = tiny.tokenizer(tiny.WORDPIECE if recipe.backbone.visibility == "bidirectional" else tiny.BYTES)
    folder.mkdir()
    recipe.save(folder / "recipe.json")
    tokenizer.save(folder / "tokenizer")
    write_weights(folder, LanguageModel(recipe.backbone, recipe.objectives, tokenizer.vocabulary.size))
    return folder


@pytest.fixture(params=["bert-tiny", "gpt2-tiny"])
def exported(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A Hugging Face folder of ours, of either family."""
    write_folder(elision.load(checkpoint(tmp_path / "ours", tiny.recipe(request.param))), tmp_path / "hf")
    return tmp_path / "hf"


def edit(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize(
    "name, field, value",
    [
        ("gpt2-tiny", "norm", "post"),
        ("gpt2-tiny", "final_norm", False),
        ("gpt2-tiny", "embedding_norm", True),
        ("bert-tiny", "norm", "pre"),
        ("bert-tiny", "embedding_norm", False),
    ],
)
def test_a_backbone_without_counterpart_is_refused_naming_the_field(
    name: str, field: str, value: Any, tmp_path: Path
) -> None:
    recipe = tiny.recipe(name)
    recipe = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, **{field: value}))
    loaded = elision.load(checkpoint(tmp_path / "ours", recipe))
    with pytest.raises(InputError, match=rf"backbone\.{field} is {value!r}"):
        write_folder(loaded, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_an_earlier_export_is_replaced_without_being_told(tmp_path: Path) -> None:
    loaded = elision.load(checkpoint(tmp_path / "ours", tiny.recipe("bert-tiny")))
    out = tmp_path / "out"
    out.mkdir()
    write_folder(loaded, out)
    (out / "stale").touch()
    write_folder(loaded, out)
    assert not (out / "stale").exists() and (out / MARK).exists()
    (out / MARK).unlink()
    with pytest.raises(InputError, match="is not empty and is no earlier export"):
        write_folder(loaded, out)
    write_folder(loaded, out, overwrite=True)
    assert (out / MARK).exists()
    for place in (tmp_path / "ours", tmp_path):
        with pytest.raises(InputError, match="where the model itself lies"):
            write_folder(loaded, place, overwrite=True)
    assert (tmp_path / "ours" / "recipe.json").exists()


def test_an_export_that_fails_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = elision.load(checkpoint(tmp_path / "ours", tiny.recipe("bert-tiny")))
    write_folder(loaded, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def full(*arguments: object, **settings: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("elision.export.writing.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        write_folder(loaded, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "out"]


def test_dtype_of_an_export_is_what_was_asked_for(exported: Path, tmp_path: Path) -> None:
    write_folder(elision.load(tmp_path / "ours"), tmp_path / "half", "float16")
    assert {value.dtype for value in load_file(tmp_path / "half" / "model.safetensors").values()} == {torch.float16}
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "float16"
    ids = [6, 7, 8]
    half = elision.load(tmp_path / "half", dtype="stored").logits(ids)
    assert half.dtype == torch.float16
    assert torch.allclose(half.float(), elision.load(exported).logits(ids), atol=2e-2)


def test_the_card_tells_recipe_data_measures_and_command(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    folder = checkpoint(run / "checkpoints" / "step-00000040", tiny.recipe("bert-tiny"))
    (folder / "state.json").write_text(json.dumps({"step": 40, "tokens": 12345}))
    (run / "recipe.json").write_text((folder / "recipe.json").read_text())
    (run / "checkpoints.json").write_text(json.dumps({"last": folder.name, "best": None}))
    about = {"command": "elision pretrain bert-tiny --data s", "store": {"path": "/secret", "fingerprint": "abc123"}}
    (run / "run.json").write_text(json.dumps(about))
    lines = [{"step": step, "split": "validation", "bits_per_byte": step / 100} for step in (20, 40)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_folder(elision.load(run), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: fill-mask\n")
    for told in ("`abc123`", "bits per byte | 0.4000", "elision pretrain bert-tiny --data s", "12,345", "TokenMask("):
        assert told in card
    assert "/secret" not in card + (tmp_path / "out" / MARK).read_text()


@pytest.mark.parametrize(
    "values, message",
    [
        ({"model_type": "mamba"}, "model_type is 'mamba'; the families that can be read are:"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is set"),
        ({"vocab_size": 7}, "embeddings.weight|wte.weight in .* has shape"),
        ({"num_hidden_layers": 3, "n_layer": 3}, r"missing .*\.2\."),
        ({"num_attention_heads": 5, "n_head": 5}, "hidden_size 32 is not a multiple of num_heads 5"),
        ({"hidden_size": "wide", "n_embd": "wide"}, "is 'wide'; expected a whole number"),
        ({"add_cross_attention": True}, "add_cross_attention is True; only False"),
        ({"hidden_act": "mish", "activation_function": "mish"}, "is 'mish'; supported are"),
    ],
)
def test_a_config_that_cannot_be_expressed_is_refused_naming_the_field(
    exported: Path, values: dict[str, Any], message: str
) -> None:
    edit(exported, **values)
    with pytest.raises(InputError, match=message):
        read_folder(exported)


@pytest.mark.parametrize(
    "name, values, message",
    [
        ("bert-tiny", {"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ("bert-tiny", {"is_decoder": True}, "is_decoder is True"),
        ("gpt2-tiny", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ("gpt2-tiny", {"scale_attn_weights": False}, "scale_attn_weights is False"),
    ],
)
def test_variants_of_a_family_that_compute_otherwise_are_refused(
    name: str, values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_folder(elision.load(checkpoint(tmp_path / "ours", tiny.recipe(name))), tmp_path / "hf")
    edit(tmp_path / "hf", **values)
    with pytest.raises(InputError, match=message):
        read_folder(tmp_path / "hf")


def test_an_output_table_of_its_own_is_refused(exported: Path) -> None:
    tensors = load_file(exported / "model.safetensors")
    table = next(name for name in tensors if name.endswith(("word_embeddings.weight", "wte.weight")))
    output = "cls.predictions.decoder.weight" if "word" in table else "lm_head.weight"
    save_file(tensors | {output: tensors[table].clone()}, exported / "model.safetensors")
    read_folder(exported)
    save_file(tensors | {output: tensors[table] + 1}, exported / "model.safetensors")
    with pytest.raises(InputError, match=f"{output} in .* is not the token table"):
        read_folder(exported)


class Payload:
    """Unpickling this writes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickled_code_is_not_run(exported: Path, tmp_path: Path) -> None:
    (exported / "model.safetensors").unlink()
    torch.save({"x": Payload(tmp_path / "ran")}, exported / "pytorch_model.bin")
    with pytest.raises(InputError, match="holds more than tensors"):
        read_folder(exported)
    (exported / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    with pytest.raises(InputError, match=r"pytorch_model\.bin"):
        read_folder(exported)
    assert not (tmp_path / "ran").exists()


def test_damaged_and_missing_weights_are_named(exported: Path) -> None:
    file = exported / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="is not a whole safetensors file"):
        read_folder(exported)
    file.unlink()
    with pytest.raises(InputError, match=r"has no weights: expected model\.safetensors or pytorch_model\.bin"):
        read_folder(exported)
    index = exported / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(InputError, match="names shards that are not there: model-00001-of-00002"):
        read_folder(exported)
    index.write_text("[]")
    with pytest.raises(InputError, match="is not an index of shards"):
        read_folder(exported)
