"""DistilBERT: ours and transformers' agree, both ways."""

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

import elision
from elision import recipes
from elision.errors import InputError
from elision.export import bert, distilbert, families, roberta
from elision.export.config import Config
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.text.tokenizer import Tokenizer
from tests import tiny
from tests.parity import heads, reference

pytestmark = pytest.mark.parity

SIZES = {
    "vocab_size": reference.VOCAB_SIZE,
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 48,
    "max_position_embeddings": 20,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny.tokenizer(tiny.WORDPIECE)


def theirs_of(kind: type, dtype: torch.dtype = torch.float32, **settings: object) -> transformers.PreTrainedModel:
    return reference.scrambled(kind(transformers.DistilBertConfig(**SIZES | settings)), dtype)


def padded_input() -> tuple[Tensor, Tensor]:
    """Three rows of 11 tokens, the second with 4 places of padding at its end."""
    ids = reference.token_ids(3, 11)
    real = torch.ones(3, 11, dtype=torch.bool)
    real[1, 7:] = False
    return ids, real


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("settings", [{}, {"activation": "relu"}, {"sinusoidal_pos_embds": True}])
def test_imported_logits_equal_those_of_transformers(dtype: torch.dtype, settings: dict, tmp_path: Path) -> None:
    theirs = theirs_of(transformers.DistilBertForMaskedLM, dtype, **settings)
    theirs.save_pretrained(tmp_path)
    ids, real = padded_input()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long()).logits
    reference.assert_close(elision.load(tmp_path).logits(ids, real)[real], expected[real])


def test_states_of_a_model_without_heads_equal(tmp_path: Path) -> None:
    theirs = theirs_of(transformers.DistilBertModel)
    theirs.save_pretrained(tmp_path)
    loaded = elision.load(tmp_path)
    assert [objective.name for objective in loaded.recipe.objectives] == ["mlm"] and len(loaded.notes) == 1
    ids, real = padded_input()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long()).last_hidden_state
        found = loaded.model.backbone(heads.batch_of(ids, real, None)).hidden
    reference.assert_close(found[real], expected[real])


def test_loss_and_every_gradient_equal_those_of_transformers(tmp_path: Path) -> None:
    theirs = theirs_of(transformers.DistilBertForMaskedLM, torch.float64)
    theirs.save_pretrained(tmp_path)
    ids, real = padded_input()
    targets = torch.where(reference.token_ids(3, 11, seed=1) % 3 == 0, reference.token_ids(3, 11, seed=2), -100)
    targets[~real] = -100
    expected = theirs(ids, attention_mask=real.long(), labels=targets).loss
    expected.backward()
    loaded = elision.load(tmp_path)
    batch = dataclasses.replace(
        heads.batch_of(ids, real, None),
        targets=targets,
        target_at=(targets.flatten() != -100).nonzero()[:, 0],
        num_targets=int((targets != -100).sum()),
    )
    terms, _ = loaded.model(batch)
    loss = terms["mlm"].sum / terms["mlm"].count
    loss.backward()
    reference.assert_close(loss.detach(), expected.detach())
    table = distilbert.key_map(loaded.recipe.backbone, ("mlm",))
    gradients = table.to_theirs({name: value.grad for name, value in loaded.model.named_parameters()})
    names = dict(theirs.named_parameters())
    assert gradients.keys() == names.keys()
    for name, gradient in gradients.items():
        reference.assert_close(gradient, names[name].grad)
        assert gradient.abs().max() > 0, name


def test_export_of_an_import_is_the_identity(tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs_of(transformers.DistilBertForMaskedLM).save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    write_checkpoint(read_folder(tmp_path / "theirs"), tmp_path / "ours")
    assert write_folder(elision.load(tmp_path / "ours"), tmp_path / "back") == "DistilBertForMaskedLM"
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    config, again = (
        transformers.DistilBertConfig.from_pretrained(tmp_path / name).to_dict() for name in ("theirs", "back")
    )
    leave = ("transformers_version", "_name_or_path")
    assert {name: again[name] for name in config if name not in leave} == {
        name: value for name, value in config.items() if name not in leave
    }


def test_a_student_exports_without_its_teacher_and_auto_classes_load_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    recipe = tiny.recipe("distilbert-tiny", teacher=str(tmp_path / "nowhere"))
    reference.save_checkpoint(tmp_path / "ours", recipe, tokenizer)
    ours = elision.load(tmp_path / "ours")
    assert write_folder(ours, tmp_path / "out") == "DistilBertForMaskedLM"
    theirs, report = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    ids, real = padded_input()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long()).logits
    reference.assert_close(ours.logits(ids, real)[real], expected[real])
    reference.assert_close(elision.load(tmp_path / "out").logits(ids, real)[real], expected[real])
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "ba do kilume [MASK] nora."
    assert words(text)["input_ids"] == tokenizer.encode(text, add_special_tokens=True)


def test_which_layout_a_student_has() -> None:
    assert families.of_recipe(recipes.get("distilbert-base"), ("mlm",)) is distilbert
    assert families.of_recipe(recipes.get("distilbert-roberta-base"), ("mlm",)) is roberta
    assert families.of_recipe(recipes.get("bert-base"), ("classification",)) is bert


def test_another_epsilon_cannot_be_exported_and_says_so() -> None:
    recipe = recipes.get("distilbert-base")
    recipe = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, norm_eps=1e-5))
    with pytest.raises(InputError, match="norm_eps is 1e-05: Hugging Face's DistilBERT only knows 1e-12"):
        families.of_recipe(recipe, ("mlm",))


def test_the_published_size_has_its_published_number_of_parameters() -> None:
    recipe = recipes.get("distilbert-base")
    with torch.device("meta"):
        model = recipe.backbone.build(recipe.tokenizer.vocab_size)
    assert sum(parameter.numel() for parameter in model.parameters()) == 66_362_880


CLASSES = {
    "classification": transformers.DistilBertForSequenceClassification,
    "tagging": transformers.DistilBertForTokenClassification,
    "answering": transformers.DistilBertForQuestionAnswering,
}


@pytest.mark.parametrize("name", CLASSES)
def test_heads_for_fine_tuning_agree_both_ways(name: str, tmp_path: Path) -> None:
    theirs = theirs_of(CLASSES[name], num_labels=2 if name == "answering" else 3)
    theirs.save_pretrained(tmp_path)
    state = distilbert.normalise(dict(theirs.state_dict()), "the model")
    assert name in distilbert.heads_in(frozenset(state))
    backbone = distilbert.read_backbone(Config(tmp_path / "config.json"), frozenset(state))
    heads.agree(theirs, heads.loaded_from(theirs, distilbert, backbone, name), name, segments=False)
    # With other weights, the other way.
    model = heads.build(backbone, name)
    heads.load_into(theirs, distilbert, model)
    heads.agree(theirs, model, name, segments=False)
