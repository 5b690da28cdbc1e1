"""RoBERTa and XLM-R: ours and transformers' agree, both ways."""

import dataclasses
from pathlib import Path
from types import ModuleType

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

import elision
from elision import recipes
from elision.errors import InputError
from elision.export import families, roberta, xlm_roberta
from elision.export.config import Config
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.model.language_model import LanguageModel
from elision.text.tokenizer import ByteLevelBPE, Tokenizer, Unigram
from tests import tiny
from tests.parity import heads, reference

pytestmark = pytest.mark.parity

FAMILIES = [roberta, xlm_roberta]
SIZES = {
    "vocab_size": reference.VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 22,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}


def theirs_of(
    family: ModuleType, kind: str, dtype: torch.dtype = torch.float32, **settings: object
) -> transformers.PreTrainedModel:
    """Return a model of the given class: 2 layers, width 32, 20 positions; `kind` without "Roberta" or "XLMRoberta"."""
    prefix = family.ARCHITECTURES[("mlm",)].removesuffix("ForMaskedLM")
    config = getattr(transformers, f"{prefix}Config")(**SIZES | settings)
    return reference.scrambled(getattr(transformers, prefix + kind)(config), dtype)


def tokenizer_of(family: ModuleType) -> Tokenizer:
    spec = ByteLevelBPE(300, layout="roberta") if family is roberta else Unigram(300, layout="xlm-r")
    return tiny.tokenizer(spec)


