"""Leaving out of the last block what nobody reads changes neither a loss nor a gradient."""

import dataclasses

import pytest
import torch

from elision.data.store import Store
from elision.model.language_model import LanguageModel
from elision.objectives import CausalLM, MaskedLM, NextSentence
from tests import tiny


@pytest.mark.parametrize("packing", [True, False])
def test_losses_and_gradients_are_those_of_the_whole_pass(packing: bool, wordpiece_store: Store) -> None:
    recipe = tiny.recipe("bert-tiny", dropout=0.0, attention_dropout=0.0)
    model = tiny.model(recipe, wordpiece_store).double()
    batch = tiny.loader(recipe, wordpiece_store, packing=packing).microbatches(0)[0]
    assert batch.needed_at is not None
    assert len(batch.needed_at) < batch.inputs.numel() / 2
    whole = dataclasses.replace(batch, needed_at=None)
    assert model.num_flops(batch) < model.num_flops(whole)
    gradients = []
    for each in (batch, whole):
        model.zero_grad()
        terms, _ = model(each)
        sum(term.sum for term in terms.values()).backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
        gradients[-1] |= {f"term {name}": term.sum.detach() for name, term in terms.items()}
    for name, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][name], rtol=1e-12, atol=1e-12, msg=name)


def test_needed_places_are_targets_and_summaries(wordpiece_store: Store) -> None:
    recipe = tiny.recipe("bert-tiny")
    batch = tiny.loader(recipe, wordpiece_store).microbatches(0)[0]
    assert set(batch.needed_at.tolist()) == {*batch.target_at.tolist(), *batch.summary_at.tolist()}
    model = tiny.model(recipe, wordpiece_store).eval()
    states, needed = model.backbone(batch).hidden, model.backbone(batch, needed_only=True).hidden
    torch.testing.assert_close(needed.flatten(0, 1)[batch.needed_at], states.flatten(0, 1)[batch.needed_at])
    others = torch.ones(batch.inputs.numel(), dtype=torch.bool)
    others[batch.needed_at] = False
    assert not needed.flatten(0, 1)[others].any()


def test_a_batch_with_targets_everywhere_needs_everything(bytes_store: Store) -> None:
    assert tiny.loader(tiny.recipe("gpt2-tiny"), bytes_store).microbatches(0)[0].needed_at is None


def test_an_objective_that_reads_everywhere_gets_everything() -> None:
    class ReadsEverywhere(NextSentence):
        reads_everywhere = True

    backbone = tiny.recipe("bert-tiny").backbone
    assert LanguageModel(backbone, (MaskedLM(), NextSentence()), 50).reads_needed_only
    assert not LanguageModel(backbone, (MaskedLM(), ReadsEverywhere()), 50).reads_needed_only
    assert CausalLM().reads_everywhere is False
