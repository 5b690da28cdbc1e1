"""DeBERTa, version 1, 2 and 3: ours and transformers' agree, both ways.

Theirs has no mask decoder, so what is compared of a model with one are the states of its encoder.
"""

import dataclasses
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.models.deberta.modeling_deberta import DebertaLayerNorm
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

import elision
from elision import recipes
from elision.errors import InputError
from elision.export import deberta, deberta_v2, families
from elision.export.config import Config
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.model.deberta import Deberta
from elision.model.disentangled import bucket, table_rows
from elision.text.tokenizer import ByteLevelBPE, Tokenizer, Unigram
from tests import tiny
from tests.parity import heads, reference

pytestmark = pytest.mark.parity

SIZES = {
    "vocab_size": reference.VOCAB_SIZE,
    # Heads of width 12: theirs has the root of 3 * 12 in float32, where it is exact.
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 20,
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": ["p2c", "c2p"],
    "legacy": False,
}
V3 = {"position_buckets": 4, "norm_rel_ebd": "layer_norm", "share_att_key": True}
SHAPES: dict[str, tuple[ModuleType, dict[str, object]]] = {
    "v1": (deberta, {}),
    "v1-near": (deberta, {"max_relative_positions": 5, "type_vocab_size": 2}),
    "v1-c2p": (deberta, {"pos_att_type": ["c2p"], "hidden_size": 32}),
    "v1-p2c": (deberta, {"pos_att_type": "p2c", "hidden_size": 32}),
    "v1-content": (deberta, {"pos_att_type": [], "relative_attention": False, "hidden_size": 64}),
    "v2": (deberta_v2, {**V3, "conv_kernel_size": 3, "conv_act": "gelu"}),
    "v2-tanh": (deberta_v2, {**V3, "conv_kernel_size": 5}),
    "v2-own": (deberta_v2, {}),
    "v3": (deberta_v2, V3),
    "v3-c2p": (deberta_v2, {**V3, "pos_att_type": ["c2p"], "hidden_size": 32}),
}
VERSIONS = ["v1", "v2", "v3"]


def theirs_of(
    shape: str, kind: str, dtype: torch.dtype = torch.float32, **settings: object
) -> transformers.PreTrainedModel:
    """Return a model of the given class: 3 layers, width 32, 20 positions."""
    family, own = SHAPES[shape]
    prefix = "Deberta" if family is deberta else "DebertaV2"
    config = getattr(transformers, f"{prefix}Config")(**SIZES | own | settings)
    return reference.scrambled(getattr(transformers, prefix + kind)(config), dtype)


