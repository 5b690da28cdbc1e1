"""GPT-NeoX (Pythia, Polyglot-Ko): ours and transformers' agree, both ways."""

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

import elision
from elision import recipes
from elision.errors import InputError
from elision.export import families, gpt_neox
from elision.export.config import Config
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.text.tokenizer import Tokenizer
from tests import tiny
from tests.parity import decoders, reference

pytestmark = pytest.mark.parity

SIZES = {
    "vocab_size": reference.VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 20,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def theirs_of(kind: str = "GPTNeoXForCausalLM", **settings: object) -> transformers.PreTrainedModel:
    """Return a GPT-NeoX of the given class: 2 layers, width 32, 4 heads, 20 positions."""
    return reference.scrambled(getattr(transformers, kind)(transformers.GPTNeoXConfig(**SIZES | settings)))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny.tokenizer(tiny.BYTES)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_parallel_residual": False},
        {"rotary_pct": 1.0},
        {"rotary_pct": 0.5, "rotary_emb_base": 500},
        {"hidden_act": "gelu_fast"},
        {"hidden_act": "gelu_new"},
    ],
)
def test_imported_logits_equal_those_of_transformers(settings: dict[str, object], tmp_path: Path) -> None:
    decoders.logits_agree(theirs_of(**settings), tmp_path)


def test_a_file_without_a_head_gives_the_same_states(tmp_path: Path) -> None:
    decoders.states_agree(theirs_of("GPTNeoXModel"), tmp_path)


def test_loss_and_every_gradient_equal_those_of_transformers(tmp_path: Path) -> None:
    decoders.gradients_agree(theirs_of(), gpt_neox, tmp_path)


