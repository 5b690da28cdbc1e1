"""The objectives of tagging and of extractive question answering, against loops over single examples."""

import dataclasses

import numpy as np
import pytest
import torch

from elision.data.batch import Batch, collate
from elision.data.example import NO_TARGET, Example
from elision.errors import InputError
from elision.model.language_model import LanguageModel
from elision.objectives import SpanExtraction, TokenClassification
from elision.objectives.answering import BEGIN, END
from tests import tiny

TAGS = 5


def examples(kind: str, num_examples: int = 9) -> list[Example]:
    """Return texts of 4 to 11 tokens with some tags, or with an answer each: one token long, longer, or none (at 0)."""
    rng = np.random.default_rng(0)
    made = []
    for n in range(num_examples):
        length = int(rng.integers(4, 12))
        targets = np.full(length, NO_TARGET)
        if kind == "tagging":
            chosen = rng.random(length) < 0.5
            targets[chosen] = rng.integers(0, TAGS, chosen.sum())
        else:
            begin = 0 if n % 3 == 0 else int(rng.integers(1, length - 1))
            end = begin if n % 3 < 2 else int(rng.integers(begin + 1, length))
            targets[begin], targets[end] = BEGIN, END
            if begin == end:
                targets[begin] = BEGIN + END
        made.append(Example(rng.integers(6, 200, length), np.zeros(length, bool), targets=targets))
    return made


def model_of(kind: str, name: str = "bert-tiny", **settings: object) -> LanguageModel:
    torch.manual_seed(0)
    backbone = dataclasses.replace(tiny.recipe(name, dropout=0.0, attention_dropout=0.0).backbone, num_types=0)
    objective = TokenClassification(TAGS, dropout=0.0) if kind == "tagging" else SpanExtraction()
    model = LanguageModel(backbone, (objective,), 300).double()
    for parameter in model.heads.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def laid_out(made: list[Example], packing: bool) -> Batch:
    return collate(made, pad_id=0, row_length=24, packing=packing)


def by_hand(model: LanguageModel, kind: str, made: list[Example]) -> torch.Tensor:
    """Return the summed loss, one example at a time and from the formulas."""
    total = torch.zeros((), dtype=torch.float64)
    for example in made:
        (states,) = model.backbone(collate([example], pad_id=0)).hidden
        scores = states @ model.heads[kind].output.weight.T + model.heads[kind].output.bias
        if kind == "tagging":
            for place in np.flatnonzero(example.targets != NO_TARGET):
                total = total + scores[place].logsumexp(0) - scores[place, example.targets[place]]
        else:
            (begin,) = np.flatnonzero((example.targets == BEGIN) | (example.targets == BEGIN + END))
            (end,) = np.flatnonzero((example.targets == END) | (example.targets == BEGIN + END))
            total = total + (scores[:, 0].logsumexp(0) - scores[begin, 0]) / 2
            total = total + (scores[:, 1].logsumexp(0) - scores[end, 1]) / 2
    return total


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("name", ["bert-tiny", "gpt2-tiny"])
@pytest.mark.parametrize("kind", ["tagging", "answering"])
def test_packed_or_not_the_loss_and_its_gradients_are_those_of_each_example_alone(
    kind: str, name: str, packing: bool
) -> None:
    model, made = model_of(kind, name), examples(kind)
    batch = laid_out(made, packing)
    assert (batch.inputs.shape[0] < len(made)) is packing
    terms, _ = model(batch)
    (term,) = terms.values()
    assert {kind: term.count} == model.counts(batch)
    assert term.count == (batch.num_targets if kind == "tagging" else len(made))
    gradients = torch.autograd.grad(term.sum, list(model.parameters()), allow_unused=True)
    expected = by_hand(model, kind, made)
    wanted = torch.autograd.grad(expected, list(model.parameters()), allow_unused=True)
    torch.testing.assert_close(term.sum, expected, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(gradients, wanted):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_tagging_reads_only_places_with_a_tag_and_answering_reads_all() -> None:
    assert model_of("tagging").reads_needed_only and not model_of("answering").reads_needed_only


def test_heads_have_the_names_that_every_key_map_knows() -> None:
    for kind, width in (("tagging", TAGS), ("answering", 2)):
        names = {name for name, _ in model_of(kind).named_parameters() if name.startswith("heads.")}
        assert names == {f"heads.{kind}.output.weight", f"heads.{kind}.output.bias"}
        assert model_of(kind).heads[kind].output.weight.shape == (width, 32)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="num_labels is 1: tagging needs at least 2 tags"):
        TokenClassification(1)
    for objective in (TokenClassification, SpanExtraction):
        with pytest.raises(InputError, match=r"dropout is 1\.0"):
            objective(dropout=1.0)
