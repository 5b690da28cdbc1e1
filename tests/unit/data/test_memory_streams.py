"""XLNet's rows: 256 tokens to be remembered, then two segments; and the next row begins where the first ended."""

from pathlib import Path

import numpy as np
import pytest

from elision.data.loader import Loader
from elision.data.noise import PermutationMask
from elision.data.segment import MemoryStreams
from elision.data.segment.memory_streams import MemoryStreamPlan
from elision.data.store import Store
from elision.errors import InputError
from tests import tiny

CLS, SEP, EOS = 2, 3, 5
WORDS = tiny.vocabulary(4000)


def store(path: Path, documents: list[list[list[int]]]) -> Store:
    return tiny.id_store(path, tiny.tokenizer(tiny.WORDPIECE), documents, shard_tokens=64)


def numbered(num_documents: int = 12, seed: int = 0) -> list[list[list[int]]]:
    """Return documents whose tokens count up from 100 over the whole corpus: each id says where it stands."""
    rng = np.random.default_rng(seed)
    documents, token = [], 100
    for _ in range(num_documents):
        sentences = []
        for _ in range(rng.integers(1, 7)):
            size = int(rng.integers(1, 12))
            sentences.append(list(range(token, token + size)))
            token += size
        documents.append(sentences)
    return documents


def stream_of(documents: list[list[list[int]]]) -> list[int]:
    return [token for document in documents for token in [*(t for sentence in document for t in sentence), EOS]]


def plan(path: Path, documents: list[list[list[int]]], seed: int = 1, **settings: object) -> MemoryStreamPlan:
    segmenter = MemoryStreams(**{"max_length": 29, "reuse_length": 10} | settings)
    return segmenter.plan(store(path, documents).split("train"), WORDS, seed)


def parts(inputs: np.ndarray, special: np.ndarray) -> tuple[list[int], list[int]]:
    """Return what stands before the first [SEP], and B; checks the frame."""
    first, second, last = np.flatnonzero(special)
    assert inputs[first] == SEP and inputs[second] == SEP and inputs[last] == CLS
    assert last == len(inputs) - 1 and second == last - 1
    return inputs[:first].tolist(), inputs[first + 1 : second].tolist()


def test_the_worked_example(tmp_path: Path) -> None:
    documents = [[[10, 11, 12], [13, 14], [15, 16, 17, 18]]]
    rows = plan(tmp_path, documents, max_length=9, reuse_length=3, random_probability=0.0)
    assert rows.contiguous and len(rows) == 2
    first, second = rows.example(0), rows.example(1)
    assert first.inputs.tolist() == [10, 11, 12, 13, 14, SEP, 15, SEP, CLS]
    assert first.type_ids.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 2]
    assert first.special.tolist() == [False] * 5 + [True, False, True, True]
    assert first.summary == 8 and first.label is None
    assert second.inputs[:3].tolist() == [13, 14, 15]


def test_reused_tokens_follow_on_another_across_examples_and_a_follows_them_at_once(tmp_path: Path) -> None:
    documents = numbered()
    stream, rows = stream_of(documents), plan(tmp_path, documents)
    assert len(rows) == (len(stream) - 16) // 10
    for index in range(len(rows)):
        example = rows.example(index)
        before, _ = parts(example.inputs, example.special)
        assert before == stream[10 * index : 10 * index + len(before)]
        assert len(before) > 10 and len(example) == 29


def test_a_and_b_are_contiguous_or_b_is_from_elsewhere_and_the_label_says_so(tmp_path: Path) -> None:
    documents = numbered(30)
    stream = stream_of(documents)
    starts = {sentence[0] for document in documents for sentence in document}
    labels = []
    for seed in range(6):
        rows = plan(tmp_path / str(seed), documents, seed, labels=True)
        for index in range(len(rows)):
            example = rows.example(index)
            before, b = parts(example.inputs, example.special)
            end = 10 * index + len(before)
            # Every B begins with a sentence, or with the end of text that was cut off from what it ends.
            assert b[0] in starts
            at = stream.index(b[0])
            assert b == stream[at : at + len(b)]
            if example.label == 0:
                # Contiguous: B follows A, or A lost its end (then it was the longer one).
                assert at >= end and (at == end or len(before) - 10 >= len(b))
            labels.append(example.label)
    assert np.mean(labels) == pytest.approx(0.5, abs=0.1)


