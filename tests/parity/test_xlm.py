"""XLM: ours and transformers' agree, both ways."""

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
from elision.export import families, xlm
from elision.export.config import Config
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.model.language_model import LanguageModel
from elision.model.position import LearnedPositions, SinusoidalPositions
from elision.objectives import MaskedLM
from elision.text.tokenizer import ByteLevelBPE, Tokenizer
from tests import tiny
from tests.parity import heads, reference

pytestmark = pytest.mark.parity

SIZES = {
    "vocab_size": reference.VOCAB_SIZE,
    "emb_dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "max_position_embeddings": 20,
    "embed_init_std": 32**-0.5,
    "n_langs": 3,
    "lang2id": {"de": 0, "en": 1, "ne": 2},
    "id2lang": {"0": "de", "1": "en", "2": "ne"},
    "bos_token_id": 1,
    "eos_token_id": 1,
    "mask_index": 4,
}


def theirs_of(kind: str, dtype: torch.dtype = torch.float32, **settings: object) -> transformers.PreTrainedModel:
    """Return an XLM of the given class: 2 layers, width 32, 20 positions, 3 languages."""
    model = getattr(transformers, kind)(transformers.XLMConfig(**SIZES | settings))
    table = model.transformer.position_embeddings if hasattr(model, "transformer") else model.position_embeddings
    fixed = table.weight.detach().clone()
    model = reference.scrambled(model, dtype)
    if settings.get("sinusoidal_embeddings"):
        table.weight.data = fixed.to(dtype)
    return model


@pytest.fixture(autouse=True)
def no_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have theirs compute in float64 throughout: its softmax is written in float32."""
    to_float = torch.Tensor.float
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self if self.dtype == torch.float64 else to_float(self))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny.tokenizer(ByteLevelBPE(300, layout="xlm"))


def padded_input() -> tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Three rows of a translation pair, the second with padding; what is real; what ours and theirs are told besides."""
    ids = reference.token_ids(3, 11)
    real = torch.ones(3, 11, dtype=torch.bool)
    real[1, 7:] = False
    positions = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6]).expand(3, 11)
    languages = (torch.arange(11) > 3).long() + torch.tensor([[0], [1], [0]])
    ours = {"positions": positions, "languages": languages}
    theirs = {"attention_mask": real.long(), "position_ids": positions, "langs": languages}
    return ids, real, ours, theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "settings",
    [{}, {"gelu_activation": False}, {"causal": True}, {"sinusoidal_embeddings": True}, {"n_langs": 1}, {"use_lang_emb": False}],
    ids=str,
)  # fmt: skip
def test_imported_logits_of_translations_equal_those_of_transformers(
    dtype: torch.dtype, settings: dict[str, object], tmp_path: Path
) -> None:
    theirs = theirs_of("XLMWithLMHeadModel", dtype, **settings)
    theirs.save_pretrained(tmp_path)
    ids, real, ours, given = padded_input()
    with torch.no_grad():
        expected = theirs(ids, **given).logits
    if theirs.config.n_langs == 1 or not theirs.config.use_lang_emb:
        ours["languages"] = None
    logits = elision.load(tmp_path).logits(ids, visible=real, **ours)
    reference.assert_close(logits[real], expected[real])


def test_loss_and_every_gradient_equal_those_of_transformers(tmp_path: Path) -> None:
    theirs = theirs_of("XLMWithLMHeadModel", torch.float64)
    theirs.save_pretrained(tmp_path)
    ids, real, ours, given = padded_input()
    targets = torch.where(reference.token_ids(3, 11, seed=1) % 3 == 0, reference.token_ids(3, 11, seed=2), -100)
    targets[~real] = -100
    expected = theirs(ids, labels=targets, **given).loss
    expected.backward()
    loaded = elision.load(tmp_path)
    batch = Batch(
        inputs=ids,
        positions=ours["positions"],
        doc_ids=real.long(),
        targets=targets,
        target_at=(targets.flatten() != -100).nonzero()[:, 0],
        summary_at=torch.arange(3) * 11,
        languages=ours["languages"],
        num_targets=int((targets != -100).sum()),
        num_examples=3,
        num_tokens=int(real.sum()),
    )
    (term,) = loaded.model(batch)[0].values()
    loss = term.sum / term.count
    loss.backward()
    reference.assert_close(loss.detach(), expected.detach())
    table = xlm.key_map(loaded.recipe.backbone, ("mlm",))
    gradients = table.to_theirs({name: value.grad for name, value in loaded.model.named_parameters()})
    names = dict(theirs.named_parameters())
    assert gradients.keys() == names.keys()
    for name, gradient in gradients.items():
        reference.assert_close(gradient, names[name].grad)
        assert gradient.abs().max() > 0, name


