"""Fine-tuning to write, over every recipe that can: packing changes no loss, and texts are written of the examples read."""

import dataclasses
import functools
from pathlib import Path

import pytest
import torch

import elision
from elision.data.example import NO_TARGET
from elision.objectives import CausalLM, SequenceLM
from elision.tasks.batches import in_batches
from elision.tasks.seq2seq import Writing, prepare
from elision.tasks.writer import read_examples, write_texts
from tests import tiny
from tests.unit.tasks import toy, toy_pairs


@functools.cache
def kinds() -> tuple[str, ...]:
    """Return the name of one recipe for each kind of backbone that writes."""
    found: dict[tuple, str] = {}
    for name in tiny.systems():
        recipe = tiny.recipe(name)
        backbone = recipe.backbone
        if any(isinstance(each, CausalLM | SequenceLM) for each in recipe.objectives) and hasattr(backbone, "answers"):
            decoder = getattr(backbone, "decoder", backbone)
            kind = type(backbone), backbone.visibility, type(decoder.positions), decoder.norm, decoder.norm_kind
            found.setdefault((*kind, getattr(backbone, "start", None), recipe.tokenizer), name)
    return tuple(found.values())


@pytest.mark.parametrize("name", kinds())
def test_every_model_that_writes_can_be_taught_to_write(name: str, tmp_path: Path) -> None:
    loaded = elision.load(toy.untrained(tmp_path / "base", name), dtype=torch.float64)
    pairs = toy_pairs.pairs(8, 1, most=2)
    writing = Writing(prompt="{source}=", max_target_length=8)
    prepared = prepare(loaded, pairs, pairs[:3], dataclasses.replace(toy.SETTINGS, max_length=24), writing=writing)
    model, plan = loaded.model, prepared.train
    examples = [plan.example(index) for index in range(len(plan))]
    losses = []
    for packing in (True, False):
        with torch.no_grad():
            terms = [model(batch)[0][prepared.task.objective.name] for batch in in_batches(examples, "cpu", packing)]
        losses.append(float(sum(term.sum for term in terms)))
        assert sum(term.count for term in terms) == sum(int((each.targets != NO_TARGET).sum()) for each in examples)
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)

    # What would be written first is what the model says at the first target of an example.
    heard: list[tuple[int, int]] = []
    task, encoding = prepared.task, plan.encoding
    read = read_examples([pair.source for pair in pairs[:3]], loaded.tokenizer, encoding, prepared.held_out.prompt)
    one = dataclasses.replace(task.decoding, num_tokens=1)
    outputs = write_texts(model, loaded.tokenizer, read, encoding, one, lambda *done: heard.append(done))
    assert heard[-1] == (3, 3)
    for example, output in zip(examples[:3], outputs, strict=True):
        (batch,) = in_batches([example], "cpu")
        with torch.no_grad():
            best = (
                model.logits(batch).flatten(0, 1)[int(batch.target_at[0])][: loaded.tokenizer.vocabulary.size].argmax()
            )
        ends = [loaded.tokenizer.vocabulary.require(role) for role in encoding.frame.after]
        assert output == ("" if int(best) in ends else loaded.tokenizer.decode([int(best)]).strip())
