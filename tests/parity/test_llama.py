"""LLaMA: ours and transformers' agree, both ways."""

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

import elision
from elision import recipes
from elision.errors import InputError
from elision.export import families, llama
from elision.export.config import Config
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.model.init import NormalInit
from elision.model.language_model import LanguageModel
from elision.model.position import RotaryPositions
from elision.objectives import CausalLM
from elision.recipe import Recipe
from elision.text.tokenizer import SentencePieceBPE, Tokenizer
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
}
GROUPED = {"num_key_value_heads": 2}
WIDE = {"head_dim": 12, "num_key_value_heads": 1}
BIASED = {"attention_bias": True, "mlp_bias": True}


def theirs_of(kind: str = "LlamaForCausalLM", **settings: object) -> transformers.PreTrainedModel:
    """Return a Llama of the given class: 2 layers, width 32, 4 heads, 20 positions."""
    return reference.scrambled(getattr(transformers, kind)(transformers.LlamaConfig(**SIZES | settings)))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny.tokenizer(SentencePieceBPE(300))


@pytest.mark.parametrize("settings", [{}, GROUPED, WIDE, BIASED, {"rope_theta": 500.0}, {"hidden_act": "gelu"}])
def test_imported_logits_equal_those_of_transformers(settings: dict[str, object], tmp_path: Path) -> None:
    decoders.logits_agree(theirs_of(**settings), tmp_path)


def test_a_file_without_a_head_gives_the_same_states(tmp_path: Path) -> None:
    decoders.states_agree(theirs_of("LlamaModel", **GROUPED), tmp_path)


def test_loss_and_every_gradient_equal_those_of_transformers(tmp_path: Path) -> None:
    decoders.gradients_agree(theirs_of(**GROUPED), llama, tmp_path)


