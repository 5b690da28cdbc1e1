"""Whole sentences packed to the full length: literal, and against a packing with plain loops."""

from pathlib import Path

import numpy as np
import pytest

from elision.data.segment import FullSentences, sentences
from elision.data.store import Split
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary
from tests import tiny

CLS, SEP = 2, 3


def split_of(path: Path, documents: list[list[list[int]]], shard_tokens: int = 50) -> Split:
    return tiny.id_store(path, tiny.tokenizer(tiny.WORDPIECE), documents, shard_tokens=shard_tokens).split("train")


def inputs_of(settings: FullSentences, split: Split, lookahead: int = 0) -> list[list[int]]:
    plan = settings.plan(split, tiny.vocabulary(5000), seed=1, lookahead=lookahead)
    return [plan.example(index).inputs.tolist() for index in range(len(plan))]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return split_of(tmp_path_factory.mktemp("two") / "store", [[[10, 11], [12]], [[13], [14, 15]]])


def test_full_sentences_literally(two: Split) -> None:
    plan = FullSentences(max_length=8).plan(two, tiny.vocabulary(20), seed=1)
    assert [plan.example(index).inputs.tolist() for index in range(len(plan))] == [
        [2, 10, 11, 12, 3, 13, 3],
        [2, 14, 15, 3],
    ]
    assert plan.example(0).special.tolist() == [True, False, False, False, True, False, True]
    assert plan.example(0).summary == 0 and plan.example(0).doc_ids is None


def test_with_room_documents_share_an_example_with_one_bare_separator_between_them(two: Split) -> None:
    assert inputs_of(FullSentences(max_length=9), two) == [[2, 10, 11, 12, 3, 13, 14, 15, 3]]


def test_doc_sentences_end_with_their_document(two: Split) -> None:
    assert inputs_of(FullSentences(max_length=9, cross_documents=False), two) == [
        [2, 10, 11, 12, 3], [2, 13, 14, 15, 3],
    ]  # fmt: skip


def test_every_sentence_may_end_with_a_separator_of_its_own(two: Split) -> None:
    expected = [2, 10, 11, 3, 12, 3, 3, 13, 3, 14, 15, 3]
    assert inputs_of(FullSentences(max_length=12, end_sentences=True), two) == [expected]
    assert inputs_of(FullSentences(max_length=11, end_sentences=True), two) == [[*expected[:8], 3], [2, 14, 15, 3]]


def test_a_long_sentence_is_cut_and_its_rest_goes_on_or_it_is_dropped(tmp_path: Path) -> None:
    split = split_of(tmp_path / "store", [[[10], [20, 21, 22, 23, 24], [11], [12]]])
    assert inputs_of(FullSentences(max_length=5), split) == [
        [2, 10, 3],
        [2, 20, 21, 22, 3],
        [2, 23, 24, 11, 3],
        [2, 12, 3],
    ]
    dropping = FullSentences(max_length=5, long_sentences="drop")
    assert inputs_of(dropping, split) == [[2, 10, 3], [2, 11, 12, 3]]


def test_lookahead_makes_examples_longer_by_as_much(two: Split) -> None:
    assert inputs_of(FullSentences(max_length=7), two, lookahead=1) == inputs_of(FullSentences(max_length=8), two)


def packed_with_loops(settings: FullSentences, documents: list[list[list[int]]]) -> list[list[int]]:
    """Gather sentences one by one, adding up what an example would hold with the next one."""
    room = settings.max_length - 2
    units = []
    for number, document in enumerate(documents):
        for order, sentence in enumerate(document):
            if settings.long_sentences == "drop":
                units.append((number, order, sentence if len(sentence) <= room else None))
            else:
                units += [(number, order, sentence[at : at + room]) for at in range(0, len(sentence), room)]
    examples: list[list[int]] = []
    body: list[int] = []
    last: tuple[int, int] | None = None
    for number, order, sentence in units:
        between = []
        if last is not None:
            between = [SEP] * ((number != last[0]) + (settings.end_sentences and (number, order) != last))
        if sentence is None or (
            body
            and (
                len(body) + len(between) + len(sentence) > room or (number != last[0] and not settings.cross_documents)
            )
        ):
            if body:
                examples.append([CLS, *body, SEP])
            body, between = [], []
        if sentence is not None:
            body += (between if body else []) + sentence
        last = (number, order)
    return [*examples, [CLS, *body, SEP]] if body else examples


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, list[list[list[int]]]]:
    rng, next_token, documents = np.random.default_rng(0), 10, []
    for _ in range(80):
        document = []
        for _ in range(int(rng.choice([1, 2, 9]))):
            length = int(rng.choice([1, 2, 3, 8, 30]))
            document.append(list(range(next_token, next_token + length)))
            next_token += length
        documents.append(document)
    return split_of(tmp_path_factory.mktemp("many") / "store", documents), documents


@pytest.mark.parametrize("block", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("long_sentences", ["cut", "drop"])
@pytest.mark.parametrize("cross_documents", [True, False])
@pytest.mark.parametrize("end_sentences", [True, False])
@pytest.mark.parametrize("max_length", [4, 9, 16, 60, 5000])
def test_planning_by_arithmetic_packs_as_plain_loops_do(
    many: tuple[Split, list[list[list[int]]]],
    max_length: int,
    end_sentences: bool,
    cross_documents: bool,
    long_sentences: str,
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    split, documents = many
    monkeypatch.setattr(sentences, "BLOCK_SENTENCES", block)
    settings = FullSentences(max_length, cross_documents, long_sentences, end_sentences)
    found = inputs_of(settings, split)
    assert found == packed_with_loops(settings, documents)
    assert max(map(len, found)) <= max_length


def test_cutting_leaves_no_token_out_and_reads_none_twice(many: tuple[Split, list[list[list[int]]]]) -> None:
    split, documents = many
    found = [token for inputs in inputs_of(FullSentences(max_length=12), split) for token in inputs if token >= 10]
    assert found == [token for document in documents for sentence in document for token in sentence]


def test_settings_and_stores_that_leave_nothing_are_refused(two: Split, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_length is 2"):
        FullSentences(max_length=2)
    with pytest.raises(InputError, match="holds no sentence of at most 1 tokens"):
        long = split_of(tmp_path / "store", [[[10, 11], [12, 13]]])
        FullSentences(max_length=3, long_sentences="drop").plan(long, tiny.vocabulary(20), seed=1)
    with pytest.raises(InputError, match="no 'cls' token"):
        bare = Vocabulary(10, np.zeros(10, bool), np.zeros(10, bool), eos=0)
        FullSentences().plan(two, bare, seed=1)
