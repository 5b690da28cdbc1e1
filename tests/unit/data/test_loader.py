"""Batches by number: what a step reads depends on seed and step alone."""

import dataclasses

import numpy as np
import pytest

from elision.data.batch import Batch
from elision.data.loader import PREFETCHED_STEPS, Loader, data_step
from elision.data.store import Store
from tests import tiny


@pytest.fixture(scope="module", params=["bert-tiny", "gpt2-tiny"])
def loader(request: pytest.FixtureRequest, wordpiece_store: Store, bytes_store: Store) -> Loader:
    """Twelve examples a step, as pairs or as chunks."""
    store = wordpiece_store if request.param == "bert-tiny" else bytes_store
    return tiny.loader(tiny.recipe(request.param, batch_size=12), store)


def parts(batches: list[Batch]) -> dict[int, list]:
    """Return what a set of batches holds, by the index of each example: its tokens, targets, types and label."""
    found: dict[int, list] = {}
    for batch in batches:
        summaries = dict(zip(batch.summary_at.tolist(), range(batch.num_examples)))
        width = batch.inputs.shape[1]
        for place, order in summaries.items():
            row, column = divmod(place, width)
            here = np.flatnonzero(batch.doc_ids[row].numpy() == int(batch.doc_ids[row, column]))
            content = [batch.inputs[row, here].tolist(), batch.targets[row, here].tolist()]
            content.append(None if batch.type_ids is None else batch.type_ids[row, here].tolist())
            content.append(None if batch.labels is None else batch.labels[order].item())
            found.setdefault(batch.examples[order], []).append(content)
    return {index: sorted(contents, key=repr) for index, contents in found.items()}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 12])
def test_the_size_of_a_microbatch_changes_no_example(loader: Loader, size: int) -> None:
    cut = dataclasses.replace(loader, microbatch_size=size)
    for step in (0, 7):
        batches = cut.microbatches(step)
        assert [batch.num_examples for batch in batches] == [min(size, 12 - start) for start in range(0, 12, size)]
        assert parts(batches) == parts(loader.microbatches(step))


@pytest.mark.parametrize("num_ranks", [2, 3, 4])
def test_ranks_together_read_what_one_would(loader: Loader, num_ranks: int) -> None:
    for step in (0, 5):
        shares = [
            batch
            for rank in range(num_ranks)
            for batch in dataclasses.replace(loader, rank=rank, num_ranks=num_ranks).microbatches(step)
        ]
        assert sum(batch.num_examples for batch in shares) == 12
        assert parts(shares) == parts(loader.microbatches(step))


def test_packing_changes_no_example(loader: Loader) -> None:
    apart = dataclasses.replace(loader, packing=False).microbatches(3)
    assert parts(apart) == parts(loader.microbatches(3))


def test_a_step_is_the_same_whenever_it_is_asked_for(loader: Loader) -> None:
    forwards = {step: loader.microbatches(step)[0].fingerprint() for step in range(6)}
    backwards = {step: loader.microbatches(step)[0].fingerprint() for step in reversed(range(6))}
    assert forwards == backwards
    assert len(set(forwards.values())) == 6
    assert dataclasses.replace(loader, seed=2).microbatches(0)[0].fingerprint() != forwards[0]


def test_each_epoch_reads_every_example_once_in_another_order(loader: Loader) -> None:
    length = len(loader.plan)
    steps = -(-2 * length // loader.batch_size)
    reads = [loader.examples_of(step) for step in range(steps)]
    epochs, indices = (np.concatenate(column) for column in zip(*reads))
    assert epochs.tolist() == np.repeat([0, 1, 2], [length, length, len(epochs) - 2 * length]).tolist()
    first, second = indices[:length], indices[length : 2 * length]
    assert np.array_equal(np.sort(first), np.arange(length)) and np.array_equal(np.sort(second), np.arange(length))
    assert (first == second).mean() < 0.2


def test_a_masked_example_is_noised_differently_in_each_epoch(wordpiece_store: Store) -> None:
    loader = tiny.loader(tiny.recipe("bert-tiny"), wordpiece_store)
    (first,), (second,) = (parts([loader._build(np.array([epoch]), np.array([9]))])[9] for epoch in (0, 1))
    assert first[:2] != second[:2]
    assert first[2:] == second[2:], "the pair itself stays"


def test_a_stream_yields_the_microbatches_of_its_steps_in_order(loader: Loader) -> None:
    cut = dataclasses.replace(loader, microbatch_size=5)
    last = 3 + 2 * PREFETCHED_STEPS
    streamed = [[batch.fingerprint() for batch in step] for step in cut.stream(3, last)]
    assert streamed == [[batch.fingerprint() for batch in cut.microbatches(step)] for step in range(3, last)]
    assert list(cut.stream(4, 4)) == []


def test_a_stream_leaves_skipped_steps_out(loader: Loader) -> None:
    skipped = frozenset({0, 2, 3})
    streamed = [step[0].fingerprint() for step in loader.stream(0, 4, skipped)]
    assert streamed == [loader.microbatches(step)[0].fingerprint() for step in (1, 4, 5, 6)]
    resumed = [step[0].fingerprint() for step in loader.stream(2, 4, skipped)]
    assert resumed == streamed[2:]


def test_the_nth_step_reads_the_nth_data_step_that_is_not_skipped() -> None:
    assert [data_step(step, frozenset()) for step in range(3)] == [0, 1, 2]
    assert [data_step(step, frozenset({1})) for step in range(4)] == [0, 2, 3, 4]
    assert [data_step(step, frozenset({0, 1, 4})) for step in range(4)] == [2, 3, 5, 6]


def test_a_stream_can_be_left_early(loader: Loader) -> None:
    stream = loader.stream(0, 1000)
    next(stream)
    stream.close()


def test_an_error_while_building_reaches_the_reader(loader: Loader) -> None:
    class Broken:
        contiguous = False

        def __len__(self) -> int:
            return 100

        def example(self, index: int) -> None:
            raise RuntimeError("a disk that went away")

    with pytest.raises(RuntimeError, match="went away"):
        next(dataclasses.replace(loader, plan=Broken()).stream(0, 5))


def test_evaluation_reads_the_same_examples_with_the_same_noise_every_time(loader: Loader) -> None:
    cut = dataclasses.replace(loader, microbatch_size=5)
    first, again = ([batch.fingerprint() for batch in cut.in_order(12)] for _ in range(2))
    assert first == again
    assert [batch.num_examples for batch in cut.in_order(12)] == [5, 5, 2]
    chosen = [index for batch in cut.in_order(12) for index in batch.examples]
    assert len(set(chosen)) == 12
    assert chosen != sorted(chosen) or max(chosen) > 12
    everything = [index for batch in loader.in_order(10**9) for index in batch.examples]
    assert sorted(everything) == list(range(len(loader.plan)))