def test_export_of_an_import_is_the_identity(tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs = theirs_of(vocab_size=tokenizer.vocabulary.size)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    write_checkpoint(read_folder(tmp_path / "theirs"), tmp_path / "ours")
    assert write_folder(elision.load(tmp_path / "ours"), tmp_path / "back") == "GPTNeoXForCausalLM"
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("name", ["pythia-tiny", "polyglot-tiny"])
def test_auto_class_loads_an_export_with_equal_logits(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The tanh form of GELU, which the models were trained with, is one that transformers knows by another name."""
    recipe = tiny.recipe(name)
    assert recipe.backbone.activation == "gelu_tanh"
    decoders.export_agrees(recipe, tokenizer, tmp_path, "GPTNeoXForCausalLM")


def test_an_export_writes_text_in_a_pipeline_as_we_do(tokenizer: Tokenizer, tmp_path: Path) -> None:
    decoders.pipeline_agrees(tiny.recipe("pythia-tiny"), tokenizer, tmp_path)


@pytest.mark.parametrize("cache", [True, False])
def test_greedy_generation_equals_that_of_transformers_token_for_token(cache: bool, tmp_path: Path) -> None:
    decoders.generation_agrees(theirs_of(), tmp_path, cache)


@pytest.mark.parametrize(
    "name, kind",
    [
        ("classification", "GPTNeoXForSequenceClassification"),
        ("tagging", "GPTNeoXForTokenClassification"),
        ("answering", "GPTNeoXForQuestionAnswering"),
    ],
)
def test_models_with_a_head_agree_both_ways(name: str, kind: str, tmp_path: Path) -> None:
    decoders.heads_agree(theirs_of(kind, num_labels=3, pad_token_id=2), gpt_neox, name, tmp_path)


def test_fused_rows_that_lie_head_by_head_are_all_queries_then_all_keys_then_all_values_here(tmp_path: Path) -> None:
    theirs = theirs_of()
    theirs.save_pretrained(tmp_path)
    fused = theirs.gpt_neox.layers[1].attention.query_key_value
    ours = elision.load(tmp_path).model.backbone.blocks[1].attention.query_key_value
    for there, here in ((fused.weight, ours.weight), (fused.bias, ours.bias)):
        by_head = there.view(4, 3, 8, *there.shape[1:])
        for part, rows in enumerate(here.split(32)):
            assert torch.equal(rows.view(4, 8, *there.shape[1:]), by_head[:, part])


def test_the_two_residual_forms_differ(tmp_path: Path) -> None:
    theirs = theirs_of()
    theirs.save_pretrained(tmp_path)
    ids = reference.token_ids(2, 11)
    parallel = elision.load(tmp_path)
    assert parallel.recipe.backbone.parallel
    decoders.rewrite_config(tmp_path, use_parallel_residual=False)
    sequential = elision.load(tmp_path)
    assert not torch.allclose(parallel.logits(ids), sequential.logits(ids))


def test_old_files_with_masks_and_wave_lengths_are_read(tmp_path: Path) -> None:
    theirs = theirs_of(rotary_pct=0.5, rotary_emb_base=500)
    theirs.save_pretrained(tmp_path)
    decoders.rewrite_config(tmp_path, rope_parameters=None, rotary_pct=0.5, rotary_emb_base=500)
    old = dict(theirs.state_dict())
    for n in range(2):
        old[f"gpt_neox.layers.{n}.attention.bias"] = torch.ones(1, 1, 20, 20).tril()
        old[f"gpt_neox.layers.{n}.attention.masked_bias"] = torch.tensor(-1e9)
        old[f"gpt_neox.layers.{n}.attention.rotary_emb.inv_freq"] = torch.ones(2)
    (tmp_path / "model.safetensors").unlink()
    torch.save(old, tmp_path / "pytorch_model.bin")
    ids = reference.token_ids(2, 11)
    with torch.no_grad():
        reference.assert_close(elision.load(tmp_path).logits(ids), theirs(ids).logits)


def test_a_tied_file_is_read_with_two_equal_tables(tmp_path: Path) -> None:
    theirs = theirs_of(tie_word_embeddings=True)
    theirs.save_pretrained(tmp_path)
    assert "embed_out.weight" not in load_file(tmp_path / "model.safetensors")
    ids = reference.token_ids(2, 11)
    with torch.no_grad():
        reference.assert_close(elision.load(tmp_path).logits(ids), theirs(ids).logits)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "rotary positions are of type 'linear'"),
        ({"attention_bias": False}, "attention_bias is False; only True is supported"),
        ({"hidden_act": "laplace"}, "hidden_act is 'laplace'"),
    ],
)
def test_what_cannot_be_expressed_here_is_refused_by_field(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    theirs_of().save_pretrained(tmp_path)
    decoders.rewrite_config(tmp_path, **change)
    with pytest.raises(InputError, match=message):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"biases": "none"}, "backbone.biases is 'none': Hugging Face's GPTNeoX only knows 'all'"),
        ({"num_key_value_heads": 1}, "backbone.num_key_value_heads is 1"),
        ({"windows": (8,)}, "backbone.windows is .8"),
        ({"activation": "silu"}, "backbone.activation is 'silu'"),
    ],
)
def test_what_cannot_be_expressed_there_is_refused_by_setting(settings: dict[str, object], message: str) -> None:
    recipe = recipes.get("pythia-tiny")
    recipe = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, **settings))
    with pytest.raises(InputError, match=message):
        families.of_recipe(recipe, ("clm",))


def test_published_settings_are_those_of_the_released_files_but_for_the_form_of_gelu(tmp_path: Path) -> None:
    """EleutherAI's pythia-1b, as its config.json says."""
    config = transformers.GPTNeoXConfig(
        vocab_size=50304,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=8,
        rotary_pct=0.25,
        hidden_act="gelu",
    )
    config.save_pretrained(tmp_path)
    read = gpt_neox.read_backbone(Config(tmp_path / "config.json"), frozenset())
    published = recipes.get("pythia-1b").backbone
    assert (read.activation, published.activation) == ("gelu", "gelu_tanh")
    assert dataclasses.replace(read, init=published.init, activation="gelu_tanh") == published
