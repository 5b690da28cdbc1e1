"""BERT: ours and transformers' agree, both ways."""

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

import elision
from elision.data.batch import Batch
from elision.data.segment import Chunks
from elision.export import bert
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.text.tokenizer import Tokenizer
from tests import tiny
from tests.parity import reference

pytestmark = pytest.mark.parity

KINDS = [
    transformers.BertForPreTraining,
    transformers.BertForMaskedLM,
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny.tokenizer(tiny.WORDPIECE)


def padded_input() -> tuple[Tensor, Tensor, Tensor]:
    """Three rows of 11 tokens, the second with 4 places of padding at its end; and their segments."""
    ids = reference.token_ids(3, 11)
    real = torch.ones(3, 11, dtype=torch.bool)
    real[1, 7:] = False
    return ids, real, (torch.arange(11) > 4).long().expand(3, 11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
def test_imported_logits_equal_those_of_transformers(
    kind: type, dtype: torch.dtype, activation: str, tmp_path: Path
) -> None:
    theirs = reference.bert(kind, dtype, hidden_act=activation)
    theirs.save_pretrained(tmp_path)
    ids, real, types = padded_input()
    with torch.no_grad():
        output = theirs(ids, attention_mask=real.long(), token_type_ids=types)
    expected = output.prediction_logits if hasattr(output, "prediction_logits") else output.logits
    logits = elision.load(tmp_path).logits(ids, visible=real, type_ids=types)
    reference.assert_close(logits[real], expected[real])


def test_sight_given_for_each_pair_of_tokens_agrees_with_a_mask_of_that_shape(tmp_path: Path) -> None:
    theirs = reference.bert(transformers.BertForMaskedLM)
    theirs.save_pretrained(tmp_path)
    ids, _, types = padded_input()
    visible = torch.rand(3, 11, 11, generator=torch.Generator().manual_seed(1)) < 0.5
    visible |= torch.eye(11, dtype=torch.bool)
    additive = torch.where(visible, 0.0, torch.finfo(torch.float32).min)[:, None]
    with torch.no_grad():
        expected = theirs(ids, attention_mask=additive, token_type_ids=types).logits
    reference.assert_close(elision.load(tmp_path).logits(ids, visible, types), expected)


def test_loss_and_every_gradient_equal_those_of_transformers(tmp_path: Path) -> None:
    theirs = reference.bert(transformers.BertForPreTraining, torch.float64)
    theirs.save_pretrained(tmp_path)
    ids, real, types = padded_input()
    targets = torch.where(reference.token_ids(3, 11, seed=1) % 3 == 0, reference.token_ids(3, 11, seed=2), -100)
    targets[~real] = -100
    labels = torch.tensor([0, 1, 1])
    expected = theirs(
        ids, attention_mask=real.long(), token_type_ids=types, labels=targets, next_sentence_label=labels
    ).loss
    expected.backward()

    loaded = elision.load(tmp_path)
    batch = Batch(
        inputs=ids,
        positions=torch.arange(11).expand(3, 11),
        doc_ids=real.long(),
        targets=targets,
        target_at=(targets.flatten() != -100).nonzero()[:, 0],
        summary_at=torch.arange(3) * 11,
        type_ids=types,
        labels=labels,
        num_targets=int((targets != -100).sum()),
        num_examples=3,
        num_tokens=int(real.sum()),
    )
    terms, _ = loaded.model(batch)
    loss = sum(term.sum / term.count for term in terms.values())
    loss.backward()
    reference.assert_close(loss.detach(), expected.detach())
    table = bert.key_map(loaded.recipe.backbone, ("mlm", "nsp"))
    gradients = table.to_theirs({name: value.grad for name, value in loaded.model.named_parameters()})
    names = dict(theirs.named_parameters())
    assert gradients.keys() == names.keys()
    for name, gradient in gradients.items():
        reference.assert_close(gradient, names[name].grad)
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_export_of_an_import_is_the_identity(kind: type, tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs = reference.bert(kind)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    write_checkpoint(read_folder(tmp_path / "theirs"), tmp_path / "ours")
    assert write_folder(elision.load(tmp_path / "ours"), tmp_path / "back") == kind.__name__
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    config, again = (transformers.BertConfig.from_pretrained(tmp_path / name).to_dict() for name in ("theirs", "back"))
    assert {name: again[name] for name in config if name not in ("transformers_version", "_name_or_path")} == {
        name: value for name, value in config.items() if name not in ("transformers_version", "_name_or_path")
    }


@pytest.mark.parametrize("name", ["bert-tiny", "bert-tiny-whole-word"])
def test_auto_classes_load_an_export_with_equal_logits(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    recipe = tiny.recipe(name)
    model = reference.save_checkpoint(tmp_path / "ours", recipe, tokenizer)
    assert write_folder(elision.load(tmp_path / "ours"), tmp_path / "out") == "BertForPreTraining"
    ids, real, types = padded_input()
    ours = elision.load(tmp_path / "ours")
    logits = ours.logits(ids, real, types)
    mask = {"attention_mask": real.long(), "token_type_ids": types}
    with torch.no_grad():
        full = transformers.AutoModelForPreTraining.from_pretrained(tmp_path / "out")(ids, **mask)
        masked = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out")(ids, **mask)
        batch, _ = ours._batch(ids, real, types, None)
        pooled = model.backbone.pool(model.eval().backbone(batch).hidden[:, 0])
        reference.assert_close(model.heads["nsp"](pooled), full.seq_relationship_logits)
    assert type(full).__name__ == "BertForPreTrainingOutput"
    reference.assert_close(logits[real], full.prediction_logits[real])
    reference.assert_close(logits[real], masked.logits[real])


def test_a_recipe_without_next_sentences_or_segments_exports_as_masked_lm(tokenizer: Tokenizer, tmp_path: Path) -> None:
    recipe = tiny.recipe("bert-tiny")
    recipe = dataclasses.replace(
        recipe,
        segmenter=Chunks(max_length=24, cross_documents=False),
        backbone=dataclasses.replace(recipe.backbone, num_types=0, pooler=False),
        objectives=recipe.objectives[:1],
    )
    reference.save_checkpoint(tmp_path / "ours", recipe, tokenizer)
    ours = elision.load(tmp_path / "ours")
    assert write_folder(ours, tmp_path / "out") == "BertForMaskedLM"
    ids, real, _ = padded_input()
    theirs, report = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long()).logits
    reference.assert_close(ours.logits(ids, real)[real], expected[real])
    reference.assert_close(elision.load(tmp_path / "out").logits(ids, real), ours.logits(ids, real))


def test_old_pickled_files_with_gamma_beta_and_no_prefix_are_read(tmp_path: Path) -> None:
    theirs = reference.bert(transformers.BertForMaskedLM)
    theirs.config.save_pretrained(tmp_path)
    old = {"embeddings.position_ids": torch.arange(20)[None]}
    for name, value in theirs.state_dict().items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        old[name.removeprefix("bert.")] = value
    del old["cls.predictions.bias"]
    assert "cls.predictions.decoder.weight" in old and "cls.predictions.decoder.bias" in old
    torch.save(old, tmp_path / "pytorch_model.bin")
    ids, real, types = padded_input()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long(), token_type_ids=types).logits
    reference.assert_close(elision.load(tmp_path).logits(ids, real, types)[real], expected[real])


def test_shards_are_read_as_one_file(tmp_path: Path) -> None:
    theirs = reference.bert(transformers.BertForMaskedLM)
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    ids, _, types = padded_input()
    with torch.no_grad():
        expected = theirs(ids, token_type_ids=types).logits
    reference.assert_close(elision.load(tmp_path).logits(ids, type_ids=types), expected)


def test_states_of_a_model_without_heads_equal_and_its_heads_start_anew(tmp_path: Path) -> None:
    theirs = reference.bert(transformers.BertModel)
    theirs.save_pretrained(tmp_path)
    loaded = elision.load(tmp_path)
    assert [objective.name for objective in loaded.recipe.objectives] == ["mlm", "nsp"]
    assert len(loaded.notes) == 2 and all("a new one" in note for note in loaded.notes)
    ids, real, types = padded_input()
    batch, _ = loaded._batch(ids, real, types, None)
    with torch.no_grad():
        output = theirs(ids, attention_mask=real.long(), token_type_ids=types)
        hidden = loaded.model.backbone(batch).hidden
        reference.assert_close(hidden[real], output.last_hidden_state[real])
        reference.assert_close(loaded.model.backbone.pool(hidden[:, 0]), output.pooler_output)


def test_half_precision_weights_are_kept_by_import_and_export(tokenizer: Tokenizer, tmp_path: Path) -> None:
    reference.bert(transformers.BertForMaskedLM, torch.bfloat16).save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    write_checkpoint(read_folder(tmp_path / "theirs"), tmp_path / "ours")
    write_folder(elision.load(tmp_path / "ours", dtype="stored"), tmp_path / "back")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    assert all(torch.equal(before[name], after[name]) and after[name].dtype == torch.bfloat16 for name in before)
    assert transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "back").dtype == torch.bfloat16
    assert elision.load(tmp_path / "ours").logits([5, 6, 7]).dtype == torch.float32


def test_auto_tokenizer_of_an_export_gives_identical_ids(tokenizer: Tokenizer, tmp_path: Path) -> None:
    reference.save_checkpoint(tmp_path / "ours", tiny.recipe("bert-tiny"), tokenizer)
    write_folder(elision.load(tmp_path / "ours"), tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in ("ba do kilume [MASK] nora.", "Ünïcode and 한국어 zz!", ""):
        assert theirs(text)["input_ids"] == tokenizer.encode(text, add_special_tokens=True)
    assert theirs.mask_token == "[MASK]" and theirs.pad_token_id == 0
    assert theirs.model_max_length == tiny.SIZES["num_positions"]
    assert theirs("ba do", "ki lu")["token_type_ids"] == tokenizer.raw.encode("ba do", "ki lu").type_ids


def test_packed_rows_give_the_logits_of_their_texts_alone(tokenizer: Tokenizer, tmp_path: Path) -> None:
    reference.save_checkpoint(tmp_path / "ours", tiny.recipe("bert-tiny"), tokenizer)
    loaded = elision.load(tmp_path / "ours")
    ids = reference.token_ids(1, 12)
    batch, _ = loaded._batch(ids, None, None, torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]]))
    packed = dataclasses.replace(batch, doc_ids=torch.tensor([[1] * 5 + [2] * 7]), whole_rows=False)
    with torch.no_grad():
        logits = loaded.model.logits(packed)
    reference.assert_close(logits[:, :5], loaded.logits(ids[:, :5]))
    reference.assert_close(logits[:, 5:], loaded.logits(ids[:, 5:]))
