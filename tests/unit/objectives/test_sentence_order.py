"""Sentence order against next sentence: what each question teaches."""

import dataclasses

import pytest
import torch

from elision import recipes
from elision.data.segment import SentencePairs, SwappedPairs
from elision.data.store import Store
from elision.errors import InputError
from elision.model.language_model import LanguageModel
from elision.objectives import MaskedLM, NextSentence, SentenceOrder
from elision.recipe import Recipe
from tests import tiny

LENGTH = 12


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two long documents, each with a word of its own for its topic and words that tell how far it has come."""
    documents = [[[20 + place % 30, topic, topic] for place in range(300)] for topic in (70, 71)]
    return tiny.id_store(tmp_path_factory.mktemp("story") / "store", tiny.tokenizer(tiny.WORDPIECE), documents)


def recipe(segmenter: SentencePairs | SwappedPairs, objective: NextSentence | SentenceOrder) -> Recipe:
    small = tiny.recipe("bert-tiny", dropout=0.0, attention_dropout=0.0, max_length=LENGTH, batch_size=64)
    return dataclasses.replace(small, segmenter=segmenter, objectives=(objective,))


NEXT = recipe(SentencePairs(max_length=LENGTH, short_probability=0.0), NextSentence())
ORDER = recipe(SwappedPairs(max_length=LENGTH, short_probability=0.0), SentenceOrder())


def trained(system: Recipe, store: Store, steps: int) -> LanguageModel:
    torch.manual_seed(0)
    model, loader = tiny.model(system, store), tiny.loader(system, store)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(steps):
        (batch,) = loader.microbatches(step)
        (term,) = model(batch)[0].values()
        (term.sum / term.count).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@torch.no_grad()
def accuracy(model: LanguageModel, question: Recipe, store: Store) -> float:
    """Return how often the head of `model` says what the labels of another recipe's pairs say."""
    right = count = 0
    for step in range(1000, 1008):
        (batch,) = tiny.loader(question, store).microbatches(step)
        (judged,) = model.judge(model.run(batch)).values()
        right, count = right + int(judged.right), count + judged.count
    return right / count


def test_a_head_that_learned_what_follows_is_at_chance_on_order_and_one_that_learned_order_is_not(story: Store) -> None:
    follows, order = trained(NEXT, story, 240), trained(ORDER, story, 240)
    assert accuracy(follows, NEXT, story) > 0.9
    assert accuracy(follows, ORDER, story) < 0.6
    assert accuracy(order, ORDER, story) > 0.85


def test_the_wrong_question_for_the_labels_is_refused_with_the_reason() -> None:
    bert = recipes.get("bert-tiny")
    with pytest.raises(InputError, match=r"NextSentence asks whether B follows A, but the labels of SwappedPairs say"):
        dataclasses.replace(bert, segmenter=SwappedPairs(max_length=128))
    with pytest.raises(InputError, match=r"SentenceOrder asks whether A and B are in the order of the text, but"):
        dataclasses.replace(bert, objectives=(MaskedLM(), SentenceOrder()))
    beside = dataclasses.replace(bert, segmenter=SwappedPairs(max_length=128), objectives=(MaskedLM(), SentenceOrder()))
    assert Recipe.from_dict(beside.to_dict()) == beside
