"""BART, mBART and BlenderBot: ours and transformers' agree, both ways."""

import dataclasses
import json
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import elision
from elision import recipes
from elision.errors import InputError
from elision.export import bart, blenderbot, families, mbart
from elision.export.config import Config
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.model.language_model import LanguageModel
from elision.model.position import LearnedPositions, SinusoidalPositions, sinusoids
from tests import tiny
from tests.parity import heads, reference, seq2seq

pytestmark = pytest.mark.parity

FAMILIES = [bart, mbart, blenderbot]
SIZES = {
    "vocab_size": reference.VOCAB_SIZE,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 20,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
# Of each family: the symbols as released.
SYMBOLS = {
    bart: {"decoder_start_token_id": 2},
    mbart: {"decoder_start_token_id": 250},
    blenderbot: {"decoder_start_token_id": 1, "pad_token_id": 0, "bos_token_id": 1},
}
RECIPES = {bart: "bart-tiny", mbart: "mbart-tiny", blenderbot: "blenderbot-tiny"}


def theirs_of(family: ModuleType, kind: str, dtype: torch.dtype = torch.float32, **settings: object):
    """Return a model of the given class: 2 + 3 layers, width 32, 20 positions; `kind` without "Bart"."""
    prefix = family.ARCHITECTURES[("seq2seq",)].removesuffix("ForConditionalGeneration")
    given = SIZES | SYMBOLS[family] | settings
    config = getattr(transformers, f"{prefix}Config")(**given)
    config._attn_implementation = "eager"
    return reference.scrambled(getattr(transformers, prefix + kind)(config), dtype)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", FAMILIES)
def test_imported_logits_equal_those_of_transformers(
    family: ModuleType, dtype: torch.dtype, scaled: bool, tmp_path: Path
) -> None:
    theirs = theirs_of(family, "ForConditionalGeneration", dtype, scale_embedding=scaled)
    theirs.save_pretrained(tmp_path)
    loaded = elision.load(tmp_path)
    backbone = loaded.recipe.backbone
    assert (backbone.encoder.num_layers, backbone.decoder.num_layers) == (2, 3)
    assert (backbone.encoder.num_heads, backbone.decoder.num_heads) == (4, 2)
    assert backbone.start == {bart: "last", mbart: "last", blenderbot: "bos"}[family]
    assert backbone.encoder.scale_embeddings == scaled
    seq2seq.logits_agree(theirs, loaded)


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_every_gradient_equal_those_of_transformers(family: ModuleType, tmp_path: Path) -> None:
    theirs = theirs_of(family, "ForConditionalGeneration", torch.float64, dropout=0.0, attention_dropout=0.0)
    theirs.save_pretrained(tmp_path)
    seq2seq.loss_and_gradients_agree(theirs, elision.load(tmp_path), family)


@pytest.mark.parametrize("family", FAMILIES)
def test_states_of_a_model_without_heads_equal(family: ModuleType, tmp_path: Path) -> None:
    theirs = theirs_of(family, "Model")
    theirs.save_pretrained(tmp_path)
    loaded = elision.load(tmp_path)
    assert [objective.name for objective in loaded.recipe.objectives] == ["seq2seq"]
    ids, real, written = seq2seq.sides()
    with torch.no_grad():
        output = theirs(ids, attention_mask=real.long(), decoder_input_ids=written)
        batch = seq2seq.batch_of(ids, real, written, torch.full_like(written, -100))
        reference.assert_close(loaded.model.backbone(batch).hidden, output.last_hidden_state)
        reference.assert_close(
            loaded.model.backbone.encoder(batch).hidden[real], output.encoder_last_hidden_state[real]
        )


@pytest.mark.parametrize("family", [bart, mbart])
@pytest.mark.parametrize(
    ("name", "kind"), [("classification", "ForSequenceClassification"), ("answering", "ForQuestionAnswering")]
)
def test_heads_for_fine_tuning_agree_both_ways(family: ModuleType, name: str, kind: str, tmp_path: Path) -> None:
    assert family.ARCHITECTURES[(name,)].endswith(kind)
    theirs = theirs_of(family, kind, num_labels=2 if name == "answering" else 3)
    theirs.save_pretrained(tmp_path)
    state = family.normalise(dict(theirs.state_dict()), "the model")
    assert family.heads_in(frozenset(state)) == (name,)
    backbone = family.read_backbone(Config(tmp_path / "config.json"), frozenset(state))
    # mBART's shift takes the last token that is no padding for the start, BART's the one symbol of config.json.
    start = None if family is mbart else 2
    seq2seq.judgements_agree(theirs, heads.loaded_from(theirs, family, backbone, name), name, 2, start)
    # With other weights, the other way. Their state lists the one table under several names.
    model = heads.build(backbone, name)
    tensors = family.key_map(backbone, (name,)).to_theirs(dict(model.state_dict()))
    family.complete(tensors, backbone)
    missing, unexpected = theirs.load_state_dict(tensors, strict=False)
    assert not unexpected and all("embed_tokens" in other for other in missing)
    seq2seq.judgements_agree(theirs, model, name, 2, start)


def test_position_0_reads_row_2_of_the_table_and_rows_0_and_1_are_never_read(tmp_path: Path) -> None:
    theirs = theirs_of(bart, "ForConditionalGeneration")
    theirs.save_pretrained(tmp_path)
    loaded = elision.load(tmp_path)
    ids, real, written = seq2seq.sides()
    before = loaded.logits(ids, real, decoder_ids=written)
    for side in (loaded.model.backbone.encoder, loaded.model.backbone.decoder):
        table = side.embeddings.positions.table.weight
        assert table.shape[0] == 22
        with torch.no_grad():
            table[:2] = 1e3
        assert torch.equal(loaded.logits(ids, real, decoder_ids=written), before)
    with torch.no_grad():
        table[2] = -table[2]
    moved = (loaded.logits(ids, real, decoder_ids=written) - before).abs().amax(-1)
    assert (moved[:, 0] > 0).all()


def test_blenderbots_sinusoids_are_stored_as_a_table_and_come_back_as_they_were(tmp_path: Path) -> None:
    theirs = theirs_of(blenderbot, "ForConditionalGeneration", static_position_embeddings=True)
    table = sinusoids(20, 32)
    with torch.no_grad():
        theirs.model.encoder.embed_positions.weight.copy_(table)
        theirs.model.decoder.embed_positions.weight.copy_(table)
    theirs.save_pretrained(tmp_path)
    loaded = elision.load(tmp_path)
    assert loaded.recipe.backbone.encoder.positions == SinusoidalPositions(20)
    seq2seq.logits_agree(theirs, loaded)
    assert torch.equal(loaded.model.backbone.decoder.embeddings.positions.table, table)
    # sin and cos in turn, the first channel the fastest: at position 1 sin(1), cos(1).
    assert table[1, 0] == pytest.approx(math.sin(1), abs=1e-6) and table[1, 1] == pytest.approx(math.cos(1), abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_export_of_an_import_is_the_identity(family: ModuleType, tmp_path: Path) -> None:
    settings = {"static_position_embeddings": False, "forced_eos_token_id": 2} if family is blenderbot else {}
    settings |= {"decoder_start_token_id": None} if family is mbart else {}
    theirs = theirs_of(family, "ForConditionalGeneration", **settings)
    theirs.save_pretrained(tmp_path / "theirs")
    tiny.tokenizer(recipes.get(RECIPES[family]).tokenizer.__class__(300, layout=LAYOUTS[family])).save(
        tmp_path / "theirs"
    )
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


LAYOUTS = {bart: "roberta", mbart: "xlm-r", blenderbot: "blenderbot"}


@pytest.mark.parametrize("family", FAMILIES)
def test_auto_classes_load_an_export_with_equal_logits_and_ids_and_generate(family: ModuleType, tmp_path: Path) -> None:
    recipe = tiny.recipe(RECIPES[family])
    tokenizer = tiny.tokenizer(recipe.tokenizer)
    reference.save_checkpoint(tmp_path / "ours", recipe, tokenizer)
    ours = elision.load(tmp_path / "ours")
    assert write_folder(ours, tmp_path / "out") == family.ARCHITECTURES[("seq2seq",)]
    theirs, report = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    assert not theirs.final_logits_bias.any()
    seq2seq.logits_agree(theirs, ours)
    ids, real, written = seq2seq.sides()
    again = elision.load(tmp_path / "out")
    reference.assert_close(again.logits(ids, real, decoder_ids=written), ours.logits(ids, real, decoder_ids=written))
    vocabulary = tokenizer.vocabulary
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == vocabulary.eos and generation["pad_token_id"] == vocabulary.pad
    start = {bart: vocabulary.eos, blenderbot: vocabulary.bos, mbart: None}[family]
    assert generation.get("decoder_start_token_id") == start
    assert generation.get("forced_bos_token_id") == (vocabulary.bos if family is bart else None)
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "ba do <mask> nora."
    assert words(text)["input_ids"] == tokenizer.encode(text, add_special_tokens=True)
    given = words(text, return_tensors="pt")
    more = {"decoder_start_token_id": vocabulary.symbols["aa_XX"]} if family is mbart else {}
    made = theirs.generate(given["input_ids"], max_new_tokens=5, do_sample=False, num_beams=1, **more)
    assert made[0, 0] == more.get("decoder_start_token_id", start)
    if family is bart:
        assert made[0, 1] == vocabulary.bos
    # What it writes is, word by word, what our scores say.
    scores = ours.logits(given["input_ids"], decoder_ids=made[:, :-1])[0]
    first, last = (1 if family is bart else 0), made.shape[1] - 2
    assert made[0, 1 + first : 1 + last].tolist() == scores[first:last].argmax(-1).tolist()


def test_which_family_a_recipe_is_exported_as() -> None:
    for family, names in (
        (bart, ("bart-tiny", "bart-base", "bart-large", "blenderbot-small")),
        (mbart, ("mbart-tiny", "mbart-large")),
        (blenderbot, ("blenderbot-tiny", "blenderbot-large", "blenderbot-xl", "meena-large")),
    ):
        for name in names:
            assert families.of_recipe(recipes.get(name), ("seq2seq",)) is family, name


def test_settings_without_a_counterpart_are_refused_by_name() -> None:
    recipe = tiny.recipe("bart-tiny")

    def refused(match: str, **settings: object) -> None:
        sides = {
            side: dataclasses.replace(getattr(recipe.backbone, side), **settings) for side in ("encoder", "decoder")
        }
        other = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, **sides))
        with pytest.raises(InputError, match=match):
            families.of_recipe(other, ("seq2seq",))

    refused("encoder.norm_eps is 1e-12", norm_eps=1e-12)
    refused("encoder.biases is 'none'", biases="none")
    refused("positions is .*offset=0.*only knows LearnedPositions with offset 2", positions=LearnedPositions(32))
    refused("encoder.final_norm is True", final_norm=True)
    with pytest.raises(InputError, match=r"SequenceLM\.bias is True"):
        biased = tuple(dataclasses.replace(objective, bias=True) for objective in recipe.objectives)
        families.of_recipe(dataclasses.replace(recipe, objectives=biased), ("seq2seq",))


def test_files_with_another_output_table_or_a_bias_are_refused(tmp_path: Path) -> None:
    theirs = theirs_of(bart, "ForConditionalGeneration")
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"final_logits_bias": torch.ones(1, 300)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"final_logits_bias .* is not zero"):
        elision.load(tmp_path)
    save_file(tensors | {"lm_head.weight": torch.ones(300, 32)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"lm_head\.weight .* is not the token table"):
        elision.load(tmp_path)
    # All names of the one table may be there, or another one alone.
    named = {**tensors, "lm_head.weight": tensors["model.shared.weight"].clone()}
    del named["model.shared.weight"]
    save_file(named, tmp_path / "model.safetensors")
    seq2seq.logits_agree(theirs, elision.load(tmp_path))


@pytest.mark.parametrize(
    ("name", "count"),
    [("bart-base", 139_420_416), ("bart-large", 406_291_456), ("mbart-large", 610_851_840)],
)
def test_parameter_counts_are_the_published_ones(name: str, count: int) -> None:
    recipe = recipes.get(name)
    with torch.device("meta"):
        model = LanguageModel(recipe.backbone, recipe.objectives, recipe.tokenizer.vocab_size)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