@pytest.fixture
def norms_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the layer norm of their first version from rounding to float32 what is compared in float64."""

    def forward(norm: nn.Module, hidden: Tensor) -> Tensor:
        return F.layer_norm(hidden, hidden.shape[-1:], norm.weight, norm.bias, norm.variance_epsilon)

    monkeypatch.setattr(DebertaLayerNorm, "forward", forward)


def tokenizer_of(family: ModuleType) -> Tokenizer:
    spec = ByteLevelBPE(300, layout="roberta") if family is deberta else Unigram(300, layout="albert")
    return tiny.tokenizer(spec)


def padded_input() -> tuple[Tensor, Tensor]:
    """Three rows of 11 tokens, the second with 4 places of padding at its end; and what is real."""
    ids, real = reference.token_ids(3, 11), torch.ones(3, 11, dtype=torch.bool)
    real[1, 7:] = False
    return ids, real


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_imported_states_and_logits_equal_those_of_transformers(
    shape: str, dtype: torch.dtype, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if dtype == torch.float64:
        request.getfixturevalue("norms_in_float64")
    theirs = theirs_of(shape, "ForMaskedLM", dtype)
    theirs.save_pretrained(tmp_path)
    ids, real = padded_input()
    types = (torch.arange(11) > 4).long().expand(3, 11) if theirs.config.type_vocab_size else None
    with torch.no_grad():
        output = theirs(ids, attention_mask=real.long(), token_type_ids=types, output_hidden_states=True)
        loaded = elision.load(tmp_path)
        assert not loaded.recipe.backbone.mask_decoder
        hidden = loaded.model.backbone(heads.batch_of(ids, real, types)).hidden
    reference.assert_close(hidden[real], output.hidden_states[-1][real])
    reference.assert_close(loaded.logits(ids, visible=real, type_ids=types)[real], output.logits[real])


@pytest.mark.parametrize("shape", VERSIONS)
def test_what_transformers_calls_the_legacy_head_is_the_same_head(shape: str, tmp_path: Path) -> None:
    theirs = theirs_of(shape, "ForMaskedLM", legacy=True)
    theirs.save_pretrained(tmp_path)
    ids, real = padded_input()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long()).logits
    loaded = elision.load(tmp_path)
    assert not loaded.notes
    reference.assert_close(loaded.logits(ids, visible=real)[real], expected[real])


@pytest.mark.usefixtures("norms_in_float64")
@pytest.mark.parametrize("shape", VERSIONS)
def test_loss_and_every_gradient_equal_those_of_transformers(shape: str, tmp_path: Path) -> None:
    family = SHAPES[shape][0]
    theirs = theirs_of(shape, "ForMaskedLM", torch.float64)
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
        labels=None,
    )
    term = loaded.model(batch)[0]["mlm"]
    loss = term.sum / term.count
    loss.backward()
    reference.assert_close(loss.detach(), expected.detach())
    table = family.key_map(loaded.recipe.backbone, ("mlm",))
    gradients = table.to_theirs({name: value.grad for name, value in loaded.model.named_parameters()})
    names = dict(theirs.named_parameters())
    assert gradients.keys() == names.keys()
    for name, gradient in gradients.items():
        reference.assert_close(gradient, names[name].grad)
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("shape", SHAPES)
def test_states_of_a_model_without_heads_equal_and_its_head_starts_anew(shape: str, tmp_path: Path) -> None:
    theirs = theirs_of(shape, "Model")
    theirs.save_pretrained(tmp_path)
    loaded = elision.load(tmp_path)
    assert [objective.name for objective in loaded.recipe.objectives] == ["mlm"] and "a new one" in loaded.notes[0]
    ids, real = padded_input()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long()).last_hidden_state
        hidden = loaded.model.backbone(heads.batch_of(ids, real, None)).hidden
    reference.assert_close(hidden[real], expected[real])


HEADS = {
    "classification": "ForSequenceClassification",
    "tagging": "ForTokenClassification",
    "answering": "ForQuestionAnswering",
}


@pytest.mark.parametrize("shape", VERSIONS)
@pytest.mark.parametrize("name", HEADS)
def test_heads_for_fine_tuning_agree_both_ways(shape: str, name: str, tmp_path: Path) -> None:
    family = SHAPES[shape][0]
    theirs = theirs_of(shape, HEADS[name], num_labels=2 if name == "answering" else 3)
    assert family.ARCHITECTURES[(name,)] == type(theirs).__name__
    theirs.save_pretrained(tmp_path)
    state = family.normalise(dict(theirs.state_dict()), "the model")
    assert name in family.heads_in(frozenset(state))
    backbone = family.read_backbone(Config(tmp_path / "config.json"), frozenset(state))
    heads.agree(theirs, heads.loaded_from(theirs, family, backbone, name), name, segments=False)
    # With other weights, the other way.
    model = heads.build(backbone, name)
    heads.load_into(theirs, family, model)
    heads.agree(theirs, model, name, segments=False)


@pytest.mark.parametrize("shape", SHAPES)
def test_export_of_an_import_is_the_identity(shape: str, tmp_path: Path) -> None:
    theirs = theirs_of(shape, "ForMaskedLM", pooler_dropout=0.1, max_relative_positions=20)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer_of(SHAPES[shape][0]).save(tmp_path / "theirs")
    write_checkpoint(read_folder(tmp_path / "theirs"), tmp_path / "ours")
    assert write_folder(elision.load(tmp_path / "ours"), tmp_path / "back") == type(theirs).__name__
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    config, again = (transformers.AutoConfig.from_pretrained(tmp_path / name).to_dict() for name in ("theirs", "back"))
    # Which symbol pads is read from the tokenizer.
    ignored = ("transformers_version", "_name_or_path", "pad_token_id")
    assert {name: again[name] for name in config if name not in ignored} == {
        name: value for name, value in config.items() if name not in ignored
    }


@pytest.mark.parametrize("name", ["deberta-tiny", "deberta-v2-tiny"])
def test_auto_classes_load_an_export_with_the_states_of_its_encoder_and_an_import_finds_the_mask_decoder(
    name: str, tmp_path: Path
) -> None:
    recipe = tiny.recipe(name)
    family = families.of_recipe(recipe, ("mlm",))
    tokenizer = tokenizer_of(family)
    model = reference.save_checkpoint(tmp_path / "ours", recipe, tokenizer)
    ours = elision.load(tmp_path / "ours")
    assert write_folder(ours, tmp_path / "out") == family.ARCHITECTURES[("mlm",)]
    theirs, report = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    ids, real = padded_input()
    with torch.no_grad():
        output = theirs(ids, attention_mask=real.long(), output_hidden_states=True)
        hidden = model.eval().backbone(heads.batch_of(ids, real, None)).hidden
        reference.assert_close(hidden[real], output.hidden_states[-1][real])
        reference.assert_close(model.vocabulary_logits(hidden)[real], output.logits[real])
    # Their fill-mask knows no mask decoder, ours does.
    assert (ours.logits(ids, real) - output.logits)[real].abs().max() > 0.01
    again = elision.load(tmp_path / "out")
    assert again.recipe.backbone == recipe.backbone
    assert torch.equal(again.logits(ids, real), ours.logits(ids, real))
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in ("ba do kilume nora.", ""):
        assert words(text)["input_ids"] == tokenizer.encode(text, add_special_tokens=True)
    assert words("ba do", "ki lu")["input_ids"] == tokenizer.raw.encode("ba do", "ki lu").ids


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"position_biased_input": True}, "position_biased_input is on"),
        ({"pos_att_type": ["p2p", "c2p"]}, "pos_att_type has 'p2p'"),
        ({"relative_attention": False}, "pos_att_type is set while relative_attention is off"),
        ({"talking_head": True}, "talking_head is True"),
        ({"embedding_size": 16}, "embedding_size is 16"),
    ],
)
def test_settings_that_cannot_be_expressed_are_named(settings: dict[str, object], message: str, tmp_path: Path) -> None:
    config = transformers.DebertaConfig(**SIZES | settings)
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=message):
        deberta.read_backbone(Config(tmp_path / "config.json"), frozenset())


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("deberta-tiny", {"num_buckets": 8}, "backbone.num_buckets is 8"),
        ("deberta-tiny", {"convolution": 3}, "backbone.convolution is 3"),
        ("deberta-tiny", {"position_to_position": True}, "backbone.position_to_position is True"),
        ("deberta-v2-tiny", {"position_to_position": True}, "backbone.position_to_position is True"),
    ],
)
def test_what_transformers_has_no_counterpart_for_is_refused(
    name: str, settings: dict[str, object], message: str
) -> None:
    recipe = tiny.recipe(name)
    recipe = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, **settings))
    with pytest.raises(InputError, match=message):
        families.of_recipe(recipe, ("mlm",))


def test_the_buckets_are_those_of_transformers_at_every_distance() -> None:
    distance = torch.arange(-600, 601)
    for num_buckets, max_distance in ((256, 512), (32, 128), (4, 20)):
        theirs = make_log_bucket_position(distance, num_buckets, max_distance).long()
        assert torch.equal(bucket(distance, num_buckets, max_distance), theirs)
        rows = table_rows(distance, max_distance, num_buckets)
        assert torch.equal(rows, (theirs + num_buckets).clamp(0, 2 * num_buckets - 1))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("deberta-base", 138_601_728),
        ("deberta-v3-xsmall", 70_682_112),
        ("deberta-v3-base", 183_831_552),
        ("deberta-v3-large", 434_012_160),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, count: int) -> None:
    recipe = recipes.get(name)
    assert isinstance(recipe.backbone, Deberta)
    # The published counts are of the encoder, whose files have no mask decoder.
    backbone = dataclasses.replace(recipe.backbone, mask_decoder=False)
    with torch.device("meta"):
        model = backbone.build(recipe.tokenizer.vocab_size)
        prefix = "Deberta" if name == "deberta-base" else "DebertaV2"
        config = families.of_recipe(recipe, ("mlm",)).write_config(
            backbone, ("mlm",), recipe.tokenizer.vocab_size, tiny.vocabulary(300)
        )
        theirs = getattr(transformers, f"{prefix}Model")(getattr(transformers, f"{prefix}Config")(**config))
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    assert sum(parameter.numel() for parameter in theirs.parameters()) == count


def test_both_models_of_version_3_have_the_states_of_transformers_in_a_folder_each(tmp_path: Path) -> None:
    recipe = tiny.recipe("deberta-v3-tiny")
    model = reference.save_checkpoint(tmp_path / "ours", recipe, tokenizer_of(deberta_v2))
    write_folder(elision.load(tmp_path / "ours"), tmp_path / "out")
    ids, real = padded_input()
    batch = heads.batch_of(ids, real, None)
    # What fine-tuning reads: the generator's token table plus the difference.
    assert model.backbone.embeddings.tokens.weight.any()
    encoders = {"discriminator": model.backbone, "generator": model.heads["rtd"].generator.model}
    for folder, encoder in encoders.items():
        theirs = transformers.AutoModel.from_pretrained(tmp_path / "out" / folder).eval()
        with torch.no_grad():
            expected = theirs(ids, attention_mask=real.long()).last_hidden_state
            reference.assert_close(encoder.eval()(batch).hidden[real], expected[real])
    generator = elision.load(tmp_path / "out" / "generator")
    assert generator.recipe.backbone.mask_decoder
    reference.assert_close(generator.logits(ids, real)[real], elision.load(tmp_path / "ours").logits(ids, real)[real])