def test_states_of_a_model_without_heads_equal_and_its_head_starts_anew(tmp_path: Path) -> None:
    theirs = theirs_of("XLMModel")
    theirs.save_pretrained(tmp_path)
    loaded = elision.load(tmp_path)
    assert loaded.recipe.languages == ("de", "en", "ne")
    assert len(loaded.notes) == 1 and "a new one" in loaded.notes[0]
    ids, real, ours, given = padded_input()
    batch, _ = loaded._batch(ids, real, None, ours["positions"], ours["languages"])
    with torch.no_grad():
        hidden = loaded.model.backbone(batch).hidden
        reference.assert_close(hidden[real], theirs(ids, **given).last_hidden_state[real])


HEADS = {
    "classification": "XLMForSequenceClassification",
    "tagging": "XLMForTokenClassification",
    "answering": "XLMForQuestionAnsweringSimple",
}


def agree(theirs: transformers.PreTrainedModel, model: LanguageModel, name: str) -> None:
    """Assert that both say the same of padded texts in the second language."""
    ids, real, _, _ = padded_input()
    languages = torch.ones_like(ids)
    with torch.no_grad():
        output = theirs.eval()(ids, attention_mask=real.long(), langs=languages)
    batch = heads.batch_of(ids, real, None)
    ours = heads.scores(model, dataclasses.replace(batch, languages=languages))
    # Text that says no language is in the one that the model was told.
    model.backbone.embeddings.language = 1
    assert torch.equal(heads.scores(model, batch), ours)
    if name == "answering":
        reference.assert_close(ours[real], torch.stack([output.start_logits, output.end_logits], -1)[real])
    else:
        reference.assert_close(ours, output.logits if name == "classification" else output.logits[real])


@pytest.mark.parametrize("name", HEADS)
def test_heads_for_fine_tuning_agree_both_ways(name: str, tmp_path: Path) -> None:
    assert xlm.ARCHITECTURES[(name,)] == HEADS[name]
    theirs = theirs_of(HEADS[name], num_labels=2 if name == "answering" else 3)
    theirs.save_pretrained(tmp_path)
    state = xlm.normalise(dict(theirs.state_dict()), "the model")
    assert xlm.heads_in(frozenset(state)) == (name,)
    backbone = xlm.read_backbone(Config(tmp_path / "config.json"), frozenset(state))
    agree(theirs, heads.loaded_from(theirs, xlm, backbone, name), name)
    model = heads.build(backbone, name)
    heads.load_into(theirs, xlm, model)
    agree(theirs, model, name)


