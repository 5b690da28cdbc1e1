"""ELECTRA: ours and transformers' agree, both ways: discriminator, generator, both in one, and the heads of fine-tuning."""

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

import elision
from elision.errors import InputError
from elision.export import electra
from elision.export.config import Config
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.model.language_model import LanguageModel
from elision.objectives import MaskedLM, ReplacedMLM, ReplacedTokens
from elision.objectives.generator import Generator
from elision.text.tokenizer import Tokenizer
from tests import tiny
from tests.parity import heads, reference

pytestmark = pytest.mark.parity

SIZES = {
    "vocab_size": reference.VOCAB_SIZE,
    "embedding_size": 24,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 20,
}
# As a generator a quarter as wide has them.
GENERATOR_SIZES = SIZES | {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 12}
WIDTHS = [24, 32]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny.tokenizer(tiny.WORDPIECE)


def theirs_of(kind: str, dtype: torch.dtype = torch.float32, **settings: object) -> transformers.PreTrainedModel:
    """Return a model of the given class, named without "Electra": 2 layers, width 32, 20 positions."""
    config = transformers.ElectraConfig(**SIZES | settings)
    return reference.scrambled(getattr(transformers, f"Electra{kind}")(config), dtype)


def padded_input() -> tuple[Tensor, Tensor, Tensor]:
    """Three rows of 11 tokens, the second with 4 places of padding at its end; and their segments."""
    ids = reference.token_ids(3, 11)
    real = torch.ones(3, 11, dtype=torch.bool)
    real[1, 7:] = False
    return ids, real, (torch.arange(11) > 4).long().expand(3, 11)


def judged(loaded: elision.loaded.Loaded, ids: Tensor, real: Tensor, types: Tensor) -> Tensor:
    """Return the logits [B, T] of having been replaced."""
    model = loaded.model
    with torch.no_grad():
        hidden_BTD = model.backbone(heads.batch_of(ids, real, types)).hidden
        return model.heads["rtd"](hidden_BTD.flatten(0, 1)).view(ids.shape)


@pytest.mark.parametrize("width", WIDTHS)
def test_states_of_a_model_without_heads_equal_and_its_heads_start_anew(width: int, tmp_path: Path) -> None:
    theirs = theirs_of("Model", embedding_size=width)
    assert hasattr(theirs, "embeddings_project") == (width == 24)
    theirs.save_pretrained(tmp_path)
    loaded = elision.load(tmp_path)
    assert [objective.name for objective in loaded.recipe.objectives] == ["rtd"] and "a new one" in loaded.notes[0]
    ids, real, types = padded_input()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long(), token_type_ids=types).last_hidden_state
        hidden = loaded.model.backbone(heads.batch_of(ids, real, types)).hidden
    reference.assert_close(hidden[real], expected[real])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", WIDTHS)
def test_an_imported_discriminator_judges_as_theirs(width: int, dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = theirs_of("ForPreTraining", dtype, embedding_size=width)
    theirs.save_pretrained(tmp_path)
    loaded = elision.load(tmp_path)
    assert loaded.notes == ["the file has no generator for rtd: a new one, not yet trained, stands in"]
    ids, real, types = padded_input()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long(), token_type_ids=types).logits
    reference.assert_close(judged(loaded, ids, real, types)[real], expected[real])


