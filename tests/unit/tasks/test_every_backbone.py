"""Tagging and answering over every kind of backbone and frame: the right places, and packing changes nothing."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
import torch

import elision
from elision.data.example import NO_TARGET
from elision.model.language_model import LanguageModel
from elision.tasks.answer import prepare as prepare_answers
from elision.tasks.answerer import find_answers
from elision.tasks.finetune import Prepared
from elision.tasks.tag import prepare as prepare_tags
from elision.tasks.tagger import tag_scores
from tests import tiny
from tests.unit.tasks import toy, toy_tags


@functools.cache
def kinds() -> tuple[str, ...]:
    """Return the name of one recipe for each kind of backbone, frame and visibility."""
    found: dict[tuple, str] = {}
    for name in tiny.systems():
        backbone = tiny.recipe(name).backbone
        found.setdefault((type(backbone), backbone.frame, backbone.visibility, backbone.num_types), name)
    return tuple(found.values())


@pytest.fixture(scope="module", params=kinds())
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> elision.loaded.Loaded:
    folder: Path = tmp_path_factory.mktemp("base") / "model"
    return elision.load(toy.untrained(folder, request.param))


def fresh(prepared: Prepared) -> LanguageModel:
    torch.manual_seed(0)
    loaded = prepared.loaded
    model = LanguageModel(loaded.recipe.backbone, (prepared.task.objective,), loaded.model.backbone.vocab_size)
    model.backbone.load_state_dict(loaded.model.backbone.standalone_state())
    for parameter in model.heads.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.double().eval()


def test_tags_stand_at_the_first_tokens_of_words_and_scores_do_not_depend_on_packing(
    base: elision.loaded.Loaded,
) -> None:
    texts = toy_tags.texts(12, 1)
    prepared = prepare_tags(base, texts, texts, toy.SETTINGS)
    plan = prepared.held_out.plan
    for text, index in zip(texts, range(len(plan)), strict=True):
        example = plan.example(index)
        at = np.flatnonzero(example.targets != NO_TARGET)
        assert not example.special[at].any() and len(at) == len(text.words)
        firsts = [base.tokenizer.decode([example.inputs[place]]).strip() for place in at]
        assert all(token.startswith(first) for token, first in zip(text.tokens, firsts))
    model = fresh(prepared)
    packed, alone = (tag_scores(model, plan, torch.float64, packing) for packing in (True, False))
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)
    assert packed.std(0).min() > 1e-4


def test_answers_stand_in_the_context_and_do_not_depend_on_packing(base: elision.loaded.Loaded) -> None:
    rows = toy_tags.questions(12, 1, answerable=0.7)
    prepared = prepare_answers(base, rows, rows, toy.SETTINGS)
    plan = prepared.held_out.plan
    for index, window in enumerate(plan.windows):
        row, example = rows[window.question], plan.example(index)
        at = np.flatnonzero(example.targets != NO_TARGET)
        if not row.answers:
            assert at.tolist() == [example.summary]
        elif at.tolist() != [example.summary]:
            places = plan.places(index, example)
            begin, end = plan.stretch(index, *(int(np.flatnonzero(places == place)[0]) for place in (at[0], at[-1])))
            assert row.context[begin:end] == row.answers[0].text
    task = dataclasses.replace(prepared.task, unanswerable=True)
    model = fresh(prepared)
    (packed, loss), (alone, other) = (
        find_answers(model, plan, rows, task, torch.float64, each) for each in (True, False)
    )
    assert loss == pytest.approx(other, rel=1e-6)
    for ours, theirs in zip(packed, alone, strict=True):
        assert [found.score for found in ours] == pytest.approx([found.score for found in theirs], abs=1e-4)