@pytest.mark.parametrize("causal", [False, True])
def test_export_of_an_import_is_the_identity(causal: bool, tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs = theirs_of("XLMWithLMHeadModel", causal=causal)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    write_checkpoint(read_folder(tmp_path / "theirs"), tmp_path / "ours")
    assert write_folder(elision.load(tmp_path / "ours"), tmp_path / "back") == "XLMWithLMHeadModel"
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    config, again = (transformers.XLMConfig.from_pretrained(tmp_path / name).to_dict() for name in ("theirs", "back"))
    ignored = ("transformers_version", "_name_or_path")
    assert {name: again[name] for name in config if name not in ignored} == {
        name: value for name, value in config.items() if name not in ignored
    }


@pytest.mark.parametrize("name", ["xlm-tiny", "xlm-tiny-clm", "xlm-mlm-en"])
def test_auto_classes_load_an_export_with_equal_logits_and_ids(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    recipe = dataclasses.replace(tiny.recipe(name, feedforward_size=128), languages=("aa", "bb"), default_language=None)
    if name == "xlm-mlm-en":
        recipe = dataclasses.replace(recipe, languages=())
    reference.save_checkpoint(tmp_path / "ours", recipe, tokenizer)
    ours = elision.load(tmp_path / "ours")
    assert write_folder(ours, tmp_path / "out") == "XLMWithLMHeadModel"
    theirs, report = transformers.XLMWithLMHeadModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    assert type(transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out")) is type(theirs)
    ids, real, told, given = padded_input()
    if name == "xlm-mlm-en":
        told["languages"] = None
        assert theirs.config.n_langs == 1 and not theirs.config.use_lang_emb
    else:
        assert theirs.config.n_langs == 8 and theirs.config.lang2id == {"aa": 0, "bb": 1}
    with torch.no_grad():
        expected = theirs(ids, **given).logits
    reference.assert_close(ours.logits(ids, real, **told)[real], expected[real])
    again = elision.load(tmp_path / "out")
    reference.assert_close(again.logits(ids, real, **told), ours.logits(ids, real, **told))
    assert again.recipe.languages == recipe.languages
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in ("ba do kilume <mask> nora.", "Ünïcode and 한국어 zz!", ""):
        assert words(text)["input_ids"] == tokenizer.encode(text, add_special_tokens=True)
    pair = words("ba do", "ki lu")
    assert pair["input_ids"] == tokenizer.raw.encode("ba do", "ki lu").ids
    # Their module would look segments up in the table of tokens.
    assert "token_type_ids" not in pair


def test_sinusoidal_positions_are_exported_as_the_table_that_they_are(tokenizer: Tokenizer, tmp_path: Path) -> None:
    recipe = tiny.recipe("xlm-tiny", feedforward_size=128)
    recipe = dataclasses.replace(
        recipe, backbone=dataclasses.replace(recipe.backbone, positions=SinusoidalPositions(32), activation="relu")
    )
    reference.save_checkpoint(tmp_path / "ours", recipe, tokenizer)
    ours = elision.load(tmp_path / "ours")
    write_folder(ours, tmp_path / "out")
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out")
    ids, real, told, given = padded_input()
    with torch.no_grad():
        reference.assert_close(ours.logits(ids, real, **told)[real], theirs(ids, **given).logits[real])


def test_old_files_with_a_position_buffer_and_no_prefix_are_read(tmp_path: Path) -> None:
    theirs = theirs_of("XLMWithLMHeadModel")
    theirs.config.save_pretrained(tmp_path)
    old = {name.removeprefix("transformer."): value for name, value in theirs.state_dict().items()}
    old["position_ids"] = torch.arange(20)[None]
    assert "pred_layer.proj.weight" in old
    torch.save(old, tmp_path / "pytorch_model.bin")
    ids, real, told, given = padded_input()
    with torch.no_grad():
        expected = theirs(ids, **given).logits
    reference.assert_close(elision.load(tmp_path).logits(ids, real, **told)[real], expected[real])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"asm": True, "asm_cutoffs": [100, 200]}, "asm is True"), ({"summary_type": "mean"}, "summary_type is 'mean'")],
)
def test_what_cannot_be_expressed_here_is_refused(settings: dict[str, object], message: str, tmp_path: Path) -> None:
    theirs = theirs_of("XLMModel")
    theirs.config.update(settings)
    theirs.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=message):
        elision.load(tmp_path)


def test_an_output_table_of_its_own_is_refused(tmp_path: Path) -> None:
    state = theirs_of("XLMWithLMHeadModel").state_dict()
    state["pred_layer.proj.weight"] = state["pred_layer.proj.weight"] + 1
    with pytest.raises(InputError, match="is not the token table"):
        xlm.normalise(state, "the file")


def test_which_family_a_recipe_is_exported_as_and_what_has_no_class_at_all() -> None:
    for name in recipes.names():
        if name.startswith("xlm-") and not name.startswith("xlm-r-"):
            recipe = recipes.get(name)
            assert families.of_recipe(recipe, tuple(objective.name for objective in recipe.objectives)) is xlm
    recipe = recipes.get("xlm-tiny-mlm")
    for parts, message in (
        ({"activation": "gelu_tanh"}, "only knows 'gelu' and 'relu'"),
        ({"feedforward_size": 96}, "backbone.feedforward_size is 96"),
        ({"positions": LearnedPositions(128, offset=2)}, "start at row 0"),
    ):
        other = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, **parts))
        with pytest.raises(InputError, match=message):
            families.of_recipe(other, ("mlm",))
    with pytest.raises(InputError, match="has no language embeddings"):
        families.of_recipe(dataclasses.replace(recipe, objectives=(MaskedLM(),)), ("mlm",))


@pytest.mark.parametrize(("name", "count"), [("xlm-mlm-tlm-xnli15", 249_071_384), ("xlm-mlm-en", 667_119_041)])
def test_parameters_are_as_many_as_those_of_transformers(name: str, count: int) -> None:
    from elision.show.cost import cost_of

    recipe = recipes.get(name)
    words = tiny.vocabulary(300)
    config = xlm.write_config(recipe.backbone, ("mlm",), recipe.tokenizer.vocab_size, words)
    with torch.device("meta"):
        theirs = transformers.XLMWithLMHeadModel(transformers.XLMConfig(**config))
        theirs.tie_weights()
    assert cost_of(recipe).num_parameters == count == sum(value.numel() for value in theirs.parameters())
