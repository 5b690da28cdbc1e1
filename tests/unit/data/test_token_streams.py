"""Streams for both directions: what a window holds, that windows go on, that everything is read once."""

import numpy as np
import pytest

from elision.data.noise import Neighbours
from elision.data.order import generator
from elision.data.segment import TokenStreams
from elision.data.store import Store
from elision.errors import InputError
from elision.text.words import Words
from tests import tiny

BOS, EOS = 0, 1
WORDS = Words(vocab_size=300)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    rng = np.random.default_rng(0)
    documents = [[rng.integers(3, 300, rng.integers(1, 9)) for _ in range(rng.integers(1, 7))] for _ in range(25)]
    return tiny.id_store(tmp_path_factory.mktemp("streams"), tiny.tokenizer(WORDS), documents, shard_tokens=64)


def sentences_of(store: Store) -> list[list[list[int]]]:
    split = store.split("train")
    return [
        [
            split.tokens(int(split.sentence_starts[s]), int(split.sentence_starts[s + 1])).tolist()
            for s in range(int(split.document_sentences[d]), int(split.document_sentences[d + 1]))
        ]
        for d in range(split.num_documents)
    ]


def whole_streams(store: Store, window: int) -> tuple[list[int], list[int]]:
    """Return what both readers read in turn over an epoch, in the order in which they read it."""
    plan = TokenStreams(max_length=2 * window).plan(
        store.split("train"), store.tokenizer.vocabulary, seed=1, lookahead=2
    )
    forward, backward = [], []
    for index in range(len(plan)):
        inputs = plan.example(index).inputs.tolist()
        assert len(inputs) == 2 * window + 2
        forward += inputs[:window]
        backward += inputs[: window + 1 : -1]
    return forward, backward


@pytest.mark.parametrize("window", [1, 4, 7, 50])
def test_each_stream_holds_every_document_once_sentence_after_sentence(store: Store, window: int) -> None:
    documents = sentences_of(store)
    forward, backward = whole_streams(store, window)
    total = sum(len(sentence) + 1 for document in documents for sentence in document)
    assert len(forward) == len(backward) == (total - 1) // window * window
    ahead = {tuple(t for s in document for t in [BOS, *s]) for document in documents}
    back = {tuple(t for s in reversed(document) for t in [EOS, *reversed(s)]) for document in documents}
    for stream, expected in ((forward, ahead), (backward, back)):
        left, at = set(expected), 0
        while left:
            found = [document for document in left if tuple(stream[at : at + len(document)]) == document]
            if not found:
                # The end of the epoch cuts the last document.
                assert len(stream) - at < max(map(len, left)) and len(left) <= 1 + window
                break
            left.discard(max(found, key=len))
            at += len(max(found, key=len))


def test_the_streams_are_shuffled_apart(store: Store) -> None:
    forward, backward = whole_streams(store, 4)
    words = lambda stream: [token for token in stream if token > 2]  # noqa: E731
    assert words(forward)[:30] != words(backward)[::-1][:30]
    assert words(forward)[:30] != words(backward)[:30]


def test_the_token_more_is_what_the_next_window_begins_with(store: Store) -> None:
    plan = TokenStreams(max_length=8).plan(store.split("train"), store.tokenizer.vocabulary, seed=1, lookahead=2)
    assert plan.contiguous
    for index in range(len(plan) - 1):
        here, there = plan.example(index).inputs, plan.example(index + 1).inputs
        assert here[4] == there[0]
        assert here[5] == there[9]


def test_targets_are_neighbours_and_sentences_end_with_their_own_symbol() -> None:
    words = tiny.tokenizer(WORDS).vocabulary
    from elision.data.example import Example

    # <S> 10 11 (<S>) beside (</S>) 12 13 </S>
    example = Example(np.array([0, 10, 11, 0, 1, 12, 13, 1]), np.zeros(8, bool), doc_ids=np.repeat([1, 2], 4))
    noised = Neighbours()(example, words, generator(0, "noise"))
    assert noised.inputs.tolist() == [0, 10, 11, 12, 13, 1]
    assert noised.targets.tolist() == [10, 11, 1, 0, 12, 13]
    assert noised.doc_ids.tolist() == [1, 1, 1, 2, 2, 2]
    assert noised.order.tolist() == [0, 1, 2, 2, 1, 0]


def test_words_are_numbered_by_falling_frequency_after_the_special_symbols() -> None:
    tokenizer = Words(vocab_size=8).train(["b b b a a c", "Don't b, a."])
    assert tokenizer.symbols()[:3] == ["<S>", "</S>", "<UNK>"]
    assert tokenizer.symbols()[3:5] == ["b", "a"]
    vocabulary = tokenizer.vocabulary
    assert (vocabulary.bos, vocabulary.eos, vocabulary.unk, vocabulary.size) == (0, 1, 2, 8)
    ids = tokenizer.encode("b zebra a", add_special_tokens=True)
    assert ids == [0, 3, 2, 4, 1]
    assert tokenizer.tokens(ids) == ["<S>", "b", "<UNK>", "a", "</S>"]


def test_a_saved_tokenizer_of_words_gives_the_same_ids(tmp_path) -> None:
    from elision.text.tokenizer import Tokenizer

    tokenizer = Words(vocab_size=50).train(["The cat, the dog; 東京 <S>."])
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint and again.roles == tokenizer.roles
    assert again.encode("the 東京 <S>") == tokenizer.encode("the 東京 <S>")
    assert again.encode_batch(["<S>"])[0].tolist() != [0], "written in a corpus it is ordinary text"


@pytest.mark.parametrize("texts", [[], ["  "]])
def test_words_of_no_text_are_refused(texts: list[str]) -> None:
    with pytest.raises(InputError, match="no text"):
        Words().train(texts)
    with pytest.raises(InputError, match="vocab_size = 3"):
        Words(vocab_size=3).train(["a"])


def test_a_split_shorter_than_a_window_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match=r"lower segmenter.max_length"):
        TokenStreams(max_length=10_000).plan(store.split("train"), store.tokenizer.vocabulary, seed=1, lookahead=2)
    with pytest.raises(InputError, match="max_length is 1"):
        TokenStreams(max_length=1)


def test_baselines_are_asked_for_the_forward_stream_alone() -> None:
    from elision.data.batch import collate
    from elision.data.example import Example
    from elision.tasks.evaluate import true_contexts

    words = tiny.tokenizer(WORDS).vocabulary
    example = Example(np.array([0, 10, 11, 0, 1, 12, 13, 1]), np.zeros(8, bool), doc_ids=np.repeat([1, 2], 4))
    batch = collate([Neighbours()(example, words, generator(0, "noise"))], pad_id=0, packing=False, contiguous=True)
    targets, contexts = true_contexts(batch, "neighbouring", words.special)
    assert targets.tolist() == [10, 11, 1]
    assert contexts[1:].tolist() == [[0, 10], [10, 11]]
