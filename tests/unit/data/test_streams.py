"""Contiguous plans: examples that go on where the last one ended are dealt out as aligned streams."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from elision.data.example import Example
from elision.data.loader import Loader
from elision.train.loop import _by_rows, _joined
from tests import tiny

LENGTH = 5


class Counting:
    """Example n holds the numbers 5 n to 5 n + 4: an endless text of which one sees at once whether it goes on."""

    contiguous = True

    def __init__(self, num_examples: int):
        self.num_examples = num_examples

    def __len__(self) -> int:
        return self.num_examples

    def example(self, index: int) -> Example:
        """Build example `index`."""
        return Example(LENGTH * index + np.arange(LENGTH), np.zeros(LENGTH, bool))


@dataclasses.dataclass(frozen=True)
class Leave:
    """No noise."""

    restores = "nothing"

    def __call__(self, example: Example, vocabulary: object, rng: object) -> Example:
        """Return the example as it is."""
        return example


def loader(num_examples: int, **settings: object) -> Loader:
    return dataclasses.replace(
        Loader(Counting(num_examples), Leave(), tiny.vocabulary(10_000), 1, 4, 4, row_length=LENGTH), **settings
    )


def rows_of(batches: list) -> np.ndarray:
    return np.concatenate([batch.inputs.numpy() for batch in batches])


@pytest.mark.parametrize("num_examples", [20, 23])
def test_each_row_goes_on_where_it_ended_the_step_before(num_examples: int) -> None:
    data = loader(num_examples)
    for step in range(60):
        now, after = (rows_of(data.microbatches(s)) for s in (step, step + 1))
        goes_on = (now[:, -1] + 1) % (num_examples * LENGTH) == after[:, 0]
        assert goes_on.all(), step


def test_every_row_has_a_part_of_the_text_of_its_own_and_all_is_read() -> None:
    data = loader(20)
    seen = np.concatenate([rows_of(data.microbatches(step)) for step in range(5)])
    assert sorted(seen.reshape(-1).tolist()) == list(range(100))


def test_rows_keep_their_place_in_every_size_of_microbatch_and_among_ranks() -> None:
    whole = rows_of(loader(23).microbatches(3))
    for size in (1, 2, 3):
        assert np.array_equal(rows_of(loader(23, microbatch_size=size).microbatches(3)), whole)
    for rank in range(2):
        assert np.array_equal(rows_of(loader(23, rank=rank, num_ranks=2).microbatches(3)), whole[rank::2])


def test_evaluation_reads_aligned_rows_too() -> None:
    batches = list(loader(20).in_order(12))
    assert len(batches) == 3
    for now, after in itertools.pairwise(batches):
        assert (now.inputs[:, -1] + 1 == after.inputs[:, 0]).all()


def test_what_is_carried_over_is_handed_out_and_joined_row_by_row() -> None:
    batches = loader(20, microbatch_size=3).microbatches(0)
    carry = {"memory": torch.arange(4)[:, None].float()}
    parts = _by_rows(carry, batches)
    assert [part["memory"][:, 0].tolist() for part in parts] == [[0, 1, 2], [3]]
    assert torch.equal(_joined(parts)["memory"], carry["memory"])
    assert _by_rows(None, batches) == [None, None]
    assert _joined([None, None]) is None
