"""Evaluation of models that write: the text of what they write, beside n-grams and copying."""

from pathlib import Path

import numpy as np
import torch

import elision
from elision.data.answers import joined, written
from elision.data.batch import Batch, collate
from elision.data.example import Example
from elision.tasks.baselines import UNKNOWN
from elision.tasks.evaluate import WRITTEN, evaluate_model, true_contexts
from elision.tasks.restoring import copied
from tests import tiny
from tests.unit.tasks import toy_pairs

SPECIAL = np.arange(40) < 6


def example(inputs: list[int], answer: list[int]) -> Example:
    ids = np.array(inputs)
    return Example(ids, SPECIAL[ids], answer=np.array(answer))


def two_sided() -> Batch:
    examples = [example([10, 11, 4, 11, 13, 3], [10, 11, 12, 11, 13, 3]), example([20, 3], [20, 21, 3])]
    return collate([written(each, 0) for each in examples], pad_id=0, row_length=8, decoder_row_length=10)


def test_the_context_of_what_is_written_is_what_was_written_before() -> None:
    targets, contexts = true_contexts(two_sided(), "sequence", SPECIAL)
    assert targets.tolist() == [10, 11, 12, 11, 13, 3, 20, 21, 3]
    assert contexts[:4].tolist() == [[UNKNOWN, UNKNOWN], [UNKNOWN, 10], [10, 11], [11, 12]]
    assert contexts[6:8].tolist() == [[UNKNOWN, UNKNOWN], [UNKNOWN, 20]]


def test_copying_goes_on_in_the_inputs_where_the_last_two_tokens_stand_or_else_the_last() -> None:
    # After 10 11 the source has the mask 4; after 12 11 only "11" is there, first behind 10; 12 stands nowhere.
    assert copied(two_sided(), SPECIAL).tolist() == [10, 11, 4, -1, 4, 3, 20, 3, -1]


def test_copying_in_one_text_reads_its_prefix_alone() -> None:
    one = joined(example([10, 11, 12], [10, 11, 12, 3]), 5)
    batch = collate([one, joined(example([20], [21, 3]), 5)], pad_id=0, row_length=16)
    assert copied(batch, SPECIAL).tolist() == [10, 11, 12, -1, 20, -1]


def test_the_text_that_is_written_is_measured_beside_counting_and_copying(tmp_path: Path) -> None:
    recipe = toy_pairs.recipe("bart")
    loaded = elision.load(toy_pairs.untrained(tmp_path / "bart", "bart"))
    store = tiny.text_store(tmp_path / "store", recipe.tokenizer, num_pairs=60)
    found = evaluate_model(loaded, store, num_examples=8)
    lines = {(line.term, line.model): line for line in found.lines}
    whole, text = lines["seq2seq", "model"], lines[WRITTEN, "model"]
    # Every example begins with one symbol and ends with another.
    assert whole.num - text.num == 2 * found.num_examples
    assert whole.bits_per_byte is None and text.bits_per_byte is not None
    assert lines[WRITTEN, "trigram"].num == text.num and lines[WRITTEN, "trigram"].loss < text.loss
    assert 0 <= lines[WRITTEN, "copying"].accuracy <= 1 and lines[WRITTEN, "copying"].loss is None
    assert torch.isfinite(torch.tensor(text.loss))
