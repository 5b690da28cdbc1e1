"""Marian: ours and transformers' agree, both ways."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

import elision
from elision.data.batch import Batch, collate
from elision.data.example import Example
from elision.errors import InputError
from elision.export import marian
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.generation.decode import generate_ids
from elision.generation.decoding import Decoding, Symbols
from elision.model.position import SinusoidalPositions
from elision.text.tokenizer import Tokenizer
from tests import tiny
from tests.parity import reference

pytestmark = pytest.mark.parity

PAD = reference.VOCAB_SIZE - 1


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny.tokenizer(tiny.recipe("marian-tiny").tokenizer)


def theirs_of(
    kind: type = transformers.MarianMTModel, dtype: torch.dtype = torch.float64, **settings: object
) -> transformers.PreTrainedModel:
    """Return a Marian whose weights are all random, but for the vector of the padding and the positions."""
    config = transformers.MarianConfig(
        **{
            "vocab_size": reference.VOCAB_SIZE,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 3,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 40,
            "max_position_embeddings": 24,
            "activation_function": "swish",
            "scale_embedding": True,
            "pad_token_id": PAD,
            "decoder_start_token_id": PAD,
            "eos_token_id": 0,
            "forced_eos_token_id": 0,
        }
        | settings
    )
    torch.manual_seed(3)
    model = reference.scrambled(kind(config), dtype)
    inner = getattr(model, "model", model)
    with torch.no_grad():
        inner.shared.weight[config.pad_token_id] = 0
        for side in (inner.encoder, inner.decoder):
            side.embed_positions.weight.copy_(side.embed_positions.create_weight())
        if hasattr(model, "final_logits_bias"):
            generator = torch.Generator().manual_seed(7)
            model.final_logits_bias += torch.randn(model.final_logits_bias.shape, generator=generator).to(dtype)
    return model


def pair_of_ids() -> tuple[Tensor, Tensor, Tensor]:
    """Return source ids [3, 11], which of them are real, and decoder ids [3, 7] that begin with the padding."""
    ids, written = reference.token_ids(3, 11), reference.token_ids(3, 7, seed=1)
    written[:, 0] = PAD
    real = torch.ones(3, 11, dtype=torch.bool)
    real[1, 7:] = False
    return ids, real, written


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ["swish", "relu"])
def test_imported_logits_equal_those_of_transformers(dtype: torch.dtype, activation: str, tmp_path: Path) -> None:
    theirs = theirs_of(dtype=dtype, activation_function=activation)
    theirs.save_pretrained(tmp_path)
    ids, real, written = pair_of_ids()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long(), decoder_input_ids=written).logits
    loaded = elision.load(tmp_path)
    reference.assert_close(loaded.logits(ids, visible=real, decoder_ids=written), expected)
    assert loaded.recipe.backbone.start == "zero" and loaded.recipe.backbone.encoder.scale_embeddings


def test_the_bias_of_the_output_changes_what_is_said(tmp_path: Path) -> None:
    theirs = theirs_of()
    theirs.save_pretrained(tmp_path)
    ids, _, written = pair_of_ids()
    logits = elision.load(tmp_path).logits(ids, decoder_ids=written)
    bias = theirs.final_logits_bias[0]
    assert bias.abs().min() > 0
    assert (logits.argmax(-1) != (logits - bias).argmax(-1)).any()


def test_a_model_without_a_head_is_read_with_a_bias_of_zeros(tmp_path: Path) -> None:
    theirs = theirs_of(transformers.MarianModel)
    theirs.save_pretrained(tmp_path)
    ids, _, written = pair_of_ids()
    with torch.no_grad():
        expected = theirs(ids, decoder_input_ids=written).last_hidden_state @ theirs.shared.weight.T
    reference.assert_close(elision.load(tmp_path).logits(ids, decoder_ids=written), expected)


def test_positions_are_those_of_transformers_and_differ_from_the_other_convention() -> None:
    ours = SinusoidalPositions(24, layout="halves", divisor="half").build(32).table
    table = theirs_of().model.encoder.embed_positions.create_weight().float()
    torch.testing.assert_close(ours, table, rtol=0, atol=1e-6)
    assert (ours[:, :16] - torch.sin(torch.arange(24)[:, None] / 10000 ** (torch.arange(16) / 16))).abs().max() < 1e-6
    other = SinusoidalPositions(24, layout="halves", divisor="half_minus_one").build(32).table
    assert (ours - other).abs().max() > 0.1


def examples() -> list[Example]:
    made = []
    for index, (source, answer) in enumerate(((9, 5), (4, 8), (7, 7))):
        inputs, targets = (reference.token_ids(1, size, seed=index)[0].numpy() for size in (source, answer))
        shifted = targets.copy()
        shifted[0], shifted[1:] = PAD, targets[:-1]
        made.append(Example(inputs, inputs < 0, decoder_inputs=shifted, targets=targets))
    return made


@pytest.mark.parametrize("packing", [True, False])
def test_loss_and_every_gradient_equal_those_of_transformers(packing: bool, tmp_path: Path) -> None:
    """But for the vector of the padding, which they only keep at 0 as an input, and the bias, which they do not train."""
    theirs = theirs_of()
    theirs.save_pretrained(tmp_path)
    read, total, count = examples(), 0.0, 0
    for example in read:
        output = theirs(
            torch.from_numpy(example.inputs)[None], decoder_input_ids=torch.from_numpy(example.decoder_inputs)[None]
        )
        total += torch.nn.functional.cross_entropy(output.logits[0], torch.from_numpy(example.targets), reduction="sum")
        count += len(example.targets)
    (total / count).backward()
    loaded = elision.load(tmp_path)
    batch: Batch = collate(read, pad_id=PAD, row_length=24, decoder_row_length=24, packing=packing)
    assert len(batch.inputs) == (1 if packing else 3)
    terms, _ = loaded.model.eval()(batch)
    loss = terms["seq2seq"].sum / terms["seq2seq"].count
    loaded.model.train()
    loss.backward()
    reference.assert_close(loss.detach(), (total / count).detach())
    gradients = {name: value.grad for name, value in loaded.model.named_parameters()}
    table = marian.key_map(loaded.recipe.backbone, ("seq2seq",))
    fixed = {entry.ours: entry.value for entry in table.entries if entry.value is not None}
    ours = table.to_theirs({**gradients, **fixed})
    names = dict(theirs.named_parameters())
    for name, gradient in ours.items():
        if name == "final_logits_bias":
            continue
        expected = names[name].grad
        if name == marian.TOKEN_TABLE:
            assert expected[PAD].abs().max() > 0, "as an output it has a gradient there"
            assert not gradient[PAD].any()
            expected[PAD] = 0
        reference.assert_close(gradient, expected)
    assert set(ours) - {"final_logits_bias"} == {name for name in names if "embed_positions" not in name}


def test_export_of_an_import_is_the_identity(tokenizer: Tokenizer, tmp_path: Path) -> None:
    size = tokenizer.vocabulary.size
    settings = {"vocab_size": size, "pad_token_id": size - 1, "decoder_start_token_id": size - 1}
    theirs_of(dtype=torch.float32, **settings).save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    imported = read_folder(tmp_path / "theirs")
    assert imported.recipe.tokenizer.layout == "marian"
    write_checkpoint(imported, tmp_path / "ours")
    assert write_folder(elision.load(tmp_path / "ours"), tmp_path / "back") == "MarianMTModel"
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    before = {name: value for name, value in before.items() if "embed_tokens" not in name and "lm_head" not in name}
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.fixture(scope="module")
def exported(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("marian")
    model = reference.save_checkpoint(folder / "ours", tiny.recipe("marian-tiny"), tokenizer)
    # What no training moves stays 0 also where all else is random.
    state = load_file(folder / "ours" / "weights.safetensors")
    state["backbone.encoder.embeddings.tokens.weight"][-1] = 0
    assert len(state) == len(model.state_dict())
    save_file(state, folder / "ours" / "weights.safetensors")
    write_folder(elision.load(folder / "ours"), folder / "out")
    return folder


def test_auto_class_loads_an_export_with_equal_logits(exported: Path, tokenizer: Tokenizer) -> None:
    ours, size = elision.load(exported / "ours"), tokenizer.vocabulary.size
    theirs, report = transformers.AutoModelForSeq2SeqLM.from_pretrained(exported / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    assert type(theirs) is transformers.MarianMTModel
    ids, written = (reference.token_ids(2, length) % size for length in (11, 6))
    written[:, 0] = size - 1
    with torch.no_grad():
        expected = theirs(ids, decoder_input_ids=written).logits
    reference.assert_close(ours.logits(ids, decoder_ids=written), expected)
    assert not theirs.model.shared.weight[size - 1].any() and theirs.final_logits_bias.abs().max() > 0
    settings = theirs.generation_config
    assert settings.decoder_start_token_id == settings.pad_token_id == size - 1
    assert settings.eos_token_id == settings.forced_eos_token_id == 0
    assert settings.bad_words_ids == [[size - 1]]


def test_an_export_writes_with_transformers_and_never_the_padding(exported: Path, tokenizer: Tokenizer) -> None:
    config = json.loads((exported / "out" / "config.json").read_text(encoding="utf-8"))
    assert config["scale_embedding"] and config["static_position_embeddings"]
    names = transformers.AutoTokenizer.from_pretrained(exported / "out")
    text = "ba do kilume nora."
    assert names(text)["input_ids"] == [*tokenizer.encode(text), tokenizer.vocabulary.eos]
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(exported / "out")
    written = theirs.generate(**names(text, return_tensors="pt"), max_new_tokens=8)
    assert written.shape[0] == 1 and (written[0, 1:-1] != tokenizer.vocabulary.pad).all()


@pytest.mark.parametrize("cache", [True, False])
def test_greedy_translation_equals_that_of_transformers_token_for_token(cache: bool, tmp_path: Path) -> None:
    theirs = theirs_of()
    theirs.save_pretrained(tmp_path)
    model = elision.load(tmp_path).model
    seen = set()
    for seed in range(8):
        source = reference.token_ids(1, 9, seed)
        expected = theirs.generate(
            source, max_new_tokens=14, do_sample=False, num_beams=1, eos_token_id=None, forced_eos_token_id=None
        )
        symbols = Symbols(limit=reference.VOCAB_SIZE, start=PAD)
        ours = list(generate_ids(model, source[0].tolist(), Decoding(num_tokens=14), symbols, cache=cache))
        assert ours == expected[0, 1:].tolist()
        seen |= set(ours)
    assert len(seen) > 5, "the comparison needs texts that differ"


def test_files_of_other_conventions_are_refused_by_name(tmp_path: Path) -> None:
    theirs_of(dtype=torch.float32).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    for change, message in (
        ({"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings is False"),
        ({"decoder_vocab_size": 301}, "a vocabulary for each side is not supported"),
        ({"normalize_before": True}, "normalize_before is True"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            read_folder(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": SinusoidalPositions(24)}, "layout 'interleaved' and divisor 'half'"),
        ({"norm_eps": 1e-9}, "norm_eps is 1e-09"),
    ],
)
def test_settings_without_a_counterpart_are_refused_by_name(changes: dict, message: str) -> None:
    backbone = tiny.recipe("marian-tiny").backbone
    sides = {side: dataclasses.replace(getattr(backbone, side), **changes) for side in ("encoder", "decoder")}
    with pytest.raises(InputError, match=message):
        marian.check(dataclasses.replace(backbone, **sides))
