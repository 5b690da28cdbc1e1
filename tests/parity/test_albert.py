"""ALBERT: ours and transformers' agree, both ways."""

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

import elision
from elision import recipes
from elision.data.batch import Batch
from elision.errors import InputError
from elision.export import albert, families
from elision.export.config import Config
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.model.transformer import Transformer
from elision.text.tokenizer import Tokenizer, Unigram
from tests import tiny
from tests.parity import heads, reference

pytestmark = pytest.mark.parity

SIZES = {
    "vocab_size": reference.VOCAB_SIZE,
    "embedding_size": 24,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 20,
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny.tokenizer(Unigram(vocab_size=300, layout="albert", lowercase=True))


def theirs_of(kind: type, dtype: torch.dtype = torch.float32, **settings: object) -> transformers.PreTrainedModel:
    return reference.scrambled(kind(transformers.AlbertConfig(**SIZES | settings)), dtype)


def padded_input() -> tuple[Tensor, Tensor, Tensor]:
    """Three rows of 11 tokens, the second with 4 places of padding at its end; and their segments."""
    ids = reference.token_ids(3, 11)
    real = torch.ones(3, 11, dtype=torch.bool)
    real[1, 7:] = False
    return ids, real, (torch.arange(11) > 4).long().expand(3, 11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_imported_logits_equal_those_of_transformers(dtype: torch.dtype, groups: int, tmp_path: Path) -> None:
    # Three layers in two groups: blocks 0 and 1 share, block 2 is alone.
    theirs = theirs_of(transformers.AlbertForPreTraining, dtype, num_hidden_groups=groups)
    theirs.save_pretrained(tmp_path)
    ids, real, types = padded_input()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long(), token_type_ids=types)
    loaded = elision.load(tmp_path)
    assert (loaded.recipe.backbone.sharing, loaded.recipe.backbone.num_groups) == ("all", groups)
    reference.assert_close(loaded.logits(ids, real, types)[real], expected.prediction_logits[real])
    batch = heads.batch_of(ids, real, types)
    with torch.no_grad():
        backbone = loaded.model.eval().backbone
        ours = loaded.model.heads["sop"](backbone.pool(backbone(batch).hidden[:, 0]))
    reference.assert_close(ours, expected.sop_logits)


@pytest.mark.parametrize(("layers", "groups"), [(5, 2), (7, 3), (12, 5), (24, 7)])
def test_layers_fall_into_the_same_groups(layers: int, groups: int) -> None:
    small = {**SIZES, "num_hidden_layers": layers, "num_hidden_groups": groups}
    theirs = reference.scrambled(transformers.AlbertModel(transformers.AlbertConfig(**small)), torch.float64)
    backbone = dataclasses.replace(
        recipes.get("albert-base").backbone,
        num_layers=layers, num_groups=groups, embedding_size=24, hidden_size=32, num_heads=4, feedforward_size=48,
        positions=dataclasses.replace(recipes.get("albert-base").backbone.positions, num_positions=20),
    )  # fmt: skip
    model = backbone.build(reference.VOCAB_SIZE).double()
    table = albert.key_map(backbone, ())
    shapes = {f"backbone.{name}": value.shape for name, value in model.state_dict().items()}
    state = {f"albert.{name}": value for name, value in theirs.state_dict().items()}
    ours = table.to_ours(albert.normalise(state, "the model"), shapes, "the model")
    model.load_state_dict({name.removeprefix("backbone."): value for name, value in ours.items()})
    ids, real, types = padded_input()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long(), token_type_ids=types).last_hidden_state
        found = model.eval()(heads.batch_of(ids, real, types)).hidden
    reference.assert_close(found[real], expected[real])