def test_loss_over_all_tokens_and_every_gradient_equal_those_of_transformers(tmp_path: Path) -> None:
    theirs = theirs_of("ForPreTraining")
    theirs.save_pretrained(tmp_path)
    ids, real, types = padded_input()
    targets = torch.where(reference.token_ids(3, 11, seed=1) % 3 == 0, ids, -100)
    targets[0, 3], targets[2, 5] = ids[0, 3] + 1, ids[2, 5] + 1
    targets[~real] = -100
    labels = ((targets != -100) & (targets != ids)).long()
    assert labels.sum() == 2
    expected = theirs(ids, attention_mask=real.long(), token_type_ids=types, labels=labels).loss
    expected.backward()

    loaded = elision.load(tmp_path)
    model, (objective,) = loaded.model, loaded.model.objectives
    # The batch as it is when the generator has done its part.
    batch = dataclasses.replace(heads.batch_of(ids, real, types), targets=targets, num_tokens=int(real.sum()))
    term = objective.after(model.heads["rtd"], model.backbone, model.backbone(batch), batch)["rtd"]
    loss = term.sum / term.count
    loss.backward()
    assert term.count == 29 and term.weight == 50
    reference.assert_close(loss.detach(), expected.detach())
    table = electra.key_map(loaded.recipe.backbone, ("rtd",))
    found = {name: value.grad for name, value in model.named_parameters() if ".generator." not in name}
    gradients, names = table.to_theirs(found), dict(theirs.named_parameters())
    assert gradients.keys() == names.keys()
    for name, gradient in gradients.items():
        reference.assert_close(gradient, names[name].grad)
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", WIDTHS)
def test_an_imported_generator_alone_is_a_masked_language_model(width: int, dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = theirs_of("ForMaskedLM", dtype, embedding_size=width)
    theirs.save_pretrained(tmp_path)
    loaded = elision.load(tmp_path)
    assert loaded.recipe.objectives == (MaskedLM(),) and loaded.notes == []
    ids, real, types = padded_input()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long(), token_type_ids=types).logits
    reference.assert_close(loaded.logits(ids, real, types)[real], expected[real])


