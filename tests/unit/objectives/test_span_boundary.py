"""The span boundary objective, against the formulas of its paper with plain loops."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from elision.data.batch import Batch, collate
from elision.data.example import Example
from elision.data.noise import DynamicMask, NgramMask, SpanMask, TokenMask
from elision.data.order import generator
from elision.data.store import Store
from elision.errors import InputError
from elision.model.backbone import Output
from elision.model.language_model import LanguageModel
from elision.objectives import MaskedLM, SpanBoundary
from elision.recipe import Recipe
from tests import tiny

StoreOf = Callable[[Recipe], Store]
NOISE = SpanMask(rate=0.3, random_from="vocabulary")


def examples() -> list[Example]:
    made = []
    for index, length in enumerate((20, 9, 14)):
        inputs = np.array([2, *range(10 + index, 10 + index + length), 3])
        special = np.zeros(len(inputs), bool)
        special[[0, -1]] = True
        made.append(NOISE(Example(inputs, special), tiny.vocabulary(60), generator(1, "noise", index)))
    return made


@pytest.fixture
def model() -> LanguageModel:
    torch.manual_seed(0)
    recipe = tiny.recipe("spanbert-tiny", dropout=0.0, attention_dropout=0.0)
    model = LanguageModel(recipe.backbone, recipe.objectives, 60).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def layer_norm(x: list[float], weight: Tensor, bias: Tensor, eps: float) -> list[float]:
    mean = sum(x) / len(x)
    variance = sum((v - mean) ** 2 for v in x) / len(x)
    return [(v - mean) / math.sqrt(variance + eps) * float(w) + float(b) for v, w, b in zip(x, weight, bias)]


def linear(x: list[float], weight: Tensor, bias: Tensor) -> list[float]:
    return [sum(float(w) * v for w, v in zip(row, x)) + float(b) for row, b in zip(weight, bias)]


def gelu(x: float) -> float:
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


def reference(model: LanguageModel, hidden_BTD: Tensor, batch: Batch, spans: list[tuple[int, int, int]]) -> list[float]:
    """-log p(x_i) for i in s ... e of every span, from h_(s-1), h_(e+1) and p_(i-s+1) (equations 2 to 4)."""
    head, table = model.heads["sbo"], model.backbone.table
    losses = []
    with torch.no_grad():
        for row, start, end in spans:
            for offset, place in enumerate(range(start, min(end, start + 15))):
                x = [*hidden_BTD[row, start - 1].tolist(), *hidden_BTD[row, end].tolist()]
                x += head.offsets.weight[offset].tolist()
                x = [gelu(v) for v in linear(x, head.dense.weight, head.dense.bias)]
                x = layer_norm(x, head.norm.weight, head.norm.bias, 1e-12)
                x = [gelu(v) for v in linear(x, head.output.weight, head.output.bias)]
                x = layer_norm(x, head.output_norm.weight, head.output_norm.bias, 1e-12)
                scores = linear(x, table, head.bias)
                top = max(scores)
                norm = top + math.log(sum(math.exp(score - top) for score in scores))
                losses.append(norm - scores[int(batch.targets[row, place])])
    return losses


@pytest.mark.parametrize("packing", [True, False])
def test_the_loss_is_that_of_the_formulas(model: LanguageModel, packing: bool) -> None:
    batch = collate(examples(), pad_id=0, row_length=40, packing=packing)
    hidden = model.backbone(batch).hidden.detach()
    spans, masked = [], batch.targets != -100
    for row in range(len(masked)):
        place = 0
        while place < masked.shape[1]:
            end = place
            while end < masked.shape[1] and masked[row, end]:
                end += 1
            if end > place:
                spans.append((row, place, end))
            place = end + 1
    expected = reference(model, hidden, batch, spans)
    term = model(batch)[0]["sbo"]
    assert term.count == len(expected) == model.counts(batch)["sbo"] and term.weight == 1.0
    torch.testing.assert_close(term.sum.detach(), torch.tensor(sum(expected), dtype=torch.float64), rtol=1e-10, atol=0)


def test_only_boundaries_and_offsets_are_read_not_the_states_inside_of_a_span(model: LanguageModel) -> None:
    batch = collate(examples(), pad_id=0, row_length=40)
    objective, head = model.objectives[1], model.heads["sbo"]
    hidden = model.backbone(batch).hidden.detach()

    def loss(states: Tensor) -> Tensor:
        return objective.after(head, model.backbone, Output(states, states), batch)["sbo"].sum

    inside = torch.isin(torch.arange(batch.inputs.numel()), batch.boundaries[:, 0]).view(batch.inputs.shape)
    assert torch.equal(loss(torch.where(inside[..., None], hidden + 1.0, hidden)), loss(hidden))
    place = batch.boundaries[0, 1]
    moved = hidden.clone().flatten(0, 1)
    moved[place] += 1.0
    assert not torch.isclose(loss(moved.view_as(hidden)), loss(hidden))


def test_states_of_boundaries_are_computed_even_where_only_needed_places_are(model: LanguageModel) -> None:
    batch = collate(examples(), pad_id=0, row_length=90)
    assert batch.needed_at is not None
    everywhere = model.backbone(batch).hidden.flatten(0, 1)
    needed = model.backbone(batch, needed_only=True).hidden.flatten(0, 1)
    places = batch.boundaries.flatten()
    torch.testing.assert_close(needed[places], everywhere[places], rtol=0, atol=1e-12)
    assert (needed[0] == 0).all() or 0 in batch.needed_at


def test_a_batch_without_a_span_costs_nothing(model: LanguageModel) -> None:
    (example, *_) = examples()
    bare = dataclasses.replace(example, spans=np.zeros((0, 3), np.int64))
    term = model(collate([bare], pad_id=0))[0]["sbo"]
    assert term.count == 0 and float(term.sum.detach()) == 0
    term.sum.backward()


def test_judging_counts_the_likeliest_tokens_that_are_right(model: LanguageModel) -> None:
    batch = collate(examples(), pad_id=0)
    with torch.no_grad():
        output = model.backbone(batch)
        judged = model.objectives[1].judge(model.heads["sbo"], model.backbone, output, batch)["sbo"]
        states = model.heads["sbo"](output.hidden, batch.boundaries)
        best = (states @ model.backbone.table.T + model.heads["sbo"].bias).argmax(-1)
    assert judged.count == len(batch.boundaries)
    assert int(judged.right) == int((best == batch.targets.flatten()[batch.boundaries[:, 0]]).sum())


@pytest.mark.parametrize("noise", [TokenMask(), DynamicMask(), NgramMask()])
def test_a_noise_that_leaves_no_spans_out_is_refused(noise: object) -> None:
    recipe = tiny.recipe("spanbert-tiny")
    with pytest.raises(InputError, match=f"SpanBoundary restores spans .* {type(noise).__name__} does not say"):
        dataclasses.replace(recipe, noise=noise)
    assert dataclasses.replace(recipe, noise=noise, objectives=(MaskedLM(),))


def test_more_offsets_than_have_vectors_are_refused() -> None:
    recipe = tiny.recipe("spanbert-tiny")
    with pytest.raises(InputError, match=r"noise\.max_restored is 20, but SpanBoundary has vectors for 15"):
        dataclasses.replace(recipe, noise=dataclasses.replace(recipe.noise, max_restored=20))


@pytest.mark.parametrize("name", ["bert-tiny", "roberta-tiny"])
def test_span_masks_and_their_boundaries_train_any_encoder(name: str, store_of: StoreOf) -> None:
    recipe = tiny.recipe(name)
    recipe = dataclasses.replace(recipe, noise=SpanMask(), objectives=(*recipe.objectives, SpanBoundary(offset_size=8)))
    store = store_of(recipe)
    (batch,) = tiny.loader(recipe, store).microbatches(0)
    terms, _ = tiny.model(recipe, store)(batch)
    assert terms["sbo"].count > 0
    assert 0.7 * math.log(300) < float(terms["sbo"].sum.detach()) / terms["sbo"].count < 1.3 * math.log(300)