def test_loss_and_every_gradient_equal_those_of_transformers(tmp_path: Path) -> None:
    theirs = theirs_of(transformers.AlbertForPreTraining, torch.float64, num_hidden_groups=2)
    theirs.save_pretrained(tmp_path)
    ids, real, types = padded_input()
    targets = torch.where(reference.token_ids(3, 11, seed=1) % 3 == 0, reference.token_ids(3, 11, seed=2), -100)
    targets[~real] = -100
    labels = torch.tensor([0, 1, 1])
    expected = theirs(
        ids, attention_mask=real.long(), token_type_ids=types, labels=targets, sentence_order_label=labels
    ).loss
    expected.backward()
    loaded = elision.load(tmp_path)
    batch: Batch = dataclasses.replace(
        heads.batch_of(ids, real, types),
        targets=targets,
        target_at=(targets.flatten() != -100).nonzero()[:, 0],
        labels=labels,
        num_targets=int((targets != -100).sum()),
    )
    terms, _ = loaded.model(batch)
    loss = sum(term.sum / term.count for term in terms.values())
    loss.backward()
    reference.assert_close(loss.detach(), expected.detach())
    table = albert.key_map(loaded.recipe.backbone, ("mlm", "sop"))
    gradients = table.to_theirs({name: value.grad for name, value in loaded.model.named_parameters()})
    names = dict(theirs.named_parameters())
    assert gradients.keys() == names.keys()
    for name, gradient in gradients.items():
        reference.assert_close(gradient, names[name].grad)
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("kind", [transformers.AlbertForPreTraining, transformers.AlbertForMaskedLM])
@pytest.mark.parametrize("groups", [1, 2])
def test_export_of_an_import_is_the_identity(kind: type, groups: int, tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs_of(kind, num_hidden_groups=groups).save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    write_checkpoint(read_folder(tmp_path / "theirs"), tmp_path / "ours")
    assert write_folder(elision.load(tmp_path / "ours"), tmp_path / "back") == kind.__name__
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    config, again = (
        transformers.AlbertConfig.from_pretrained(tmp_path / name).to_dict() for name in ("theirs", "back")
    )
    leave = ("transformers_version", "_name_or_path")
    assert {name: again[name] for name in config if name not in leave} == {
        name: value for name, value in config.items() if name not in leave
    }


def test_settings_that_config_json_does_not_name_are_those_that_transformers_assumes(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "albert", "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, '
        '"num_attention_heads": 4, "intermediate_size": 48}'
    )
    theirs = transformers.AlbertConfig.from_pretrained(tmp_path)
    ours = albert.read_backbone(Config(tmp_path / "config.json"), frozenset())
    assert (ours.activation, theirs.hidden_act) == ("gelu_tanh", "gelu_new")
    assert ours.dropout == theirs.hidden_dropout_prob == 0
    assert ours.attention_dropout == theirs.attention_probs_dropout_prob == 0
    assert ours.embedding_size == theirs.embedding_size
    assert ours.num_groups == theirs.num_hidden_groups


def exported(backbone: Transformer, tokenizer: Tokenizer, folder: Path, num_objectives: int = 2) -> tuple:
    """Write a checkpoint of a model with this backbone, export it; returns ours and theirs, and the report of loading."""
    recipe = tiny.recipe("albert-tiny")
    recipe = dataclasses.replace(recipe, backbone=backbone, objectives=recipe.objectives[:num_objectives])
    reference.save_checkpoint(folder / "ours", recipe, tokenizer)
    name = write_folder(elision.load(folder / "ours"), folder / "out")
    theirs, report = getattr(transformers, name).from_pretrained(folder / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    return elision.load(folder / "ours"), theirs


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"num_layers": 5, "num_groups": 2},
        {"sharing": "none"},
        {"embedding_size": None},
        {"activation": "relu", "dropout": 0.2},
    ],
)
def test_transformers_loads_an_export_with_equal_logits(changed: dict, tokenizer: Tokenizer, tmp_path: Path) -> None:
    backbone = dataclasses.replace(tiny.recipe("albert-tiny").backbone, **changed)
    ours, theirs = exported(backbone, tokenizer, tmp_path)
    assert isinstance(theirs, transformers.AlbertForPreTraining)
    ids, real, types = padded_input()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long(), token_type_ids=types).prediction_logits
    reference.assert_close(ours.logits(ids, real, types)[real], expected[real])
    again = elision.load(tmp_path / "out")
    reference.assert_close(again.logits(ids, real, types)[real], ours.logits(ids, real, types)[real])


def test_without_segments_and_sentence_order_it_exports_as_masked_lm(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from elision.data.segment import FullSentences

    recipe = tiny.recipe("albert-tiny")
    recipe = dataclasses.replace(
        recipe,
        segmenter=FullSentences(max_length=24, cross_documents=False),
        backbone=dataclasses.replace(recipe.backbone, num_types=0, pooler=False),
        objectives=recipe.objectives[:1],
    )
    reference.save_checkpoint(tmp_path / "ours", recipe, tokenizer)
    ours = elision.load(tmp_path / "ours")
    assert write_folder(ours, tmp_path / "out") == "AlbertForMaskedLM"
    theirs, report = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    ids, real, _ = padded_input()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long()).logits
    reference.assert_close(ours.logits(ids, real)[real], expected[real])


@pytest.mark.parametrize("sharing", ["attention", "feedforward"])
def test_sharing_a_part_of_each_layer_cannot_be_exported_and_says_so(sharing: str) -> None:
    recipe = recipes.get("albert-base")
    recipe = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, sharing=sharing))
    with pytest.raises(InputError, match=f"backbone.sharing is '{sharing}': Hugging Face's ALBERT shares whole layers"):
        families.of_recipe(recipe, ("mlm", "sop"))


def test_bert_goes_on_to_be_exported_as_bert() -> None:
    assert families.of_recipe(recipes.get("bert-base"), ("mlm", "nsp")).MODEL_TYPE == "bert"
    assert families.of_recipe(recipes.get("albert-base"), ("classification",)) is albert


CLASSES = {
    "classification": transformers.AlbertForSequenceClassification,
    "tagging": transformers.AlbertForTokenClassification,
    "answering": transformers.AlbertForQuestionAnswering,
}


@pytest.mark.parametrize("name", CLASSES)
def test_heads_for_fine_tuning_agree_both_ways(name: str, tmp_path: Path) -> None:
    theirs = theirs_of(CLASSES[name], num_labels=2 if name == "answering" else 3, num_hidden_groups=2)
    theirs.save_pretrained(tmp_path)
    state = albert.normalise(dict(theirs.state_dict()), "the model")
    assert name in albert.heads_in(frozenset(state))
    backbone = albert.read_backbone(Config(tmp_path / "config.json"), frozenset(state))
    heads.agree(theirs, heads.loaded_from(theirs, albert, backbone, name), name, segments=True)
    # With other weights, the other way.
    model = heads.build(backbone, name)
    heads.load_into(theirs, albert, model)
    heads.agree(theirs, model, name, segments=True)


def test_auto_tokenizer_of_an_export_gives_identical_ids(tokenizer: Tokenizer, tmp_path: Path) -> None:
    reference.save_checkpoint(tmp_path / "ours", tiny.recipe("albert-tiny"), tokenizer)
    write_folder(elision.load(tmp_path / "ours"), tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in ("ba do kilume [MASK] nora.", "Ba DO, zz!", ""):
        assert theirs(text)["input_ids"] == tokenizer.encode(text, add_special_tokens=True)
    assert theirs("ba do", "ki lu")["token_type_ids"] == tokenizer.raw.encode("ba do", "ki lu").type_ids
