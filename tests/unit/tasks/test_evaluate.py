"""Evaluation of pretrained models beside n-grams, at the same places."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import elision
from elision.data.batch import collate
from elision.data.example import Example
from elision.data.loader import Loader
from elision.data.store import Store
from elision.errors import InputError
from elision.tasks.baselines import UNKNOWN
from elision.tasks.evaluate import Measured, evaluate_model, true_contexts
from tests.unit.tasks import toy

SPECIAL = np.arange(40) < 6


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.untrained(tmp_path_factory.mktemp("bert") / "model", "bert-tiny")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.untrained(tmp_path_factory.mktemp("gpt2") / "model", "gpt2-tiny")


def example(inputs: list[int], targets: list[int]) -> Example:
    ids = np.array(inputs)
    return Example(ids, SPECIAL[ids], targets=np.array(targets))


def test_the_context_of_a_masked_place_is_what_truly_stood_to_its_left() -> None:
    # 2 and 3 frame the example, 4 is the mask; the second example is packed behind the first.
    first = example([2, 10, 4, 4, 13, 3], [-100, -100, 11, 12, -100, -100])
    second = example([2, 4, 21, 3], [-100, 20, -100, -100])
    batch = collate([first, second], pad_id=0, row_length=12)
    targets, contexts = true_contexts(batch, "masked", SPECIAL)
    assert targets.tolist() == [11, 12, 20]
    assert contexts.tolist() == [[UNKNOWN, 10], [10, 11], [UNKNOWN, UNKNOWN]]


def test_the_context_of_a_next_token_ends_with_the_place_itself() -> None:
    batch = collate([example([5, 11, 12], [11, 12, 13]), example([21], [22])], pad_id=0, row_length=4)
    targets, contexts = true_contexts(batch, "next", SPECIAL)
    assert targets.tolist() == [11, 12, 13, 22]
    assert contexts.tolist() == [[UNKNOWN, 5], [5, 11], [11, 12], [UNKNOWN, 21]]


def test_the_context_of_a_permuted_token_is_what_stands_to_its_left_whatever_it_sees() -> None:
    batch = collate([example([10, 11, 12, 3], [-100, 11, 12, -100])], pad_id=0, row_length=4)
    targets, contexts = true_contexts(batch, "permuted", SPECIAL)
    assert targets.tolist() == [11, 12]
    assert contexts.tolist() == [[UNKNOWN, 10], [10, 11]]


def line(lines: list[Measured], term: str, model: str) -> Measured:
    (found,) = [line for line in lines if (line.term, line.model) == (term, model)]
    return found


def test_a_masked_model_is_measured_at_its_masked_places(bert: Path, wordpiece_store: Store) -> None:
    evaluation = evaluate_model(elision.load(bert), wordpiece_store, num_examples=40, precision="float32")
    ours, unigram, trigram = (line(evaluation.lines, "mlm", model) for model in ("model", "unigram", "trigram"))
    assert ours.num == unigram.num == trigram.num > 40
    vocab_size = wordpiece_store.tokenizer.vocabulary.size
    # Random weights know nothing: near the uniform distribution.
    assert abs(ours.loss - math.log(vocab_size)) < 0.3
    # The words of the store are drawn one by one, so their shares help and their order does not.
    assert unigram.loss < trigram.loss < ours.loss
    split = wordpiece_store.split("validation")
    assert ours.bits_per_byte == pytest.approx(ours.loss / math.log(2) * split.num_tokens / split.num_bytes)
    assert ours.perplexity == pytest.approx(math.exp(ours.loss))
    pairs, majority = line(evaluation.lines, "nsp", "model"), line(evaluation.lines, "nsp", "majority")
    assert pairs.num == 40 and pairs.perplexity is None and majority.accuracy >= 0.5


def test_a_causal_model_is_measured_at_every_place(gpt2: Path, bytes_store: Store) -> None:
    loaded = elision.load(gpt2)
    evaluation = evaluate_model(loaded, bytes_store, num_examples=5, precision="float32")
    ours, trigram = line(evaluation.lines, "clm", "model"), line(evaluation.lines, "clm", "trigram")
    assert ours.num == trigram.num == 5 * loaded.recipe.segmenter.max_length
    train = bytes_store.split("train")
    assert evaluation.num_baseline_tokens == train.num_tokens + train.num_documents


def test_the_accuracy_is_that_of_the_full_logits(gpt2: Path, bytes_store: Store) -> None:
    loaded = elision.load(gpt2)
    evaluation = evaluate_model(loaded, bytes_store, num_examples=4, baselines=False, precision="float32")
    assert [found.model for found in evaluation.lines] == ["model"] and evaluation.num_baseline_tokens is None
    recipe, words = loaded.recipe, bytes_store.tokenizer.vocabulary
    plan = recipe.segmenter.plan(bytes_store.split("validation"), words, recipe.train.seed, 1)
    loader = Loader(plan, recipe.noise, words, recipe.train.seed, 4, 4, recipe.segmenter.max_length)
    (batch,) = loader.in_order(4)
    with torch.no_grad():
        logits = loaded.model.logits(batch)
    assert evaluation.lines[0].accuracy == pytest.approx(float((logits.argmax(-1) == batch.targets).float().mean()))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
    assert evaluation.lines[0].loss == pytest.approx(float(loss), abs=1e-4)


def test_a_store_of_another_tokenizer_is_refused_naming_both(bert: Path, bytes_store: Store) -> None:
    with pytest.raises(InputError) as refusal:
        evaluate_model(elision.load(bert), bytes_store)
    for named in (str(bytes_store.path), bytes_store.tokenizer_fingerprint[:12], str(bert)):
        assert named in str(refusal.value)
