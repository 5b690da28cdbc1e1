"""Mistral: ours and transformers' agree, both ways, windows included."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

import elision
from elision import recipes
from elision.errors import InputError
from elision.export import families, mistral
from elision.export.config import Config
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
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
    "num_key_value_heads": 2,
    "max_position_embeddings": 20,
    "sliding_window": 4,
}


def theirs_of(kind: str = "MistralForCausalLM", **settings: object) -> transformers.PreTrainedModel:
    """Return a Mistral of the given class: 2 layers, width 32, a window of 4, 20 positions."""
    return reference.scrambled(getattr(transformers, kind)(transformers.MistralConfig(**SIZES | settings)))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny.tokenizer(SentencePieceBPE(300))


@pytest.mark.parametrize("settings", [{}, {"sliding_window": 1}, {"sliding_window": None}, {"head_dim": 12}])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_imported_logits_equal_those_of_transformers(
    settings: dict[str, object], attention: str, tmp_path: Path
) -> None:
    decoders.logits_agree(theirs_of(**settings, attn_implementation=attention), tmp_path)


def test_a_window_holds_a_token_and_the_window_less_one_before_it(tmp_path: Path) -> None:
    """One layer, a window of 4: the fourth token before has no effect, the third has; so there, and so here."""
    theirs = theirs_of(num_hidden_layers=1)
    theirs.save_pretrained(tmp_path)
    loaded = elision.load(tmp_path)
    assert loaded.recipe.backbone.windows == (4,)
    ids = reference.token_ids(1, 11)
    for distance, reaches in ((3, True), (4, False)):
        other = ids.clone()
        other[0, 10 - distance] += 1
        with torch.no_grad():
            moved = [
                not torch.equal(says(ids)[0, 10], says(other)[0, 10])
                for says in (loaded.logits, lambda x: theirs(x).logits)
            ]
        assert moved == [reaches, reaches]


def test_a_file_without_a_head_gives_the_same_states(tmp_path: Path) -> None:
    decoders.states_agree(theirs_of("MistralModel"), tmp_path)


def test_loss_and_every_gradient_equal_those_of_transformers(tmp_path: Path) -> None:
    decoders.gradients_agree(theirs_of(), mistral, tmp_path)


def test_export_of_an_import_is_the_identity(tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs = theirs_of(vocab_size=tokenizer.vocabulary.size)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    write_checkpoint(read_folder(tmp_path / "theirs"), tmp_path / "ours")
    assert write_folder(elision.load(tmp_path / "ours"), tmp_path / "back") == "MistralForCausalLM"
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_auto_class_loads_an_export_with_equal_logits(tokenizer: Tokenizer, tmp_path: Path) -> None:
    decoders.export_agrees(tiny.recipe("mistral-tiny"), tokenizer, tmp_path, "MistralForCausalLM")


def test_an_export_writes_text_in_a_pipeline_as_we_do(tokenizer: Tokenizer, tmp_path: Path) -> None:
    decoders.pipeline_agrees(tiny.recipe("mistral-tiny"), tokenizer, tmp_path)


@pytest.mark.parametrize("cache", [True, False])
def test_greedy_generation_equals_that_of_transformers_token_for_token(cache: bool, tmp_path: Path) -> None:
    decoders.generation_agrees(theirs_of(), tmp_path, cache)


@pytest.mark.parametrize(
    "name, kind",
    [
        ("classification", "MistralForSequenceClassification"),
        ("tagging", "MistralForTokenClassification"),
        ("answering", "MistralForQuestionAnswering"),
    ],
)
def test_models_with_a_head_agree_both_ways(name: str, kind: str, tmp_path: Path) -> None:
    decoders.heads_agree(theirs_of(kind, num_labels=3, pad_token_id=2), mistral, name, tmp_path)


def test_what_an_absent_field_means_is_what_it_means_there(tmp_path: Path) -> None:
    theirs_of().save_pretrained(tmp_path)
    fields = ("sliding_window", "num_key_value_heads", "max_position_embeddings")
    decoders.rewrite_config(tmp_path, num_attention_heads=8, **dict.fromkeys(fields))
    read = mistral.read_backbone(Config(tmp_path / "config.json"), frozenset())
    theirs = transformers.MistralConfig()
    assert read.windows == (theirs.sliding_window,) == (4096,)
    assert read.max_length == theirs.max_position_embeddings
    assert read.kv_heads == theirs.num_key_value_heads == 8


def test_windows_of_several_widths_are_refused_both_ways(tmp_path: Path) -> None:
    recipe = recipes.get("mistral-tiny")
    mixed = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, windows=(4, None)))
    with pytest.raises(InputError, match=re.escape("Hugging Face's Mistral has one window for all layers")):
        families.of_recipe(mixed, ("clm",))
    theirs_of().save_pretrained(tmp_path)
    decoders.rewrite_config(tmp_path, layer_types=["sliding_attention", "full_attention"])
    with pytest.raises(InputError, match="layer_types is set"):
        read_folder(tmp_path)
