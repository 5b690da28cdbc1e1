"""T5 v1.0, T5 v1.1 and mT5: logits, losses, gradients, heads and generated ids, ours and transformers', both ways."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.models.mt5 import modeling_mt5
from transformers.models.t5 import modeling_t5

import elision
from elision.data.batch import Batch, collate
from elision.data.example import Example
from elision.errors import InputError
from elision.export import mt5, t5
from elision.export.config import Config
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.language_model import LanguageModel
from elision.objectives import Classification, SequenceLM, SpanExtraction
from elision.text.tokenizer import Tokenizer
from tests import tiny
from tests.parity import reference

pytestmark = pytest.mark.parity

KINDS = ("v1.0", "v1.1", "mt5")
RECIPES = {"v1.0": "t5-tiny", "v1.1": "t5-v1-1-tiny", "mt5": "mt5-tiny"}
SIZES = {
    "vocab_size": reference.VOCAB_SIZE, "d_model": 32, "d_kv": 12, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 3,
    "num_heads": 4, "decoder_start_token_id": 0, "relative_attention_max_distance": 20,
    "relative_attention_num_buckets": 8,
}  # fmt: skip


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have their norms keep float64, which they round to float32."""

    def forward(self, hidden: Tensor) -> Tensor:
        return self.weight * hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self.variance_epsilon)

    for norm in (modeling_t5.T5LayerNorm, modeling_mt5.MT5LayerNorm):
        monkeypatch.setattr(norm, "forward", forward)


def theirs_of(kind: str, name: str = "ForConditionalGeneration", **settings: object) -> torch.nn.Module:
    """Return a scrambled model of theirs in float64; of v1.1 and mT5 with an output table of its own."""
    torch.manual_seed(0)
    family = "MT5" if kind == "mt5" else "T5"
    released = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False} if kind == "v1.1" else {}
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **released, **settings})
    model = getattr(transformers, f"{family}{name}")(config)
    if kind != "v1.0" and hasattr(model, "lm_head"):
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    return reference.scrambled(model, torch.float64)