def test_export_of_an_import_is_the_identity(tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs = theirs_of(**GROUPED, vocab_size=tokenizer.vocabulary.size)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    write_checkpoint(read_folder(tmp_path / "theirs"), tmp_path / "ours")
    assert write_folder(elision.load(tmp_path / "ours"), tmp_path / "back") == "LlamaForCausalLM"
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("name", ["llama-tiny", "llama2-tiny"])
def test_auto_class_loads_an_export_with_equal_logits(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    decoders.export_agrees(tiny.recipe(name), tokenizer, tmp_path, "LlamaForCausalLM")


def test_an_export_writes_text_in_a_pipeline_as_we_do(tokenizer: Tokenizer, tmp_path: Path) -> None:
    decoders.pipeline_agrees(tiny.recipe("llama2-tiny"), tokenizer, tmp_path)


@pytest.mark.parametrize("cache", [True, False])
def test_greedy_generation_equals_that_of_transformers_token_for_token(cache: bool, tmp_path: Path) -> None:
    decoders.generation_agrees(theirs_of(**GROUPED), tmp_path, cache)


@pytest.mark.parametrize(
    "name, kind",
    [
        ("classification", "LlamaForSequenceClassification"),
        ("tagging", "LlamaForTokenClassification"),
        ("answering", "LlamaForQuestionAnswering"),
    ],
)
def test_models_with_a_head_agree_both_ways(name: str, kind: str, tmp_path: Path) -> None:
    decoders.heads_agree(theirs_of(kind, **GROUPED, num_labels=3, pad_token_id=2), llama, name, tmp_path)


def test_fused_rows_are_queries_then_fewer_keys_then_fewer_values(tmp_path: Path) -> None:
    theirs = theirs_of(**GROUPED)
    theirs.save_pretrained(tmp_path)
    attention = theirs.model.layers[1].self_attn
    ours = elision.load(tmp_path).model.backbone.blocks[1].attention.query_key_value.weight
    query, key, value = ours.split([32, 16, 16])
    assert torch.equal(query, attention.q_proj.weight)
    assert torch.equal(key, attention.k_proj.weight)
    assert torch.equal(value, attention.v_proj.weight)


def test_weights_that_turn_neighbouring_channels_are_reordered_without_changing_a_score(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    from elision.export.rotary import with_halves

    recipe = tiny.recipe("llama2-tiny")
    positions = dataclasses.replace(recipe.backbone.positions, layout="pairs")
    pairs = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, positions=positions))
    model = reference.save_checkpoint(tmp_path / "pairs", pairs, tokenizer)
    loaded = elision.load(tmp_path / "pairs")
    with pytest.raises(InputError, match=r"layout is 'pairs'.*with_halves"):
        write_folder(loaded, tmp_path / "refused")
    halves, state = with_halves(pairs, model.state_dict())
    assert halves == recipe
    moved = LanguageModel(halves.backbone, halves.objectives, tokenizer.vocabulary.size).eval()
    moved.load_state_dict(state)
    ids = reference.token_ids(2, 11)
    batch, _ = loaded._batch(ids, None, None, None)
    with torch.no_grad():
        reference.assert_close(moved.logits(batch), loaded.logits(ids))
    with pytest.raises(InputError, match="only RotaryPositions with layout 'pairs' and share 1"):
        with_halves(halves, state)


def test_old_files_with_wave_lengths_and_a_bare_theta_are_read(tmp_path: Path) -> None:
    theirs = theirs_of(rope_theta=500.0)
    theirs.save_pretrained(tmp_path)
    decoders.rewrite_config(tmp_path, rope_parameters=None, rope_theta=500.0, rope_scaling=None)
    old = dict(theirs.state_dict())
    for n in range(2):
        old[f"model.layers.{n}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    (tmp_path / "model.safetensors").unlink()
    torch.save(old, tmp_path / "pytorch_model.bin")
    ids = reference.token_ids(2, 11)
    with torch.no_grad():
        reference.assert_close(elision.load(tmp_path).logits(ids), theirs(ids).logits)


def test_a_tied_file_is_read_with_two_equal_tables(tmp_path: Path) -> None:
    theirs = theirs_of(tie_word_embeddings=True)
    theirs.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    imported = read_folder(tmp_path)
    assert any("begin equal and are trained apart" in note for note in imported.notes)
    ids = reference.token_ids(2, 11)
    with torch.no_grad():
        reference.assert_close(elision.load(tmp_path).logits(ids), theirs(ids).logits)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rotary positions are of type 'yarn'"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "are of type 'linear'"),
        ({"attention_bias": True}, "attention_bias is True, but mlp_bias is False"),
        ({"pretraining_tp": 2}, "pretraining_tp is 2; only 1 is supported"),
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


def changed(**settings: object) -> Recipe:
    recipe = recipes.get("llama-tiny")
    return dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, **settings))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"final_norm": False}, "backbone.final_norm is False: Hugging Face's Llama only knows True"),
        ({"positions": RotaryPositions(share=0.5)}, "positions.share is 0.5"),
        ({"positions": RotaryPositions(layout="pairs")}, "positions.layout is 'pairs'"),
        ({"biases": "output"}, "backbone.biases is 'output'"),
        ({"scale_embeddings": True}, "backbone.scale_embeddings is True"),
    ],
)
def test_what_cannot_be_expressed_there_is_refused_by_setting(settings: dict[str, object], message: str) -> None:
    recipe = changed(**settings)
    with pytest.raises(InputError, match=message):
        families.of_recipe(recipe, ("clm",))


def test_a_tied_recipe_is_refused() -> None:
    recipe = dataclasses.replace(recipes.get("llama-tiny"), objectives=(CausalLM(),))
    with pytest.raises(InputError, match=r"CausalLM\.tied is True"):
        families.of_recipe(recipe, ("clm",))


def test_published_settings_are_those_of_the_released_files(tmp_path: Path) -> None:
    """meta-llama's Llama-2-70b, as its config.json says."""
    config = transformers.LlamaConfig(
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
    )
    config.save_pretrained(tmp_path)
    read = llama.read_backbone(Config(tmp_path / "config.json"), frozenset())
    published = recipes.get("llama2-70b").backbone
    assert dataclasses.replace(read, init=published.init) == published
    assert read.init == NormalInit(std=0.02)
