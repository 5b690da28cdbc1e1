"""Masks that prefer rare tokens."""

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest

from elision.data.example import NO_TARGET, Example
from elision.data.noise import FrequencyMask, TokenMask
from elision.data.noise.frequency import counted, pick_weighted
from elision.errors import InputError
from tests import tiny

rng = np.random.default_rng

COUNTS = np.concatenate([np.zeros(10, np.int64), [1000, 1000, 1], np.full(87, 10)])


def vocabulary():
    return dataclasses.replace(tiny.vocabulary(100), counts=COUNTS)


def test_drawing_without_putting_back_has_the_probabilities_of_drawing_one_after_another() -> None:
    weights = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    expected = {}
    for first, second in itertools.permutations(range(1, 5), 2):
        chance = weights[first] / 10 * weights[second] / (10 - weights[first])
        pair = tuple(sorted((first, second)))
        expected[pair] = expected.get(pair, 0) + chance
    random = rng(0)
    draws = [tuple(pick_weighted(weights, 2, random).tolist()) for _ in range(20_000)]
    for pair, chance in expected.items():
        assert draws.count(pair) / len(draws) == pytest.approx(chance, abs=0.012)
    assert sum(draws.count(pair) for pair in expected) == len(draws)


def test_fewer_possible_places_than_asked_for_are_all_taken() -> None:
    assert pick_weighted(np.array([0.0, 0.5, 0.0, 1e-9]), 3, rng(0)).tolist() == [1, 3]
    assert pick_weighted(np.zeros(3), 2, rng(0)).tolist() == []


def test_rare_tokens_are_masked_more_than_frequent_ones_by_the_power_of_their_counts() -> None:
    noise, words = FrequencyMask(rate=0.15), vocabulary()
    before = Example(np.array([2, 10, 11, 12, 3]), np.array([True, False, False, False, True]))
    picks = np.zeros(5)
    for seed in range(3000):
        picks += noise(before, words, rng(seed)).targets != NO_TARGET
    rare = 1 / (1 + 2 * 1000**-0.7)
    assert picks.sum() == 3000
    assert picks[3] / 3000 == pytest.approx(rare, abs=0.01) and rare > 0.98
    assert picks[1] / 3000 == pytest.approx((1 - rare) / 2, abs=0.006)


def test_a_power_of_0_prefers_nothing() -> None:
    before = Example(np.array([2, 10, 11, 12, 3]), np.array([True, False, False, False, True]))
    picks = np.zeros(5)
    for seed in range(3000):
        picks += FrequencyMask(power=0.0)(before, vocabulary(), rng(seed)).targets != NO_TARGET
    assert picks[1:4] / 3000 == pytest.approx([1 / 3] * 3, abs=0.03)


def test_the_budget_is_rounded_up_and_special_symbols_are_never_picked_even_inside_the_text() -> None:
    inputs = np.concatenate([[2], np.arange(20, 60), [1, 1, 3]])
    special = np.zeros(44, bool)
    special[[0, 43]] = True
    for seed in range(100):
        after = FrequencyMask()(Example(inputs, special), vocabulary(), rng(seed))
        at = np.flatnonzero(after.targets != NO_TARGET)
        # 0.15 * 44 = 6.6
        assert len(at) == 7 and (at > 0).all() and (at < 41).all()
        assert (after.targets[at] == inputs[at]).all()


def test_a_token_that_the_training_text_does_not_have_counts_as_one() -> None:
    words = dataclasses.replace(tiny.vocabulary(100), counts=np.zeros(100, np.int64))
    after = FrequencyMask(rate=0.5)(Example(np.arange(10, 20), np.zeros(10, bool)), words, rng(0))
    assert (after.targets != NO_TARGET).sum() == 5


def test_counts_are_those_of_the_training_split_whatever_split_is_read(tmp_path) -> None:
    documents = [[[10 + i, 11 + i], [100]] for i in range(40)]
    store = tiny.id_store(tmp_path / "store", tiny.tokenizer(tiny.WORDPIECE), documents, validation=0.3)
    train = store.split("train")
    assert 0 < train.num_documents < 40
    expected = Counter(id for index in range(train.num_documents) for id in train.document(index).tolist())
    for split in ("train", "validation"):
        words = counted(store.tokenizer.vocabulary, FrequencyMask(), store.split(split))
        assert {id: count for id, count in enumerate(words.counts.tolist()) if count} == expected
        assert len(words.counts) == words.size
    assert counted(store.tokenizer.vocabulary, TokenMask(), train).counts is None


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(InputError, match="power is -1"):
        FrequencyMask(power=-1)
    with pytest.raises(InputError, match="exceed 1"):
        FrequencyMask(mask_share=0.9, random_share=0.2)