def padded_input(left: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Three rows of 11 tokens, the second with 4 places of padding (id 1) at an end; what is real; the attention mask."""
    ids = reference.token_ids(3, 11)
    real = torch.ones(3, 11, dtype=torch.bool)
    real[1, slice(0, 4) if left else slice(7, 11)] = False
    ids[~real] = 1
    return ids, real, real.long()


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", FAMILIES)
def test_imported_logits_equal_those_of_transformers(
    family: ModuleType, dtype: torch.dtype, left: bool, tmp_path: Path
) -> None:
    theirs = theirs_of(family, "ForMaskedLM", dtype)
    theirs.save_pretrained(tmp_path)
    ids, real, mask = padded_input(left)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask).logits
    loaded = elision.load(tmp_path)
    assert loaded.recipe.backbone.num_types == 1 and not loaded.recipe.backbone.pooler
    assert loaded.recipe.backbone.positions.num_positions == 20 and loaded.recipe.backbone.positions.offset == 2
    reference.assert_close(loaded.logits(ids, visible=real)[real], expected[real])


def test_padding_on_the_left_and_on_the_right_change_nothing() -> None:
    torch.manual_seed(0)
    recipe = tiny.recipe("roberta-tiny", dropout=0.0, attention_dropout=0.0)
    model = reference.scrambled(LanguageModel(recipe.backbone, recipe.objectives, 300))
    tokenizer = tokenizer_of(roberta)
    loaded = elision.loaded.Loaded(Path("none"), model, recipe, tokenizer, None, [])
    alone = reference.token_ids(1, 7)
    expected = loaded.logits(alone)[0]
    padding = torch.full((1, 4), 1)
    nothing, something = torch.zeros(1, 4, dtype=torch.bool), torch.ones(1, 7, dtype=torch.bool)
    right = loaded.logits(torch.cat([alone, padding], 1), torch.cat([something, nothing], 1))[0, :7]
    left = loaded.logits(torch.cat([padding, alone], 1), torch.cat([nothing, something], 1))[0, 4:]
    reference.assert_close(right, expected)
    reference.assert_close(left, expected)


def test_the_first_two_rows_of_the_position_table_are_never_read(tmp_path: Path) -> None:
    theirs = theirs_of(roberta, "ForMaskedLM")
    theirs.save_pretrained(tmp_path)
    loaded = elision.load(tmp_path)
    ids, real, _ = padded_input()
    before = loaded.logits(ids, real)
    table = loaded.model.backbone.embeddings.positions.table.weight
    assert table.shape[0] == 22
    with torch.no_grad():
        table[:2] = 1e3
    assert torch.equal(loaded.logits(ids, real)[real], before[real])
    full = reference.token_ids(1, 20)
    assert loaded.logits(full).shape == (1, 20, reference.VOCAB_SIZE)


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_every_gradient_equal_those_of_transformers(family: ModuleType, tmp_path: Path) -> None:
    theirs = theirs_of(family, "ForMaskedLM", torch.float64)
    theirs.save_pretrained(tmp_path)
    ids, real, mask = padded_input()
    targets = torch.where(reference.token_ids(3, 11, seed=1) % 3 == 0, reference.token_ids(3, 11, seed=2), -100)
    targets[~real] = -100
    expected = theirs(ids, attention_mask=mask, labels=targets).loss
    expected.backward()
    loaded = elision.load(tmp_path)
    batch = heads.batch_of(ids, real, None)
    batch = dataclasses.replace(
        batch,
        targets=targets,
        target_at=(targets.flatten() != -100).nonzero()[:, 0],
        num_targets=int((targets != -100).sum()),
        labels=None,
    )
    term = loaded.model(batch)[0]["mlm"]
    loss = term.sum / term.count
    loss.backward()
    reference.assert_close(loss.detach(), expected.detach())
    table = family.key_map(loaded.recipe.backbone, ("mlm",))
    gradients = table.to_theirs({name: value.grad for name, value in loaded.model.named_parameters()})
    names = dict(theirs.named_parameters())
    # Which of the two names of the tied table is listed depends on the class.
    names.setdefault(family.TOKEN_TABLE, names.pop("lm_head.decoder.weight", None))
    assert gradients.keys() == names.keys()
    for name, gradient in gradients.items():
        wanted = names[name].grad
        if "position_embeddings" in name or "word_embeddings" in name:
            # Theirs leaves the row of padding without a gradient, which ours does not read (positions) or does not need.
            gradient, wanted = gradient.clone(), wanted.clone()
            gradient[1] = wanted[1] = 0
        reference.assert_close(gradient, wanted)
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pooler", [False, True])
def test_states_of_a_model_without_heads_equal_and_its_head_starts_anew(
    family: ModuleType, pooler: bool, tmp_path: Path
) -> None:
    prefix = family.ARCHITECTURES[("mlm",)].removesuffix("ForMaskedLM")
    config = getattr(transformers, f"{prefix}Config")(**SIZES)
    theirs = reference.scrambled(getattr(transformers, f"{prefix}Model")(config, add_pooling_layer=pooler))
    theirs.save_pretrained(tmp_path)
    loaded = elision.load(tmp_path)
    assert [objective.name for objective in loaded.recipe.objectives] == ["mlm"] and "a new one" in loaded.notes[0]
    ids, real, mask = padded_input()
    with torch.no_grad():
        output = theirs(ids, attention_mask=mask)
        hidden = loaded.model.backbone(heads.batch_of(ids, real, None)).hidden
        reference.assert_close(hidden[real], output.last_hidden_state[real])
        if pooler:
            reference.assert_close(loaded.model.backbone.pool(hidden[:, 0]), output.pooler_output)


HEADS = {
    "classification": "ForSequenceClassification",
    "tagging": "ForTokenClassification",
    "answering": "ForQuestionAnswering",
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", HEADS)
def test_heads_for_fine_tuning_agree_both_ways(family: ModuleType, name: str, tmp_path: Path) -> None:
    assert family.ARCHITECTURES[(name,)].endswith(HEADS[name])
    theirs = theirs_of(family, HEADS[name], num_labels=2 if name == "answering" else 3)
    theirs.save_pretrained(tmp_path)
    state = family.normalise(dict(theirs.state_dict()), "the model")
    assert name in family.heads_in(frozenset(state))
    backbone = family.read_backbone(Config(tmp_path / "config.json"), frozenset(state))
    heads.agree(theirs, heads.loaded_from(theirs, family, backbone, name), name, segments=False)
    # With other weights, the other way; and from a model that has no segments.
    for settings in (backbone, dataclasses.replace(backbone, num_types=0)):
        model = heads.build(settings, name)
        heads.load_into(theirs, family, model)
        heads.agree(theirs, model, name, segments=False)


def test_a_classifier_over_an_imported_pooler_has_it_for_its_dense_layer() -> None:
    backbone = dataclasses.replace(tiny.recipe("roberta-tiny").backbone, pooler=True)
    theirs = theirs_of(roberta, "ForSequenceClassification", num_labels=3, intermediate_size=64,
                       num_attention_heads=2, max_position_embeddings=34)  # fmt: skip
    model = heads.build(backbone, "classification")
    heads.load_into(theirs, roberta, model)
    heads.agree(theirs, model, "classification", segments=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_export_of_an_import_is_the_identity(family: ModuleType, tmp_path: Path) -> None:
    theirs = theirs_of(family, "ForMaskedLM")
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer_of(family).save(tmp_path / "theirs")
    write_checkpoint(read_folder(tmp_path / "theirs"), tmp_path / "ours")
    assert write_folder(elision.load(tmp_path / "ours"), tmp_path / "back") == type(theirs).__name__
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    config, again = (transformers.AutoConfig.from_pretrained(tmp_path / name).to_dict() for name in ("theirs", "back"))
    ignored = ("transformers_version", "_name_or_path")
    assert {name: again[name] for name in config if name not in ignored} == {
        name: value for name, value in config.items() if name not in ignored
    }


@pytest.mark.parametrize(("name", "family"), [("roberta-tiny", roberta), ("xlm-r-tiny", xlm_roberta)])
def test_auto_classes_load_an_export_with_equal_logits_and_ids(name: str, family: ModuleType, tmp_path: Path) -> None:
    recipe, tokenizer = tiny.recipe(name), tokenizer_of(family)
    reference.save_checkpoint(tmp_path / "ours", recipe, tokenizer)
    ours = elision.load(tmp_path / "ours")
    assert write_folder(ours, tmp_path / "out") == family.ARCHITECTURES[("mlm",)]
    theirs, report = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    assert theirs.config.max_position_embeddings == 34 and theirs.config.type_vocab_size == 1
    segment = theirs.roberta.embeddings.token_type_embeddings.weight
    assert segment.shape == (1, 32) and not segment.any()
    ids, real, mask = padded_input()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask).logits
    reference.assert_close(ours.logits(ids, real)[real], expected[real])
    reference.assert_close(elision.load(tmp_path / "out").logits(ids, real), ours.logits(ids, real))
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in ("ba do kilume <mask> nora.", "Ünïcode and 한국어 zz!", ""):
        assert words(text)["input_ids"] == tokenizer.encode(text, add_special_tokens=True)
    assert words("ba do", "ki lu")["input_ids"] == tokenizer.raw.encode("ba do", "ki lu").ids
    assert words.mask_token_id == len(words) - 1 and words.pad_token_id == 1
    assert words.model_max_length == 32


def test_which_family_a_recipe_is_exported_as() -> None:
    for name in ("tiny", "base", "large"):
        assert families.of_recipe(recipes.get(f"roberta-{name}"), ("mlm",)) is roberta
        assert families.of_recipe(recipes.get(f"xlm-r-{name}"), ("mlm",)) is xlm_roberta


def test_a_tokenizer_whose_padding_is_elsewhere_is_refused(tmp_path: Path) -> None:
    reference.save_checkpoint(tmp_path / "ours", tiny.recipe("roberta-tiny"), tiny.tokenizer(tiny.WORDPIECE))
    with pytest.raises(InputError, match=r"padding has id 0, but backbone\.positions\.offset is 2"):
        write_folder(elision.load(tmp_path / "ours"), tmp_path / "out")


def test_with_equal_vocabularies_xlm_r_has_the_tensors_of_roberta_and_none_for_languages() -> None:
    one, other = (
        {name: value.shape for name, value in LanguageModel(r.backbone, r.objectives, 300).state_dict().items()}
        for r in (tiny.recipe("roberta-tiny"), tiny.recipe("xlm-r-tiny"))
    )
    assert one == other
    assert not any("language" in name for name in other)


@pytest.mark.parametrize(
    ("name", "with_segment_row", "with_pooler"),
    [
        ("roberta-base", 124_055_040, 124_645_632),
        ("roberta-large", None, 355_359_744),
        ("xlm-r-base", None, 278_043_648),
        ("xlm-r-large", None, 559_890_432),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, with_segment_row: int | None, with_pooler: int) -> None:
    recipe = recipes.get(name)
    with torch.device("meta"):
        model = recipe.backbone.build(recipe.tokenizer.vocab_size)
    # Published models carry a vector for the one segment, and counts often the pooler of the classes without a head.
    width = recipe.backbone.hidden_size
    count = sum(parameter.numel() for parameter in model.parameters()) + width
    assert with_segment_row in (None, count)
    assert count + width * width + width == with_pooler