def sides(rows: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is read, where it is real (padding on the right), and what has been written."""
    real = torch.ones(rows, 11, dtype=torch.bool)
    real[1, 7:] = False
    written = reference.token_ids(rows, 9, seed=1)
    written[:, 0] = 0
    return reference.token_ids(rows, 11), real, written


def family_of(kind: str):
    return mt5 if kind == "mt5" else t5


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny.tokenizer(tiny.recipe("t5-tiny").tokenizer)


@pytest.mark.parametrize("kind", KINDS)
def test_imported_logits_equal_those_of_transformers(kind: str, tmp_path: Path) -> None:
    theirs = theirs_of(kind)
    theirs.save_pretrained(tmp_path)
    ids, real, written = sides()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long(), decoder_input_ids=written).logits
    loaded = elision.load(tmp_path)
    reference.assert_close(loaded.logits(ids, visible=real, decoder_ids=written), expected)
    objective = loaded.recipe.objectives[0]
    assert isinstance(objective, SequenceLM) and objective.tied == objective.scale_hidden == (kind == "v1.0")


@pytest.mark.parametrize("kind", KINDS)
def test_states_of_the_base_model_equal_those_of_transformers(kind: str, tmp_path: Path) -> None:
    theirs = theirs_of(kind, "Model")
    theirs.save_pretrained(tmp_path)
    ids, real, written = sides()
    loaded = elision.load(tmp_path)
    batch = loaded._with_decoder(loaded.batch_of(ids, real), written)
    with torch.no_grad():
        output = theirs(ids, attention_mask=real.long(), decoder_input_ids=written)
        reference.assert_close(loaded.model.backbone(batch).hidden, output.last_hidden_state)
        read = loaded.model.backbone.encoder(batch).hidden
    reference.assert_close(read[real], output.encoder_last_hidden_state[real])


def test_a_gated_model_that_shares_its_tables_there_gets_equal_logits(tmp_path: Path) -> None:
    config = transformers.T5Config(**SIZES, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    theirs = reference.scrambled(transformers.T5ForConditionalGeneration(config), torch.float64)
    assert theirs.lm_head.weight is theirs.shared.weight
    theirs.save_pretrained(tmp_path)
    assert t5.OUTPUT_TABLE not in load_file(tmp_path / "model.safetensors")
    ids, real, written = sides()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long(), decoder_input_ids=written).logits
    reference.assert_close(elision.load(tmp_path).logits(ids, visible=real, decoder_ids=written), expected)


@pytest.mark.parametrize("field", ["tie_word_embeddings", "scale_decoder_outputs"])
def test_v1_1_is_known_by_either_field_of_its_config(field: str, tmp_path: Path) -> None:
    theirs_of("v1.1").save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    for name in ("tie_word_embeddings", "scale_decoder_outputs"):
        values.pop(name)
    (tmp_path / "config.json").write_text(json.dumps(values | {field: False}))
    assert not read_folder(tmp_path).recipe.objectives[0].scale_hidden
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"supported are T5 v1\.0"):
        read_folder(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_every_gradient_equal_those_of_transformers(kind: str, tmp_path: Path) -> None:
    theirs = theirs_of(kind)
    theirs.save_pretrained(tmp_path)
    sizes = ((11, 6), (4, 9), (8, 3))
    rng = np.random.default_rng(0)
    loaded, examples, total = elision.load(tmp_path), [], torch.zeros((), dtype=torch.float64)
    answers = loaded.recipe.backbone.answers(tiny.vocabulary(300))
    for source, target in sizes:
        example = Example(rng.integers(6, 300, source), np.zeros(source, bool), answer=rng.integers(6, 300, target))
        examples.append(answers(example))
        ids, labels = (torch.from_numpy(part)[None] for part in (example.inputs, example.answer))
        # Without padding, one by one; ours reads them packed into one row.
        logits = theirs(ids, labels=labels).logits
        total = total + torch.nn.functional.cross_entropy(logits[0], labels[0], reduction="sum")
    total.backward()
    batch = collate(examples, pad_id=0, row_length=23, decoder_row_length=18)
    assert batch.inputs.shape == (1, 23) and batch.decoder_inputs.shape == (1, 18)
    term = loaded.model(batch)[0]["seq2seq"]
    term.sum.backward()
    assert term.count == 18
    reference.assert_close(term.sum.detach(), total.detach())
    table = family_of(kind).key_map(loaded.recipe.backbone, ("seq2seq",))
    gradients = table.to_theirs({name: value.grad for name, value in loaded.model.named_parameters()})
    names = dict(theirs.named_parameters())
    assert gradients.keys() == names.keys()
    for name, gradient in gradients.items():
        reference.assert_close(gradient, names[name].grad)
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_export_of_an_import_is_the_identity(kind: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs = theirs_of(kind, vocab_size=tokenizer.vocabulary.size)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    write_checkpoint(read_folder(tmp_path / "theirs"), tmp_path / "ours")
    assert write_folder(elision.load(tmp_path / "ours"), tmp_path / "back") == type(theirs).__name__
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    values = json.loads((tmp_path / "back" / "config.json").read_text())
    for field, value in values.items():
        if field in SIZES and field != "vocab_size":
            assert value == getattr(theirs.config, field), field
    assert values["feed_forward_proj"] == theirs.config.feed_forward_proj


@pytest.mark.parametrize("kind", KINDS)
def test_auto_class_loads_an_export_with_equal_logits(kind: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    reference.save_checkpoint(tmp_path / "ours", tiny.recipe(RECIPES[kind]), tokenizer)
    ours = elision.load(tmp_path / "ours", dtype=torch.float64)
    name = "MT5ForConditionalGeneration" if kind == "mt5" else "T5ForConditionalGeneration"
    assert write_folder(ours, tmp_path / "out") == name
    theirs, report = transformers.AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path / "out", output_loading_info=True, dtype=torch.float64
    )
    assert type(theirs).__name__ == name
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    ids, real, written = sides()
    with torch.no_grad():
        expected = theirs.eval()(ids, attention_mask=real.long(), decoder_input_ids=written).logits
    reference.assert_close(ours.logits(ids, visible=real, decoder_ids=written), expected)
    assert (theirs.lm_head.weight is theirs.shared.weight) == (kind == "v1.0")
    names = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in ("ba do <extra_id_0> kilume <extra_id_1>", ""):
        assert names(text)["input_ids"] == tokenizer.encode(text, add_special_tokens=True)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_writing_step_by_step_equals_that_of_transformers(kind: str, tmp_path: Path) -> None:
    # Their cache takes as many layers for granted in the decoder as in the encoder.
    theirs = theirs_of(kind, num_decoder_layers=2)
    theirs.save_pretrained(tmp_path)
    ids, real, _ = sides()
    mask = {"attention_mask": real.long()}
    expected = theirs.generate(ids, **mask, max_new_tokens=12, min_new_tokens=12, do_sample=False, num_beams=1)
    loaded = elision.load(tmp_path)
    backbone, written = loaded.model.backbone, torch.zeros(3, 1, dtype=torch.long)
    with torch.no_grad():
        cache = backbone.read(loaded.batch_of(ids, real))
        for _ in range(12):
            logits = loaded.model.vocabulary_logits(backbone.continue_with(written[:, -1:], cache))[:, -1]
            # Without the end, which they forbid before the twelfth token.
            logits[:, 1] = -torch.inf
            written = torch.cat([written, logits.argmax(-1, keepdim=True)], 1)
    assert written.tolist() == expected.tolist()
    assert len(set(written.flatten().tolist())) > 3, "the comparison needs texts that differ"


def as_read_twice(ids: Tensor) -> Batch:
    """Return texts that are judged: read by the encoder and once more by the decoder, a place behind."""
    rows, length = ids.shape
    places = torch.arange(length).expand(rows, length)
    whole = torch.ones_like(ids)
    shifted = torch.cat([torch.zeros(rows, 1, dtype=torch.long), ids[:, :-1]], 1)
    return Batch(
        inputs=ids, positions=places, doc_ids=whole, decoder_inputs=shifted, decoder_positions=places,
        decoder_doc_ids=whole, targets=torch.full_like(ids, -100), target_at=torch.empty(0, dtype=torch.long),
        summary_at=torch.arange(rows) * length + length - 1, labels=torch.zeros(rows, dtype=torch.long), num_examples=rows,
        num_tokens=2 * ids.numel(), num_decoder_tokens=ids.numel(), whole_rows=True,
    )  # fmt: skip


HEADS = {"classification": Classification(num_labels=3), "answering": SpanExtraction()}
CLASSES = {"classification": "ForSequenceClassification", "answering": "ForQuestionAnswering"}


def agree(theirs: torch.nn.Module, model: LanguageModel, head: str) -> None:
    ids = reference.token_ids(3, 11)
    ids[:, -1] = 1
    with torch.no_grad():
        output, batch = theirs.eval()(ids), as_read_twice(ids)
        ours = model.eval().backbone(batch)
        if head == "classification":
            scores = HEADS[head].scores(model.heads[head], model.backbone, ours, batch)
            reference.assert_close(scores, output.logits)
        else:
            scores = HEADS[head].scores(model.heads[head], ours)
            reference.assert_close(scores, torch.stack([output.start_logits, output.end_logits], -1))


@pytest.mark.parametrize("head", list(HEADS))
@pytest.mark.parametrize("kind", KINDS)
def test_their_classifiers_and_answerers_score_as_ours_both_ways(kind: str, head: str, tmp_path: Path) -> None:
    labels = {"num_labels": 3} if head == "classification" else {}
    theirs, family = theirs_of(kind, CLASSES[head], **labels), family_of(kind)
    theirs.save_pretrained(tmp_path / "theirs")
    imported = read_folder(tmp_path / "theirs")
    backbone = imported.recipe.backbone
    model = LanguageModel(backbone, (HEADS[head],), reference.VOCAB_SIZE).double()
    model.load_state_dict(imported.tensors)
    agree(theirs, model, head)

    scrambled = reference.scrambled(model, torch.float64)
    back = family.key_map(backbone, (head,)).to_theirs(dict(scrambled.state_dict()))
    theirs.config.save_pretrained(tmp_path / "back")
    save_file(back, tmp_path / "back" / "model.safetensors", metadata={"format": "pt"})
    again, report = type(theirs).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    agree(again, scrambled, head)
    assert family.ARCHITECTURES[head,] == type(theirs).__name__


@pytest.mark.parametrize("kind", ["v1.0", "v1.1"])
def test_an_export_writes_texts_of_several_lengths_in_their_generate(
    kind: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    reference.save_checkpoint(tmp_path / "ours", tiny.recipe(RECIPES[kind]), tokenizer)
    write_folder(elision.load(tmp_path / "ours"), tmp_path / "out")
    names = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out")
    config = theirs.generation_config
    vocabulary = tokenizer.vocabulary
    assert config.eos_token_id == vocabulary.eos and config.pad_token_id == vocabulary.pad
    assert config.decoder_start_token_id == vocabulary.pad
    written = theirs.generate(
        **names(["ba do <extra_id_0> ki", "ba"], return_tensors="pt", padding=True), max_new_tokens=5
    )
    assert written.shape[0] == 2 and (written[:, 0] == vocabulary.pad).all()


@pytest.mark.parametrize(("changes", "message"), [
    ({"start": "last"}, "backbone.start is 'last'"),
    ({"decoder.norm": "post"}, "backbone.decoder.norm is 'post'"),
    ({"decoder.feedforward_size": 20}, "backbone.decoder.feedforward_size is 20"),
    ({"encoder.scale_attention": True}, "backbone.encoder.scale_attention is True"),
    ({"decoder.windows": (4,)}, "backbone.decoder.windows"),
])  # fmt: skip
def test_settings_that_theirs_does_not_know_are_refused_by_name(changes: dict[str, object], message: str) -> None:
    backbone = tiny.recipe("t5-tiny").backbone
    assert isinstance(backbone, EncoderDecoder)
    for field, value in changes.items():
        side, _, name = field.rpartition(".")
        if side:
            backbone = dataclasses.replace(
                backbone, **{side: dataclasses.replace(getattr(backbone, side), **{name: value})}
            )
        else:
            backbone = dataclasses.replace(backbone, **{name: value})
    with pytest.raises(InputError, match=message):
        t5.check(backbone)
    t5.check(tiny.recipe("t5-tiny").backbone)


def test_an_output_table_of_its_own_without_gates_is_refused(tmp_path: Path) -> None:
    theirs = theirs_of("v1.0")
    theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight.detach() + 1)
    theirs.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"only supported in v1\.1"):
        read_folder(tmp_path)


def test_old_files_with_copies_of_the_token_table_are_read(tmp_path: Path) -> None:
    theirs = theirs_of("v1.0")
    theirs.config.save_pretrained(tmp_path)
    state = dict(theirs.state_dict())
    assert "encoder.embed_tokens.weight" in state and "lm_head.weight" in state
    state["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.zeros(8, 4)
    torch.save(state, tmp_path / "pytorch_model.bin")
    ids, real, written = sides()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long(), decoder_input_ids=written).logits
    reference.assert_close(elision.load(tmp_path).logits(ids, visible=real, decoder_ids=written), expected)
    assert Config(tmp_path / "config.json").values["model_type"] == "t5"
