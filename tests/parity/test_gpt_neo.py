"""GPT-3's alternating layers: ours and transformers' GPT-Neo agree, both ways. It computes its scores in float32 always."""

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

import elision
from elision.errors import InputError
from elision.export import gpt_neo
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.text.tokenizer import Tokenizer
from tests import tiny
from tests.parity import heads, reference

pytestmark = pytest.mark.parity

KINDS = {
    "classification": transformers.GPTNeoForSequenceClassification,
    "tagging": transformers.GPTNeoForTokenClassification,
    "answering": transformers.GPTNeoForQuestionAnswering,
}


def build(kind: type, **settings: object) -> transformers.PreTrainedModel:
    """Return a GPT-Neo of the given class: 3 layers, width 32, 20 positions, windows of 4."""
    config = {
        "vocab_size": reference.VOCAB_SIZE,
        "hidden_size": 32,
        "num_layers": 3,
        "num_heads": 4,
        "max_position_embeddings": 20,
        "attention_types": [[["global", "local", "local"], 1]],
        "window_size": 4,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    return reference.scrambled(kind(transformers.GPTNeoConfig(**config | settings)))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny.tokenizer(tiny.BYTES)


def logits_of(theirs: transformers.PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return theirs(ids).logits


@pytest.mark.parametrize(
    "types, windows",
    [
        ([[["global", "local", "local"], 1]], (None, 4, 4)),
        ([[["global", "local"], 2]], (None, 4)),
        ([[["local"], 3]], (4,)),
        ([[["global"], 2]], ()),
        ([[["global"], 1], [["local"], 2]], (None, 4, 4)),
    ],
)
def test_imported_logits_equal_those_of_transformers(types: list, windows: tuple, tmp_path: Path) -> None:
    num_layers = sum(len(group) * times for group, times in types)
    theirs = build(transformers.GPTNeoForCausalLM, attention_types=types, num_layers=num_layers, intermediate_size=48)
    theirs.save_pretrained(tmp_path)
    loaded = elision.load(tmp_path)
    assert loaded.recipe.backbone.windows == windows
    ids = reference.token_ids(3, 17)
    real = torch.ones(3, 17, dtype=torch.bool)
    real[1, 9:] = False
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long()).logits
    reference.assert_close(loaded.logits(ids, visible=real)[real], expected[real])


def test_a_window_is_as_wide_there_as_here(tmp_path: Path) -> None:
    theirs = build(transformers.GPTNeoForCausalLM, attention_types=[[["local"], 1]], num_layers=1)
    theirs.save_pretrained(tmp_path)
    loaded, ids = elision.load(tmp_path), reference.token_ids(1, 12)
    changed = ids.clone()
    changed[0, 3] = 5
    for logits in (lambda given: logits_of(theirs, given), loaded.logits):
        moved = (logits(ids) - logits(changed)).abs().amax(-1)[0] > 1e-4
        assert moved.nonzero()[:, 0].tolist() == [3, 4, 5, 6]


def test_export_of_an_import_is_the_identity(tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs = build(transformers.GPTNeoForCausalLM, vocab_size=tokenizer.vocabulary.size)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    write_checkpoint(read_folder(tmp_path / "theirs"), tmp_path / "ours")
    assert write_folder(elision.load(tmp_path / "ours"), tmp_path / "back") == "GPTNeoForCausalLM"
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("windows", [(None, 4), (4, None), ()])
def test_queries_that_are_divided_here_are_divided_beforehand_there(
    windows: tuple, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    recipe = tiny.recipe("gpt3-tiny", num_layers=3)
    recipe = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, windows=windows))
    model = reference.save_checkpoint(tmp_path / "ours", recipe, tokenizer)
    ours = elision.load(tmp_path / "ours")
    assert recipe.backbone.scale_attention and recipe.backbone.head_width == 16
    assert write_folder(ours, tmp_path / "out") == "GPTNeoForCausalLM"
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    ids = reference.token_ids(2, 17)
    reference.assert_close(ours.logits(ids), logits_of(theirs, ids))
    # The model that was written is left as it was, and what was written is read back as the same function.
    state = ours.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    reference.assert_close(elision.load(tmp_path / "out").logits(ids), ours.logits(ids))


def test_pipeline_and_greedy_generation_run_an_export(tokenizer: Tokenizer, tmp_path: Path) -> None:
    reference.save_checkpoint(tmp_path / "ours", tiny.recipe("gpt3-tiny"), tokenizer)
    write_folder(elision.load(tmp_path / "ours"), tmp_path / "out")
    pipe = transformers.pipeline("text-generation", model=str(tmp_path / "out"), device="cpu")
    (text,) = pipe("ba do", max_new_tokens=4, do_sample=False)
    assert text["generated_text"].startswith("ba do")


@pytest.mark.parametrize("name", KINDS)
def test_heads_say_the_same_on_both_sides(name: str) -> None:
    backbone = dataclasses.replace(tiny.recipe("gpt3-tiny").backbone, scale_attention=False)
    model = heads.build(backbone, name)
    config = gpt_neo.write_config(backbone, (name,), reference.VOCAB_SIZE, tiny.vocabulary(300))
    theirs = KINDS[name](transformers.GPTNeoConfig(**config | {"num_labels": 2 if name == "answering" else 3}))
    theirs.config.pad_token_id = 0
    heads.load_into(theirs, gpt_neo, model)
    ids = reference.token_ids(3, 11)
    real = torch.ones(3, 11, dtype=torch.bool)
    real[1, 7:] = False
    ids[~real] = 0
    batch = heads.batch_of(ids, real, None)
    batch.summary_at = torch.tensor([10, 11 + 6, 22 + 10])
    for ours in (model, heads.loaded_from(theirs, gpt_neo, backbone, name)):
        with torch.no_grad():
            output = theirs.eval()(ids, attention_mask=real.long())
        scores = heads.scores(ours, batch)
        if name == "classification":
            reference.assert_close(scores, output.logits)
        elif name == "tagging":
            reference.assert_close(scores, output.logits[real])
        else:
            reference.assert_close(scores[real], torch.stack([output.start_logits, output.end_logits], -1)[real])


@pytest.mark.parametrize("field, value", [("windows", (None, 4, 6)), ("biases", "all"), ("final_norm", False)])
def test_what_has_no_counterpart_is_refused(field: str, value: object, tokenizer: Tokenizer, tmp_path: Path) -> None:
    recipe = tiny.recipe("gpt3-tiny", num_layers=3)
    recipe = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, **{field: value}))
    reference.save_checkpoint(tmp_path / "ours", recipe, tokenizer)
    with pytest.raises(InputError, match=rf"backbone\.{field} is"):
        write_folder(elision.load(tmp_path / "ours"), tmp_path / "out")


def test_a_pattern_that_does_not_fill_the_layers_is_refused(tmp_path: Path) -> None:
    theirs = build(transformers.GPTNeoForCausalLM)
    theirs.config.attention_types = [[["global", "nearby", "local"], 1]]
    theirs.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="attention_types is"):
        elision.load(tmp_path)
