"""The n-gram models against brute force."""

import collections
import itertools
import math

import numpy as np
import pytest

from elision.data.store import Store
from elision.tasks.baselines import UNKNOWN, NgramModel

DOCUMENTS = [[0, 1, 2, 0, 1, 3], [1, 2, 0], [3], [0, 1, 2, 2]]
VOCAB_SIZE = 5  # 4 never occurs
BOUNDARY = 5


def model() -> NgramModel:
    starts = np.cumsum([0] + [len(document) for document in DOCUMENTS])[:-1]
    return NgramModel.count(np.concatenate(DOCUMENTS), starts, VOCAB_SIZE, BOUNDARY)


def brute_force(context: tuple[int, ...], token: int) -> float:
    """Witten-Bell by its recursive definition, from dictionaries."""
    followers: dict[tuple[int, ...], collections.Counter] = collections.defaultdict(collections.Counter)
    for document in DOCUMENTS:
        padded = [BOUNDARY, BOUNDARY, *document]
        for at in range(2, len(padded)):
            for order in range(3):
                followers[tuple(padded[at - order : at])][padded[at]] += 1

    def probability(context: tuple[int, ...]) -> float:
        lower = 1 / VOCAB_SIZE if not context else probability(context[1:])
        seen = followers.get(context)
        if seen is None:
            return lower
        return (seen[token] + len(seen) * lower) / (sum(seen.values()) + len(seen))

    return probability(context)


CONTEXTS = [*itertools.product(range(VOCAB_SIZE), repeat=2), (BOUNDARY, BOUNDARY), (BOUNDARY, 0), (BOUNDARY, 4)]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_equal_a_dictionary_implementation(order: int) -> None:
    grams = model()
    for context in CONTEXTS:
        for token in range(VOCAB_SIZE):
            ours = grams.log_probability(np.array([context]), np.array([token]), order)[0]
            assert ours == pytest.approx(math.log(brute_force(context[3 - order :], token)), abs=1e-12), (
                context,
                token,
            )


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_sum_to_one_after_every_context(order: int) -> None:
    grams = model()
    tokens = np.arange(VOCAB_SIZE)
    for context in [*CONTEXTS, (UNKNOWN, 1), (UNKNOWN, UNKNOWN)]:
        contexts = np.tile(context, (VOCAB_SIZE, 1))
        assert np.exp(grams.log_probability(contexts, tokens, order)).sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_best_token_is_that_of_an_exhaustive_search(order: int) -> None:
    grams = model()
    contexts = np.array([*CONTEXTS, (UNKNOWN, 1), (UNKNOWN, UNKNOWN)])
    table = np.stack(
        [grams.log_probability(contexts, np.full(len(contexts), token), order) for token in range(VOCAB_SIZE)], 1
    )
    found = table[np.arange(len(contexts)), grams.best(contexts, order)]
    np.testing.assert_allclose(found, table.max(1), atol=1e-12)


def test_an_unknown_context_backs_off() -> None:
    grams, tokens = model(), np.array([0, 1])
    far, none = np.array([[UNKNOWN, 1]] * 2), np.array([[UNKNOWN, UNKNOWN]] * 2)
    assert np.array_equal(grams.log_probability(far, tokens, 3), grams.log_probability(far, tokens, 2))
    assert np.array_equal(grams.log_probability(none, tokens, 3), grams.log_probability(none, tokens, 1))


def test_what_stands_before_a_boundary_does_not_matter() -> None:
    grams, tokens = model(), np.array([0, 3])
    after = grams.log_probability(np.array([[2, BOUNDARY]] * 2), tokens)
    assert np.array_equal(after, grams.log_probability(np.array([[BOUNDARY, BOUNDARY]] * 2), tokens))


def test_fitting_a_split_counts_its_documents_apart(bytes_store: Store) -> None:
    split, vocabulary = bytes_store.split("train"), bytes_store.tokenizer.vocabulary
    whole = NgramModel.fit(split, vocabulary)
    assert whole.num_tokens == split.num_tokens and whole.unigrams.counts.sum() == split.num_tokens
    first = np.array([split.document(i)[0] for i in range(split.num_documents)])
    at = np.searchsorted(whole.bigrams.contexts, vocabulary.size)
    assert whole.bigrams.total[at] == len(first) and whole.bigrams.distinct[at] == len(set(first.tolist()))
    ended = NgramModel.fit(split, vocabulary, separator=vocabulary.eos)
    assert ended.num_tokens == split.num_tokens + split.num_documents
    again = np.array([[vocabulary.eos, vocabulary.eos]])
    assert ended.best(again, 2)[0] == collections.Counter(first.tolist()).most_common(1)[0][0]
    assert NgramModel.fit(split, vocabulary, max_tokens=50).num_tokens == 50