@pytest.mark.parametrize("kind", ["ForPreTraining", "ForMaskedLM"])
@pytest.mark.parametrize("width", WIDTHS)
def test_export_of_an_import_is_the_identity(kind: str, width: int, tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs = theirs_of(kind, embedding_size=width)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    write_checkpoint(read_folder(tmp_path / "theirs"), tmp_path / "ours")
    write_folder(elision.load(tmp_path / "ours"), tmp_path / "back")
    folder = tmp_path / "back" / ("discriminator" if kind == "ForPreTraining" else "")
    before, after = (load_file(path / "model.safetensors") for path in (tmp_path / "theirs", folder))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    config, again = (
        transformers.ElectraConfig.from_pretrained(path).to_dict() for path in (tmp_path / "theirs", folder)
    )
    left_out = ("transformers_version", "_name_or_path")
    assert {n: again[n] for n in config if n not in left_out} == {n: v for n, v in config.items() if n not in left_out}


@pytest.mark.parametrize("sharing", ["all", "tokens", "none", "disentangled"])
def test_a_run_becomes_two_folders_that_transformers_loads_and_that_read_back_as_one_model(
    sharing: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    recipe = tiny.recipe("electra-small", sharing=sharing)
    recipe = dataclasses.replace(
        recipe, backbone=dataclasses.replace(recipe.backbone, embedding_size=24, sharing="none")
    )
    model = reference.save_checkpoint(tmp_path / "ours", recipe, tokenizer)
    ours = elision.load(tmp_path / "ours")
    assert write_folder(ours, tmp_path / "out") == "ElectraForPreTraining and ElectraForMaskedLM"
    ids, real, types = padded_input()
    mask = {"attention_mask": real.long(), "token_type_ids": types}
    found = {}
    for name, auto in (
        ("discriminator", transformers.AutoModelForPreTraining),
        ("generator", transformers.AutoModelForMaskedLM),
    ):
        theirs, report = auto.from_pretrained(tmp_path / "out" / name, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"], report
        assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out" / name).mask_token == "[MASK]"
        assert f'"out/{name}"' in (tmp_path / "out" / name / "README.md").read_text()
        with torch.no_grad():
            found[name] = theirs(ids, **mask).logits
    reference.assert_close(ours.logits(ids, real, types)[real], found["generator"][real])
    reference.assert_close(judged(ours, ids, real, types)[real], found["discriminator"][real])

    again = elision.load(tmp_path / "out")
    assert again.notes == []
    reference.assert_close(again.logits(ids, real, types), ours.logits(ids, real, types))
    reference.assert_close(judged(again, ids, real, types), judged(ours, ids, real, types))
    # The files do not tell a table that rests on another from one that stands alone.
    wanted = dataclasses.replace(
        recipe.objectives[0].generator, sharing="none" if sharing == "disentangled" else sharing
    )
    assert again.recipe.objectives[0].generator == wanted
    state, back = model.state_dict(), again.model.state_dict()
    assert state.keys() == back.keys()
    for name in state:
        assert torch.equal(back[name], state[name]) or (sharing == "disentangled" and "tokens" in name), name


def test_two_folders_that_do_not_belong_together_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs_of("ForPreTraining").save_pretrained(tmp_path / "discriminator")
    for name, settings, message in (
        ("ForMaskedLM", {"vocab_size": 200}, "tables of one shape"),
        ("ForMaskedLM", GENERATOR_SIZES | {"intermediate_size": 20}, "feedforward_size is 20"),
        ("ForPreTraining", GENERATOR_SIZES, "generator has no head that restores tokens"),
    ):
        theirs_of(name, **settings).save_pretrained(tmp_path / "generator")
        with pytest.raises(InputError, match=message):
            elision.load(tmp_path)
    theirs_of("ForMaskedLM", **GENERATOR_SIZES).save_pretrained(tmp_path / "generator")
    (objective,) = elision.load(tmp_path).recipe.objectives
    assert objective.generator == Generator(width=0.25, depth=1.0, sharing="none")


def test_a_model_that_predicts_tokens_is_written_without_the_head_that_reads_samples(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    recipe = tiny.recipe("electra-tiny-all-tokens")
    assert isinstance(recipe.objectives[0], ReplacedMLM)
    reference.save_checkpoint(tmp_path / "ours", recipe, tokenizer)
    ours = elision.load(tmp_path / "ours")
    assert write_folder(ours, tmp_path / "out") == "ElectraModel and ElectraForMaskedLM"
    ids, real, types = padded_input()
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "out" / "encoder")
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long(), token_type_ids=types).last_hidden_state
        hidden = ours.model.backbone(heads.batch_of(ids, real, types)).hidden
    reference.assert_close(hidden[real], expected[real])


HEADS = {
    "classification": "ForSequenceClassification",
    "tagging": "ForTokenClassification",
    "answering": "ForQuestionAnswering",
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", HEADS)
def test_heads_for_fine_tuning_agree_both_ways(name: str, width: int, tmp_path: Path) -> None:
    assert electra.ARCHITECTURES[(name,)].endswith(HEADS[name])
    theirs = theirs_of(HEADS[name], embedding_size=width, num_labels=2 if name == "answering" else 3)
    theirs.save_pretrained(tmp_path)
    state = electra.normalise(dict(theirs.state_dict()), "the model")
    assert name in electra.heads_in(frozenset(state))
    backbone = electra.read_backbone(Config(tmp_path / "config.json"), frozenset(state))
    heads.agree(theirs, heads.loaded_from(theirs, electra, backbone, name), name, segments=True)
    # With other weights, the other way.
    model = heads.build(backbone, name)
    heads.load_into(theirs, electra, model)
    heads.agree(theirs, model, name, segments=True)


def test_what_their_class_cannot_express_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    recipe = tiny.recipe("electra-tiny")
    for field, value in (("norm", "pre"), ("activation", "relu"), ("pooler", True)):
        changed = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, **{field: value}))
        reference.save_checkpoint(tmp_path / field, changed, tokenizer)
        with pytest.raises(InputError, match=field):
            write_folder(elision.load(tmp_path / field), tmp_path / "out")
    config = transformers.ElectraConfig(**SIZES, hidden_act="relu")
    transformers.ElectraModel(config).save_pretrained(tmp_path / "theirs")
    with pytest.raises(InputError, match="hidden_act is 'relu'"):
        elision.load(tmp_path / "theirs")


def test_detection_over_the_backbone_of_bert_is_exported_too(tokenizer: Tokenizer, tmp_path: Path) -> None:
    recipe = tiny.recipe("bert-tiny")
    backbone = dataclasses.replace(recipe.backbone, pooler=False)
    recipe = dataclasses.replace(recipe, backbone=backbone, objectives=(ReplacedTokens(Generator(width=0.5)),))
    model = reference.save_checkpoint(tmp_path / "ours", recipe, tokenizer)
    assert isinstance(model, LanguageModel) and backbone.classifier == "tanh"
    assert write_folder(elision.load(tmp_path / "ours"), tmp_path / "out").startswith("ElectraForPreTraining")
