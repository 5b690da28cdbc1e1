"""GPT-2's chunks: literal, and against the whole stream laid out in memory."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from elision.data.noise import NextToken
from elision.data.segment import Chunks
from elision.data.store import Split
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary
from tests import tiny

SEPARATOR = 5


def split_of(path: Path, documents: list[list[list[int]]], shard_tokens: int = 7) -> Split:
    return tiny.id_store(path, tiny.tokenizer(tiny.WORDPIECE), documents, shard_tokens=shard_tokens).split("train")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return split_of(tmp_path_factory.mktemp("two") / "store", [[[10, 11]], [[12, 13, 14]]])


def test_chunks_literally(two: Split) -> None:
    plan = Chunks(max_length=3).plan(two, tiny.vocabulary(20), seed=1)
    assert len(plan) == 2
    assert plan.example(0).inputs.tolist() == [5, 10, 11]
    assert plan.example(1).inputs.tolist() == [5, 12, 13]
    assert plan.example(0).doc_ids is None


def test_chunks_with_lookahead_share_a_token_with_the_next(two: Split) -> None:
    plan = Chunks(max_length=3).plan(two, tiny.vocabulary(20), seed=1, lookahead=1)
    assert len(plan) == 2
    assert plan.example(0).inputs.tolist() == [5, 10, 11, 5]
    assert plan.example(1).inputs.tolist() == [5, 12, 13, 14]
    assert plan.example(1).summary == 2


def test_documents_that_must_not_see_each_other_are_numbered(two: Split) -> None:
    plan = Chunks(max_length=6, cross_documents=False).plan(two, tiny.vocabulary(20), seed=1)
    assert plan.example(0).inputs.tolist() == [5, 10, 11, 5, 12, 13]
    assert plan.example(0).doc_ids.tolist() == [1, 1, 1, 2, 2, 2]
    shorter = Chunks(max_length=2, cross_documents=False).plan(two, tiny.vocabulary(20), seed=1)
    assert [shorter.example(index).inputs.tolist() for index in range(3)] == [[5, 10], [11, 5], [12, 13]]
    assert [shorter.example(index).doc_ids.tolist() for index in range(3)] == [[1, 1], [1, 2], [1, 1]]


def test_a_split_shorter_than_a_chunk_is_one_shorter_chunk(two: Split) -> None:
    plan = Chunks(max_length=100).plan(two, tiny.vocabulary(20), seed=1, lookahead=1)
    assert len(plan) == 1
    assert plan.example(0).inputs.tolist() == [5, 10, 11, 5, 12, 13, 14]
    assert NextToken()(plan.example(0), tiny.vocabulary(20), np.random.default_rng(0)).summary == 5


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, np.ndarray, np.ndarray]:
    """A split with its stream and each token's document, laid out in memory: lone tokens and long documents alike."""
    rng, next_token, documents = np.random.default_rng(0), 10, []
    stream, document_of = [], []
    for number in range(60):
        length = int(rng.choice([1, 2, 3, 17, 90]))
        tokens = list(range(next_token, next_token + length))
        documents.append([tokens])
        stream += [SEPARATOR, *tokens]
        document_of += [number] * (length + 1)
        next_token += length
    split = split_of(tmp_path_factory.mktemp("many") / "store", documents, shard_tokens=50)
    return split, np.array(stream), np.array(document_of)


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("length", [1, 2, 3, 5, 7, 16, 64, 100, 500])
def test_chunks_are_the_stream_cut_at_every_length(
    many: tuple[Split, np.ndarray, np.ndarray], length: int, lookahead: int
) -> None:
    split, stream, document_of = many
    settings = Chunks(max_length=length, cross_documents=False)
    plan = settings.plan(split, tiny.vocabulary(5000), seed=1, lookahead=lookahead)
    assert len(plan) == (len(stream) - lookahead) // length
    for index in range(len(plan)):
        example, here = plan.example(index), slice(index * length, (index + 1) * length + lookahead)
        assert example.inputs.tolist() == stream[here].tolist()
        # Numbered from 1, one more at each document.
        assert (example.doc_ids - 1).tolist() == (document_of[here] - document_of[here.start]).tolist()
        assert not example.special.any()
        assert example.summary == length - 1


def test_chunks_shifted_by_next_token_predict_the_whole_stream(many: tuple[Split, np.ndarray, np.ndarray]) -> None:
    split, stream, _ = many
    plan = Chunks(max_length=16).plan(split, tiny.vocabulary(5000), seed=1, lookahead=NextToken.lookahead)
    noised = [NextToken()(plan.example(i), tiny.vocabulary(5000), np.random.default_rng(0)) for i in range(len(plan))]
    inputs, targets = (np.concatenate([getattr(example, name) for example in noised]) for name in ("inputs", "targets"))
    assert np.array_equal(inputs, stream[: len(inputs)])
    assert np.array_equal(targets, stream[1 : len(inputs) + 1])


def test_a_length_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="max_length is 0"):
        Chunks(max_length=0)


def test_a_vocabulary_without_an_end_of_text_is_refused(two: Split) -> None:
    bare = Vocabulary(10, np.zeros(10, bool), np.zeros(10, bool), cls=0)
    with pytest.raises(InputError, match="no 'eos' token"):
        Chunks().plan(two, bare, seed=1)


@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize("length", [1, 3, 16, 500])
def test_without_separators_chunks_are_the_bare_text_cut_at_every_length(
    many: tuple[Split, np.ndarray, np.ndarray], length: int, lookahead: int
) -> None:
    split, stream, document_of = many
    bare = stream != SEPARATOR
    stream, document_of = stream[bare], document_of[bare]
    settings = Chunks(max_length=length, cross_documents=False, separated=False)
    plan = settings.plan(split, tiny.vocabulary(5000), seed=1, lookahead=lookahead)
    assert len(plan) == (len(stream) - lookahead) // length
    for index in range(len(plan)):
        example, here = plan.example(index), slice(index * length, (index + 1) * length + lookahead)
        assert example.inputs.tolist() == stream[here].tolist()
        assert (example.doc_ids - 1).tolist() == (document_of[here] - document_of[here.start]).tolist()


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 100])
def test_documents_that_are_begun_have_two_symbols_before_them(two: Split, length: int) -> None:
    """Documents 10 11 and 12 13 14 with the end 3 and the beginning 2 are the stream 3 2 10 11 3 2 12 13 14."""
    vocabulary = dataclasses.replace(tiny.vocabulary(20), bos=2, eos=3)
    stream, documents = [3, 2, 10, 11, 3, 2, 12, 13, 14], [1, 1, 1, 1, 2, 2, 2, 2, 2]
    settings = Chunks(max_length=length, cross_documents=False, begun=True)
    plan = settings.plan(two, vocabulary, seed=1, lookahead=1)
    assert len(plan) == max(1, 8 // length)
    for index in range(len(plan)):
        example, part = plan.example(index), slice(index * length, (index + 1) * length + 1)
        assert example.inputs.tolist() == stream[part]
        numbers = np.unique(documents[part], return_inverse=True)[1] + 1
        assert example.doc_ids.tolist() == numbers.tolist()


def test_a_symbol_that_also_ends_texts_begins_none(two: Split) -> None:
    vocabulary = dataclasses.replace(tiny.vocabulary(20), bos=0, eos=0)
    assert Chunks(7, begun=True).plan(two, vocabulary, seed=1).example(0).inputs.tolist() == [0, 10, 11, 0, 12, 13, 14]
