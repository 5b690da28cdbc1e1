"""Packing and collating, literally and against bounds."""

import numpy as np
import pytest
import torch

from elision.data.batch import collate, pack
from elision.data.example import NO_TARGET, Example


def example(tokens: list[int], **fields: object) -> Example:
    return Example(np.array(tokens), np.zeros(len(tokens), bool), **fields)


def test_packing_lays_longest_first_into_the_first_row_with_room() -> None:
    assert pack([3, 5, 2], 5) == [[1], [0, 2]]
    assert pack([4, 4, 2, 2, 3], 6) == [[0, 2], [1, 3], [4]]
    assert pack([], 5) == []


@pytest.mark.parametrize("seed", range(20))
def test_packing_holds_every_example_once_in_few_rows_that_never_overflow(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 65, 200).tolist()
    rows = pack(lengths, 64)
    assert sorted(index for row in rows for index in row) == list(range(200))
    assert all(0 < sum(lengths[index] for index in row) <= 64 for row in rows)
    fewest = -(-sum(lengths) // 64)
    assert fewest <= len(rows) <= 11 / 9 * fewest + 1


def test_collating_packed_literally() -> None:
    first = example([7, 8, 9], targets=np.array([-100, 80, -100]), type_ids=np.array([0, 0, 1]), label=1)
    second = example([5, 6], targets=np.array([50, -100]), type_ids=np.array([0, 1]), label=0, summary=1)
    third = example([4], targets=np.array([-100]), type_ids=np.array([0]), label=1)
    batch = collate([second, third, first], pad_id=0, row_length=5, sources=[20, 30, 10])
    assert batch.inputs.tolist() == [[7, 8, 9, 5, 6], [4, 0, 0, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1], [0, 0, 0, 0, 0]]
    assert batch.doc_ids.tolist() == [[1, 1, 1, 2, 2], [1, 0, 0, 0, 0]]
    assert batch.type_ids.tolist() == [[0, 0, 1, 0, 1], [0, 0, 0, 0, 0]]
    assert batch.targets.tolist() == [[-100, 80, -100, 50, -100], [-100] * 5]
    assert batch.target_at.tolist() == [1, 3]
    assert batch.summary_at.tolist() == [0, 4, 5]
    assert batch.labels.tolist() == [1, 0, 1]
    assert batch.examples == (10, 20, 30)
    assert (batch.num_targets, batch.num_examples, batch.num_tokens) == (2, 3, 6)
    assert not batch.whole_rows


def test_collating_unpacked_literally() -> None:
    batch = collate([example([7, 8, 9]), example([5, 6])], pad_id=1, packing=False)
    assert batch.inputs.tolist() == [[7, 8, 9], [5, 6, 1]]
    assert batch.positions.tolist() == [[0, 1, 2], [0, 1, 0]]
    assert batch.doc_ids.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.type_ids is None and batch.labels is None
    assert batch.target_at.tolist() == [] and batch.num_targets == 0
    assert not batch.whole_rows


def test_documents_within_an_example_keep_apart_and_restart_their_positions() -> None:
    first = example([7, 8, 9, 6], doc_ids=np.array([1, 1, 2, 2]))
    second = example([5, 6, 7], doc_ids=np.array([1, 2, 3]))
    batch = collate([first, second], pad_id=0, row_length=8)
    assert batch.doc_ids.tolist() == [[1, 1, 2, 2, 3, 4, 5, 0]]
    assert batch.positions.tolist() == [[0, 1, 0, 1, 0, 0, 0, 0]]


def test_rows_are_whole_only_when_each_is_one_document_without_empty_places() -> None:
    full = [example([1, 2, 3]), example([4, 5, 6])]
    assert collate(full, pad_id=0, row_length=3).whole_rows
    assert not collate(full, pad_id=0, row_length=4).whole_rows
    assert not collate(full, pad_id=0, row_length=6).whole_rows
    assert not collate([example([1, 2], doc_ids=np.array([1, 2]))], pad_id=0, row_length=2).whole_rows


def test_labels_are_classes_or_scores_by_their_type() -> None:
    assert collate([example([1], label=3)], pad_id=0).labels.dtype == torch.int64
    assert collate([example([1], label=0.5)], pad_id=0).labels.dtype == torch.float32


def test_targets_are_where_the_batch_says_they_are() -> None:
    rng = np.random.default_rng(0)
    examples = []
    for _ in range(30):
        length = int(rng.integers(1, 20))
        targets = np.where(rng.random(length) < 0.3, rng.integers(0, 99, length), NO_TARGET)
        examples.append(example(rng.integers(5, 99, length).tolist(), targets=targets))
    for batch in (collate(examples, pad_id=0, row_length=20), collate(examples, pad_id=0, packing=False)):
        found = batch.targets.flatten()[batch.target_at]
        assert (found != NO_TARGET).all() and len(found) == batch.num_targets
        assert (batch.targets != NO_TARGET).sum() == batch.num_targets
        assert sorted(found.tolist()) == sorted(t for e in examples for t in e.targets.tolist() if t != NO_TARGET)
        assert (batch.doc_ids > 0).sum() == batch.num_tokens == sum(map(len, examples))


def test_a_fingerprint_names_the_content() -> None:
    one, same, other = (collate([example(tokens)], pad_id=0) for tokens in ([1, 2], [1, 2], [1, 3]))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()


def test_moving_a_batch_moves_every_tensor_and_keeps_the_counts() -> None:
    batch = collate([example([1, 2], targets=np.array([3, -100]), label=1)], pad_id=0, sources=[9])
    moved = batch.to(torch.device("meta"))
    assert {moved.inputs.device.type, moved.target_at.device.type, moved.labels.device.type} == {"meta"}
    assert (moved.num_targets, moved.examples, moved.whole_rows) == (1, (9,), True)
