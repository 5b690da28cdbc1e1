"""GPT-1: ours and transformers' OpenAIGPT agree, both ways."""

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

import elision
from elision.errors import InputError
from elision.export import openai_gpt
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.text.tokenizer import Tokenizer
from tests import tiny
from tests.parity import heads, reference

pytestmark = pytest.mark.parity


def build(kind: type, dtype: torch.dtype = torch.float32, **settings: object) -> transformers.PreTrainedModel:
    """Return a GPT-1 of the given class: 2 layers, width 32, 20 positions."""
    config = {"vocab_size": reference.VOCAB_SIZE, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 20}
    return reference.scrambled(kind(transformers.OpenAIGPTConfig(**config | settings)), dtype)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny.tokenizer(tiny.BYTES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("afn", ["gelu", "relu", "silu"])
def test_imported_logits_equal_those_of_transformers(afn: str, dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = build(transformers.OpenAIGPTLMHeadModel, dtype, afn=afn)
    theirs.save_pretrained(tmp_path)
    ids = reference.token_ids(3, 11)
    real = torch.ones(3, 11, dtype=torch.bool)
    real[1, 7:] = False
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long()).logits
    reference.assert_close(elision.load(tmp_path).logits(ids, visible=real)[real], expected[real])


def test_the_body_alone_can_be_read(tmp_path: Path) -> None:
    theirs = build(transformers.OpenAIGPTModel)
    theirs.save_pretrained(tmp_path)
    ids = reference.token_ids(2, 11)
    with torch.no_grad():
        expected = theirs(ids).last_hidden_state @ theirs.tokens_embed.weight.T
    reference.assert_close(elision.load(tmp_path).logits(ids), expected)


def test_export_of_an_import_is_the_identity(tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs = build(transformers.OpenAIGPTLMHeadModel, vocab_size=tokenizer.vocabulary.size)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    write_checkpoint(read_folder(tmp_path / "theirs"), tmp_path / "ours")
    assert write_folder(elision.load(tmp_path / "ours"), tmp_path / "back") == "OpenAIGPTLMHeadModel"
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_auto_class_and_pipeline_load_an_export(tokenizer: Tokenizer, tmp_path: Path) -> None:
    reference.save_checkpoint(tmp_path / "ours", tiny.recipe("gpt1-tiny", feedforward_size=128), tokenizer)
    ours = elision.load(tmp_path / "ours")
    assert write_folder(ours, tmp_path / "out") == "OpenAIGPTLMHeadModel"
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
    backbone = tiny.recipe("gpt1-tiny").backbone
    backbone = dataclasses.replace(backbone, feedforward_size=4 * backbone.hidden_size)
    model = heads.build(backbone, "classification")
    config = openai_gpt.write_config(backbone, ("classification",), reference.VOCAB_SIZE, tiny.vocabulary(300))
    theirs = transformers.OpenAIGPTForSequenceClassification(
        transformers.OpenAIGPTConfig(**config | {"num_labels": 3, "pad_token_id": 0})
    )
    heads.load_into(theirs, openai_gpt, model)
    ids = reference.token_ids(3, 11)
    real = torch.ones(3, 11, dtype=torch.bool)
    real[1, 7:] = False
    ids[~real] = 0
    batch = heads.batch_of(ids, real, None)
    batch.summary_at = torch.tensor([10, 11 + 6, 22 + 10])
    with torch.no_grad():
        expected = theirs.eval()(ids, attention_mask=real.long()).logits
    reference.assert_close(heads.scores(model, batch), expected)
    again = heads.loaded_from(theirs, openai_gpt, backbone, "classification")
    reference.assert_close(heads.scores(again, batch), expected)


def test_old_files_without_prefix_and_with_buffers_are_read(tmp_path: Path) -> None:
    theirs = build(transformers.OpenAIGPTLMHeadModel)
    theirs.config.save_pretrained(tmp_path)
    old = {name.removeprefix("transformer."): value for name, value in theirs.state_dict().items()}
    old |= {"h.0.attn.bias": torch.ones(1, 1, 20, 20).tril(), "position_ids": torch.arange(20)}
    torch.save(old, tmp_path / "pytorch_model.bin")
    ids = reference.token_ids(2, 11)
    with torch.no_grad():
        expected = theirs(ids).logits
    reference.assert_close(elision.load(tmp_path).logits(ids), expected)


@pytest.mark.parametrize("field, value", [("feedforward_size", 80), ("activation", "gelu"), ("windows", (None, 4))])
def test_what_has_no_counterpart_is_refused(field: str, value: object, tokenizer: Tokenizer, tmp_path: Path) -> None:
    recipe = tiny.recipe("gpt1-tiny")
    backbone = dataclasses.replace(recipe.backbone, **{"feedforward_size": 128, field: value})
    reference.save_checkpoint(tmp_path / "ours", dataclasses.replace(recipe, backbone=backbone), tokenizer)
    with pytest.raises(InputError, match=rf"backbone\.{field} is"):
        write_folder(elision.load(tmp_path / "ours"), tmp_path / "out")
