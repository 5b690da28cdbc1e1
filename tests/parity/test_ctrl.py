"""CTRL: ours and transformers' agree, both ways."""

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

import elision
from elision.errors import InputError
from elision.export import ctrl
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.model.position import SinusoidalPositions
from elision.objectives import CausalLM
from elision.text.tokenizer import Tokenizer
from tests import tiny
from tests.parity import heads, reference

pytestmark = pytest.mark.parity


def build(kind: type, dtype: torch.dtype = torch.float32, **settings: object) -> transformers.PreTrainedModel:
    """Return a CTRL of the given class: 2 layers, width 32, 20 positions."""
    config = {"vocab_size": reference.VOCAB_SIZE, "n_embd": 32, "n_layer": 2, "n_head": 4, "dff": 48, "n_positions": 20}
    return reference.scrambled(kind(transformers.CTRLConfig(**config | settings)), dtype)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny.tokenizer(tiny.BYTES)


@pytest.mark.parametrize("kind", [transformers.CTRLLMHeadModel, transformers.CTRLModel])
def test_imported_logits_equal_those_of_transformers(kind: type, tmp_path: Path) -> None:
    theirs = build(kind)
    theirs.save_pretrained(tmp_path)
    ids = reference.token_ids(3, 11)
    real = torch.ones(3, 11, dtype=torch.bool)
    real[1, 7:] = False
    with torch.no_grad():
        output = theirs(ids, attention_mask=real.long())
        expected = output.logits if hasattr(output, "logits") else output.last_hidden_state @ theirs.w.weight.T
    reference.assert_close(elision.load(tmp_path).logits(ids, visible=real)[real], expected[real])


def test_in_float64_only_the_rounding_of_the_sines_differs(tmp_path: Path) -> None:
    theirs = build(transformers.CTRLLMHeadModel, torch.float64)
    theirs.save_pretrained(tmp_path)
    loaded, ids = elision.load(tmp_path), reference.token_ids(2, 11)
    table = loaded.model.backbone.embeddings.positions.table
    # Both compute them in float32, each in an order of its own.
    assert float((table - theirs.transformer.pos_encoding).abs().max()) < 1e-5
    table.copy_(theirs.transformer.pos_encoding)
    with torch.no_grad():
        expected = theirs(ids).logits
    reference.assert_close(loaded.logits(ids), expected)


def test_export_of_an_import_is_the_identity(tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs = build(transformers.CTRLLMHeadModel, vocab_size=tokenizer.vocabulary.size)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    write_checkpoint(read_folder(tmp_path / "theirs"), tmp_path / "ours")
    assert write_folder(elision.load(tmp_path / "ours"), tmp_path / "back") == "CTRLLMHeadModel"
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    assert before.keys() == after.keys() and "lm_head.bias" in before
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_auto_class_and_pipeline_load_an_export(tokenizer: Tokenizer, tmp_path: Path) -> None:
    reference.save_checkpoint(tmp_path / "ours", tiny.recipe("ctrl-tiny"), tokenizer)
    ours = elision.load(tmp_path / "ours")
    assert write_folder(ours, tmp_path / "out") == "CTRLLMHeadModel"
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    ids = reference.token_ids(2, 11)
    with torch.no_grad():
        expected = theirs(ids).logits
    reference.assert_close(ours.logits(ids), expected)
    pipe = transformers.pipeline("text-generation", model=str(tmp_path / "out"), device="cpu")
    (text,) = pipe("ba do", max_new_tokens=4, do_sample=False)
    assert text["generated_text"].startswith("ba do")


def test_a_classifier_says_the_same_on_both_sides() -> None:
    backbone = tiny.recipe("ctrl-tiny").backbone
    model = heads.build(backbone, "classification")
    config = ctrl.write_config(backbone, ("classification",), reference.VOCAB_SIZE, tiny.vocabulary(300))
    theirs = transformers.CTRLForSequenceClassification(
        transformers.CTRLConfig(**config | {"num_labels": 3, "pad_token_id": 0})
    )
    heads.load_into(theirs, ctrl, model)
    ids = reference.token_ids(3, 11)
    real = torch.ones(3, 11, dtype=torch.bool)
    real[1, 7:] = False
    ids[~real] = 0
    batch = heads.batch_of(ids, real, None)
    batch.summary_at = torch.tensor([10, 11 + 6, 22 + 10])
    with torch.no_grad():
        expected = theirs.eval()(ids, attention_mask=real.long()).logits
    reference.assert_close(heads.scores(model, batch), expected)
    again = heads.loaded_from(theirs, ctrl, backbone, "classification")
    reference.assert_close(heads.scores(again, batch), expected)


@pytest.mark.parametrize(
    "field, value",
    [
        ("positions", SinusoidalPositions(32, layout="interleaved")),
        ("norm_eps", 1e-5),
        ("scale_embeddings", False),
        ("activation", "gelu"),
        ("windows", (4,)),
    ],
)
def test_what_has_no_counterpart_is_refused(field: str, value: object, tokenizer: Tokenizer, tmp_path: Path) -> None:
    recipe = tiny.recipe("ctrl-tiny")
    recipe = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, **{field: value}))
    reference.save_checkpoint(tmp_path / "ours", recipe, tokenizer)
    with pytest.raises(InputError, match=rf"backbone\.{field}"):
        write_folder(elision.load(tmp_path / "ours"), tmp_path / "out")


def test_a_head_without_a_bias_has_no_layout(tokenizer: Tokenizer, tmp_path: Path) -> None:
    recipe = dataclasses.replace(tiny.recipe("ctrl-tiny"), objectives=(CausalLM(),))
    reference.save_checkpoint(tmp_path / "ours", recipe, tokenizer)
    with pytest.raises(InputError, match=r"backbone\.\w+ is"):
        write_folder(elision.load(tmp_path / "ours"), tmp_path / "out")


def test_a_bias_that_gpt2_has_no_place_for_is_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    recipe = dataclasses.replace(tiny.recipe("gpt2-tiny"), objectives=(CausalLM(bias=True),))
    reference.save_checkpoint(tmp_path / "ours", recipe, tokenizer)
    with pytest.raises(InputError, match=r"no place for heads\.clm\.bias"):
        write_folder(elision.load(tmp_path / "ours"), tmp_path / "out")


def test_another_epsilon_is_refused(tmp_path: Path) -> None:
    theirs = build(transformers.CTRLLMHeadModel, layer_norm_epsilon=1e-5)
    theirs.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="layer_norm_epsilon is 1e-05"):
        elision.load(tmp_path)