def test_a_is_cut_at_the_end_of_a_sentence_unless_it_is_the_longer_side(tmp_path: Path) -> None:
    documents = numbered(30)
    stream = stream_of(documents)
    ends = {sentence[-1] for document in documents for sentence in document} | {EOS}
    rows = plan(tmp_path, documents)
    cut = 0
    for index in range(len(rows)):
        example = rows.example(index)
        before, b = parts(example.inputs, example.special)
        size_a = len(before) - 10
        assert size_a >= 1 and len(b) >= 1 and size_a + len(b) == 16
        if stream[10 * index + len(before) - 1] not in ends:
            # It has lost tokens only as the longer one, down to the length of the other.
            assert size_a >= len(b)
            cut += 1
    assert 0 < cut < len(rows) / 2


@pytest.mark.parametrize("probability, expected", [(0.0, 0.0), (1.0, 1.0), (0.25, 0.25)])
def test_b_is_random_as_often_as_asked(probability: float, expected: float, tmp_path: Path) -> None:
    # Short sentences: there is always one to be cut at.
    documents = [[[100 + 7 * n + k for k in range(7)] for n in range(d, d + 20)] for d in range(0, 400, 20)]
    rows = plan(tmp_path, documents, random_probability=probability, labels=True)
    labels = [rows.example(index).label for index in range(len(rows))]
    assert np.mean(labels) == pytest.approx(expected, abs=0.06)


def test_without_a_sentence_to_cut_at_b_comes_from_elsewhere_and_a_takes_almost_all(tmp_path: Path) -> None:
    rows = plan(tmp_path, [[list(range(100, 400))]], random_probability=0.0, labels=True)
    for index in range(len(rows)):
        example = rows.example(index)
        before, b = parts(example.inputs, example.special)
        assert example.label == 1 and len(before) - 10 + len(b) == 16
        assert b[0] == 100


def test_examples_are_a_function_of_seed_and_index(tmp_path: Path) -> None:
    documents = numbered()
    one, same, other = (plan(tmp_path / str(n), documents, seed) for n, seed in enumerate((1, 1, 2)))
    examples = [[rows.example(index).inputs.tolist() for index in range(len(rows))] for rows in (one, same, other)]
    assert examples[0] == examples[1] != examples[2]


@pytest.mark.parametrize("num_tokens", [3, 7, 20, 27])
def test_a_text_shorter_than_one_example_makes_a_short_one(num_tokens: int, tmp_path: Path) -> None:
    rows = plan(tmp_path, [[list(range(100, 100 + num_tokens))]])
    assert len(rows) >= 1
    example = rows.example(0)
    before, b = parts(example.inputs, example.special)
    assert before[: num_tokens // 2] == list(range(100, 100 + num_tokens // 2))[: len(before)]
    assert len(b) >= 1 and len(example) <= 29


def test_the_next_batch_continues_every_row(tmp_path: Path) -> None:
    documents = numbered(60)
    loader = Loader(plan(tmp_path, documents), PermutationMask(), WORDS, 1, 3, 3, row_length=29)
    stream = stream_of(documents)
    for step in range(4):
        (batch,), (following,) = loader.microbatches(step), loader.microbatches(step + 1)
        assert batch.contiguous and batch.whole_rows and batch.inputs.shape == (3, 29)
        for row in range(3):
            begin = 10 * batch.examples[row]
            assert following.examples[row] == batch.examples[row] + 1
            assert batch.inputs[row, :10].tolist() == stream[begin : begin + 10]
            assert following.inputs[row, :10].tolist() == stream[begin + 10 : begin + 20]


def test_the_noise_takes_the_reused_part_and_the_segments_as_its_stretches(tmp_path: Path) -> None:
    rows = plan(tmp_path, numbered(), max_length=20, reuse_length=10)
    noise = PermutationMask(permute_length=10)
    found = noise(rows.example(0), WORDS, np.random.default_rng(0))
    assert found.order[:10].max() < found.order[10:].min() and (found.targets >= 0).sum() <= 3


@pytest.mark.parametrize(
    "change, message",
    [
        ({"max_length": 14}, "max_length is 14: after the 10 tokens of reuse_length"),
        ({"reuse_length": 0}, "reuse_length is 0"),
        ({"random_probability": 1.5}, "random_probability is 1.5"),
    ],
)
def test_bad_settings_are_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MemoryStreams(**{"max_length": 29, "reuse_length": 10} | change)
