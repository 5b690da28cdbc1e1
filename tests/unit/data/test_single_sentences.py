"""One sentence to an example: literal, and every sentence that is short enough exactly once."""

import numpy as np
import pytest

from elision.data.segment import SingleSentences
from elision.data.selection import Selection
from elision.data.store import Split
from elision.errors import InputError
from tests import tiny

SENTENCES = [[[10, 11], [12, 13, 14, 15]], [[16]], [[17, 18, 19], [20, 21]]]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    store = tmp_path_factory.mktemp("sentences") / "store"
    return tiny.id_store(store, tiny.tokenizer(tiny.WORDPIECE), SENTENCES, shard_tokens=5).split("train")


@pytest.mark.parametrize(("max_length", "expected"), [
    (5, [[10, 11], [16], [17, 18, 19], [20, 21]]),
    (6, [sentence for document in SENTENCES for sentence in document]),
    (3, [[16]]),
])  # fmt: skip
def test_every_sentence_that_is_short_enough_is_an_example(
    split: Split, max_length: int, expected: list[list[int]]
) -> None:
    plan = SingleSentences(max_length=max_length).plan(split, tiny.vocabulary(30), seed=1)
    examples = [plan.example(index) for index in range(len(plan))]
    assert [example.inputs.tolist() for example in examples] == [[2, *sentence, 3] for sentence in expected]
    for example in examples:
        assert example.special.tolist() == [True] + [False] * (len(example) - 2) + [True]
        assert example.doc_ids is None and len(example) <= max_length


def test_documents_of_one_language_are_read_alike(split: Split) -> None:
    plan = SingleSentences(max_length=6).plan(Selection(split, np.array([0, 2])), tiny.vocabulary(30), seed=1)
    assert [plan.example(index).inputs[1:-1].tolist() for index in range(len(plan))] == [*SENTENCES[0], *SENTENCES[2]]


def test_the_frame_may_be_another(split: Split) -> None:
    plan = SingleSentences(max_length=5, frame="causal").plan(split, tiny.vocabulary(30), seed=1)
    assert plan.example(0).inputs.tolist() == [10, 11, 5]


def test_what_leaves_nothing_is_refused(split: Split) -> None:
    with pytest.raises(InputError, match="max_length is 2: a token and what frames it need 3"):
        SingleSentences(max_length=2)
    long = Selection(split, np.array([2]))
    with pytest.raises(InputError, match="holds no sentence of at most 1 tokens"):
        SingleSentences(max_length=3).plan(long, tiny.vocabulary(30), seed=1)
