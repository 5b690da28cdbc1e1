"""What ours and transformers' decoders must agree on, whatever the family."""

import dataclasses
import json
from pathlib import Path
from types import ModuleType

import torch
import transformers

import elision
from elision.data.batch import Batch
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.generation.decode import generate_ids
from elision.generation.decoding import Decoding, Symbols
from elision.recipe import Recipe
from elision.text.tokenizer import Tokenizer
from tests import tiny
from tests.parity import heads, reference

ROWS, LENGTH = 3, 11


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids, and which of them are no padding: a row ends early."""
    ids, real = reference.token_ids(ROWS, LENGTH), torch.ones(ROWS, LENGTH, dtype=torch.bool)
    real[1, 7:] = False
    return ids, real


def logits_agree(theirs: transformers.PreTrainedModel, folder: Path) -> None:
    """Assert that a file of theirs, read by us, scores padded text as theirs does."""
    theirs.save_pretrained(folder)
    ids, real = padded()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long()).logits
    reference.assert_close(elision.load(folder).logits(ids, visible=real)[real], expected[real])


def states_agree(theirs: transformers.PreTrainedModel, folder: Path) -> None:
    """Assert that a file without a head gives the same states."""
    theirs.save_pretrained(folder)
    ids, real = padded()
    loaded = elision.load(folder)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long()).last_hidden_state
        hidden = loaded.model.backbone(heads.batch_of(ids, real, None)).hidden
    reference.assert_close(hidden[real], expected[real])


def gradients_agree(theirs: transformers.PreTrainedModel, family: ModuleType, folder: Path) -> None:
    """Assert that the loss and the gradient of every tensor are the same."""
    theirs.save_pretrained(folder)
    ids = reference.token_ids(ROWS, LENGTH)
    expected = torch.nn.functional.cross_entropy(theirs(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    expected.backward()
    loaded = elision.load(folder)
    targets = torch.cat([ids[:, 1:], torch.full((ROWS, 1), -100)], 1)
    batch = Batch(
        inputs=ids,
        positions=torch.arange(LENGTH).expand(ROWS, LENGTH),
        doc_ids=torch.ones(ROWS, LENGTH, dtype=torch.long),
        targets=targets,
        target_at=(targets.flatten() != -100).nonzero()[:, 0],
        summary_at=torch.arange(ROWS) * LENGTH + LENGTH - 1,
        num_targets=ROWS * (LENGTH - 1),
        num_examples=ROWS,
        num_tokens=ROWS * LENGTH,
        whole_rows=True,
    )
    terms, _ = loaded.model(batch)
    loss = terms["clm"].sum / terms["clm"].count
    loss.backward()
    reference.assert_close(loss.detach(), expected.detach())
    table = family.key_map(loaded.recipe.backbone, ("clm",))
    gradients = table.to_theirs({name: value.grad for name, value in loaded.model.named_parameters()})
    names = family.normalise(dict(theirs.named_parameters()), "theirs")
    assert gradients.keys() == names.keys()
    for name, gradient in gradients.items():
        reference.assert_close(gradient, names[name].grad)
        assert gradient.abs().max() > 0, name


def export_agrees(recipe: Recipe, tokenizer: Tokenizer, folder: Path, kind: str) -> None:
    """Assert that the automatic class loads an export, every tensor of it, with equal logits and ids."""
    reference.save_checkpoint(folder / "ours", recipe, tokenizer)
    ours = elision.load(folder / "ours")
    assert write_folder(ours, folder / "out") == kind
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(folder / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    assert type(theirs).__name__ == kind
    ids = reference.token_ids(2, LENGTH)
    with torch.no_grad():
        expected = theirs(ids).logits
    reference.assert_close(ours.logits(ids), expected)
    assert theirs.generation_config.eos_token_id == tokenizer.vocabulary.eos
    assert theirs.generation_config.bos_token_id == tokenizer.vocabulary.bos
    names = transformers.AutoTokenizer.from_pretrained(folder / "out")
    for text in ("ba do kilume nora.", " 한국어 ünï 🙂\n\n", ""):
        assert names(text)["input_ids"] == tokenizer.encode(text, add_special_tokens=True)
    again = read_folder(folder / "out")
    assert dataclasses.replace(again.recipe.backbone, init=recipe.backbone.init) == recipe.backbone


def pipeline_agrees(recipe: Recipe, tokenizer: Tokenizer, folder: Path) -> None:
    """Assert that an export goes on with a text in `transformers.pipeline` as ours does from the same ids."""
    model = reference.save_checkpoint(folder / "ours", recipe, tokenizer).eval()
    write_folder(elision.load(folder / "ours"), folder / "out")
    prompt = "ba do kilume"
    writes = transformers.pipeline("text-generation", model=str(folder / "out"))
    (found,) = writes(prompt, max_new_tokens=6, do_sample=False, return_full_text=False)
    begun = tokenizer.encode(prompt, add_special_tokens=True)
    symbols = Symbols.of(Decoding(), model, tokenizer)
    ids = list(generate_ids(model, begun, Decoding(num_tokens=6), symbols))
    assert ids
    whole = tokenizer.decode([*begun, *ids])
    assert whole.removeprefix(tokenizer.decode(begun)) == found["generated_text"]


def generation_agrees(theirs: transformers.PreTrainedModel, folder: Path, cache: bool) -> None:
    """Assert that greedy generation gives the same tokens, with or without a cache."""
    theirs.save_pretrained(folder)
    model = elision.load(folder).model
    seen = set()
    for seed in range(5):
        prompt = reference.token_ids(1, 4, seed)
        expected = theirs.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=16, do_sample=False, eos_token_id=None
        )
        ours = list(generate_ids(model, prompt[0].tolist(), Decoding(num_tokens=16), cache=cache))
        assert ours == expected[0, 4:].tolist()
        seen |= set(ours)
    assert len(seen) > 5, "the comparison needs texts that differ"


def heads_agree(theirs: transformers.PreTrainedModel, family: ModuleType, name: str, folder: Path) -> None:
    """Assert that a fine-tuned model says the same of padded text: read by us, and ours put into theirs."""
    theirs.save_pretrained(folder / "theirs")
    tiny.tokenizer(tiny.BYTES).save(folder / "theirs")
    imported = read_folder(folder / "theirs")
    assert [objective.name for objective in (imported.task.objective,)] == [name]
    backbone = imported.recipe.backbone
    _agree(theirs, heads.loaded_from(theirs, family, backbone, name), name)
    model = heads.build(backbone, name)
    heads.load_into(theirs, family, model)
    _agree(theirs, model, name)
    write_checkpoint(imported, folder / "ours")
    assert write_folder(elision.load(folder / "ours"), folder / "back") == type(theirs).__name__
    _, report = type(theirs).from_pretrained(folder / "back", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report


def _agree(theirs: transformers.PreTrainedModel, model: torch.nn.Module, name: str) -> None:
    ids, real = padded()
    ids = torch.where(real, ids, theirs.config.pad_token_id)
    # A classifier there judges the last token that is no padding.
    last = real.sum(1) - 1 + torch.arange(ROWS) * LENGTH
    batch = dataclasses.replace(heads.batch_of(ids, real, None), summary_at=last)
    with torch.no_grad():
        output = theirs.eval()(ids, attention_mask=real.long())
    ours = heads.scores(model, batch)
    if name == "classification":
        reference.assert_close(ours, output.logits)
    elif name == "tagging":
        reference.assert_close(ours, output.logits[real])
    else:
        reference.assert_close(ours[real], torch.stack([output.start_logits, output.end_logits], -1)[real])


def rewrite_config(folder: Path, **change: object) -> None:
    """Set fields of a config.json; None takes one out."""
    path = folder / "config.json"
    values = json.loads(path.read_text()) | change
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))
