"""SpanBERT: exported as the BERT that it is, without a pooler and without the head over span boundaries."""

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

import elision
from elision import recipes
from elision.export import bert, families
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.text.tokenizer import Tokenizer, WordPiece
from tests import tiny
from tests.parity import heads, reference

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny.tokenizer(WordPiece(300, lowercase=False))


def padded_input() -> tuple[Tensor, Tensor]:
    """Three rows of 11 tokens, the second with 4 places of padding at its end."""
    ids = reference.token_ids(3, 11)
    real = torch.ones(3, 11, dtype=torch.bool)
    real[1, 7:] = False
    return ids, real


def test_an_export_is_a_bert_for_masked_tokens_with_equal_logits(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = reference.save_checkpoint(tmp_path / "ours", tiny.recipe("spanbert-tiny"), tokenizer)
    ours = elision.load(tmp_path / "ours")
    assert write_folder(ours, tmp_path / "out") == "BertForMaskedLM"
    theirs, report = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    ids, real = padded_input()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long()).logits
    reference.assert_close(ours.logits(ids, real)[real], expected[real])
    reference.assert_close(elision.load(tmp_path / "out").logits(ids, real), ours.logits(ids, real))
    stored = sum(value.numel() for value in load_file(tmp_path / "out" / "model.safetensors").values())
    assert stored == model.num_parameters() - sum(p.numel() for p in model.heads["sbo"].parameters())


def test_the_states_equal_those_of_bert_model(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = reference.save_checkpoint(tmp_path / "ours", tiny.recipe("spanbert-tiny"), tokenizer)
    write_folder(elision.load(tmp_path / "ours"), tmp_path / "out")
    theirs = transformers.BertModel.from_pretrained(tmp_path / "out", add_pooling_layer=False)
    ids, real = padded_input()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long()).last_hidden_state
        hidden = model.eval().backbone(heads.batch_of(ids, real, None)).hidden
    reference.assert_close(hidden[real], expected[real])


def test_a_released_conversion_is_read_and_its_heads_start_anew(tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs = reference.bert(transformers.BertModel)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    write_checkpoint(read_folder(tmp_path / "theirs"), tmp_path / "ours")
    ids, real = padded_input()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long()).last_hidden_state
        hidden = elision.load(tmp_path / "ours").model.backbone(heads.batch_of(ids, real, None)).hidden
    reference.assert_close(hidden[real], expected[real])


HEADS = {
    "classification": transformers.BertForSequenceClassification,
    "tagging": transformers.BertForTokenClassification,
    "answering": transformers.BertForQuestionAnswering,
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_for_fine_tuning_agree_both_ways(name: str) -> None:
    backbone = dataclasses.replace(tiny.recipe("spanbert-tiny").backbone, dropout=0.0)
    theirs = reference.bert(
        HEADS[name],
        num_labels=2 if name == "answering" else 3,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    assert bert.ARCHITECTURES[(name,)] == HEADS[name].__name__
    heads.agree(theirs, heads.loaded_from(theirs, bert, backbone, name), name, segments=True)
    model = heads.build(backbone, name)
    heads.load_into(theirs, bert, model)
    heads.agree(theirs, model, name, segments=True)


@pytest.mark.parametrize(("size", "count"), [("base", 107_719_680), ("large", 332_529_664)])
def test_parameter_counts_are_those_of_bert_cased_without_its_pooler(size: str, count: int) -> None:
    recipe = recipes.get(f"spanbert-{size}")
    with torch.device("meta"):
        model = recipe.backbone.build(recipe.tokenizer.vocab_size)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert families.of_recipe(recipe, ("mlm",)) is bert
