"""SpanBERT's masks: literal, the distribution of lengths, budgets, fates and boundaries."""

import dataclasses
import math

import numpy as np
import pytest

from elision.data.batch import collate
from elision.data.example import NO_TARGET, Example
from elision.data.noise import SpanMask, spans
from elision.data.noise.spans import draw_span_lengths, pick_spans, span_length_probabilities, spans_of
from elision.data.order import generator
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary
from tests import tiny

SIZE = 1000
# Odd ids continue a word.
CONTINUES = (np.arange(SIZE) % 2 == 1) & (np.arange(SIZE) >= 10)
VOCABULARY = dataclasses.replace(tiny.vocabulary(SIZE, CONTINUES), counts=np.arange(SIZE))
WORDS = dataclasses.replace(tiny.vocabulary(SIZE), counts=np.arange(SIZE))


def example(ids: list[int] | np.ndarray) -> Example:
    """[CLS] ids [SEP]."""
    inputs = np.array([2, *ids, 3])
    special = np.zeros(len(inputs), bool)
    special[[0, -1]] = True
    return Example(inputs, special)


def text(length: int, seed: int) -> Example:
    """Random pieces, half of which continue a word."""
    return example(np.random.default_rng(seed).integers(10, SIZE, length))


def noised(before: Example, index: int = 0, vocabulary: Vocabulary = VOCABULARY, **settings: object) -> Example:
    return SpanMask(**settings)(before, vocabulary, generator(1, "noise", index))


def test_span_lengths_have_the_published_probabilities_and_mean() -> None:
    probabilities = span_length_probabilities(0.2, 10)
    published = [0.224, 0.179, 0.143, 0.115, 0.092, 0.073, 0.059, 0.047, 0.038, 0.030]
    np.testing.assert_allclose(probabilities, published, atol=6e-4)
    assert abs(probabilities @ np.arange(1, 11) - 3.797) < 5e-4


def test_the_mean_length_of_drawn_spans_is_3_80_within_0_02_words() -> None:
    probabilities = span_length_probabilities(0.2, 10)
    drawn = draw_span_lengths(probabilities, 400_000, np.random.default_rng(0))
    assert abs(drawn.mean() - 3.80) < 0.02
    np.testing.assert_allclose(np.bincount(drawn)[1:] / len(drawn), probabilities, atol=0.003)


def test_spans_are_picked_with_the_lengths_that_are_drawn() -> None:
    rng, probabilities = np.random.default_rng(0), span_length_probabilities(0.2, 10)
    # One word in two hundred: spans hardly ever touch.
    words = np.arange(1, 2_000_001)
    runs = spans_of(pick_spans(words, np.ones(len(words), bool), 10_000, probabilities, rng))
    lengths = runs[:-1, 1] - runs[:-1, 0]
    lengths = lengths[lengths <= 10]
    assert abs(lengths.mean() - 3.80) < 4 * lengths.std() / np.sqrt(len(lengths))
    assert len(lengths) > 2400


def test_a_span_begins_with_a_word_and_is_cut_at_the_budget() -> None:
    # One word of 20 pieces: wherever the anchor falls, the span begins at the word's first piece.
    candidates, begins = np.arange(1, 21), np.arange(20) == 0
    for seed in range(20):
        picked = pick_spans(candidates, begins, 3, span_length_probabilities(0.2, 10), np.random.default_rng(seed))
        assert picked.tolist() == [1, 2, 3]


def test_whole_words_are_taken_but_for_the_one_that_the_budget_cuts() -> None:
    for index in range(300):
        before = text(60, index)
        after = noised(before, index)
        chosen = after.targets != NO_TARGET
        begins = ~CONTINUES[before.inputs] | before.special
        begins[1] = True
        words = np.cumsum(begins)
        torn = [word for word in np.unique(words[chosen]) if not chosen[words == word].all()]
        assert len(torn) <= 1
        for word in torn:
            # What is taken of it is its beginning.
            own = chosen[words == word]
            assert own[: own.sum()].all()


@pytest.mark.parametrize("length", [1, 2, 7, 20, 100, 510])
def test_the_budget_is_15_percent_of_the_tokens_rounded_up_and_spent_to_the_last(length: int) -> None:
    for index in range(30):
        after = noised(text(length, index), index)
        assert (after.targets != NO_TARGET).sum() == math.ceil(0.15 * length - 1e-9)


def test_special_symbols_are_never_masked_and_no_span_runs_across_them() -> None:
    before = example(range(10, 50))
    before.inputs[[5, 20]], before.special[[5, 20]] = 3, True
    for index in range(300):
        after = noised(before, index, WORDS, rate=0.5)
        assert not ((after.targets != NO_TARGET) & before.special).any()
        for begin, end, _ in after.spans:
            assert not before.special[begin:end].any()


def test_all_tokens_of_a_span_share_one_fate_and_spans_meet_each_as_often_as_said() -> None:
    fates = np.zeros(3)
    for index in range(3000):
        before = example(np.arange(10, 110))
        after = noised(before, index, WORDS)
        assert np.array_equal(after.inputs[after.targets == NO_TARGET], before.inputs[after.targets == NO_TARGET])
        for begin, end, _ in after.spans:
            read, stood = after.inputs[begin:end], before.inputs[begin:end]
            assert np.array_equal(after.targets[begin:end], stood)
            if (read == WORDS.mask).any():
                assert (read == WORDS.mask).all()
                fates[0] += 1
            elif np.array_equal(read, stood):
                fates[2] += 1
            else:
                fates[1] += 1
    np.testing.assert_allclose(fates / fates.sum(), [0.8, 0.1, 0.1], atol=0.015)


def test_random_tokens_follow_the_text_and_are_drawn_one_by_one() -> None:
    counts = np.zeros(SIZE, np.int64)
    counts[[500, 600]] = 3, 1
    counted = dataclasses.replace(WORDS, counts=counts)
    drawn, mixed = [], 0
    for index in range(400):
        after = noised(example(np.arange(10, 110)), index, counted, mask_share=0.0, random_share=1.0)
        drawn.append(after.inputs[after.targets != NO_TARGET])
        mixed += sum(len(set(after.inputs[begin:end].tolist())) > 1 for begin, end, _ in after.spans)
    ids, times = np.unique(np.concatenate(drawn), return_counts=True)
    assert ids.tolist() == [500, 600] and mixed > 50
    assert abs(times[0] / times.sum() - 0.75) < 0.02
    evenly = noised(example(np.arange(10, 110)), 0, tiny.vocabulary(SIZE), random_from="vocabulary", random_share=0.2)
    assert evenly.spans is not None


def test_spans_that_touch_are_one_and_boundaries_lie_outside_of_every_span() -> None:
    assert spans_of(np.array([3, 4, 7])).tolist() == [[3, 5], [7, 8]]
    assert spans_of(np.array([], np.int64)).shape == (0, 2)
    for index in range(300):
        after = noised(text(40, index), index, rate=0.4)
        chosen = after.targets != NO_TARGET
        for begin, end, _ in after.spans:
            assert chosen[begin:end].all() and not chosen[begin - 1] and not chosen[end]
        # With a symbol on either side of the text every span has both boundaries.
        assert sum(end - begin for begin, end, _ in after.spans) == chosen.sum()


def test_spans_without_both_boundaries_are_not_asked_of_them() -> None:
    bare = Example(np.arange(10, 14), np.zeros(4, bool))
    after = noised(bare, 0, WORDS, rate=1.0)
    assert (after.targets != NO_TARGET).all() and len(after.spans) == 0
    apart = Example(np.arange(10, 16), np.zeros(6, bool), doc_ids=np.array([1, 1, 1, 2, 2, 2]))
    for index in range(50):
        for begin, end, _ in noised(apart, index, WORDS, rate=0.3).spans:
            assert apart.doc_ids[begin - 1] == apart.doc_ids[end]


def test_pairs_past_the_fifteenth_of_a_span_are_dropped_and_the_right_boundary_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spans, "pick_spans", lambda *_: np.arange(3, 23))
    before = example(range(10, 40))
    after = noised(before, 0, WORDS)
    assert after.spans.tolist() == [[3, 23, 18]]
    batch = collate([after], pad_id=0)
    assert batch.num_targets == 20
    assert batch.boundaries.tolist() == [[place, 2, 23] for place in range(3, 18)]


def test_the_boundaries_of_a_packed_batch_are_places_of_the_same_example() -> None:
    before = [text(length, length) for length in (10, 20, 5)]
    after = [noised(one, index, rate=0.3) for index, one in enumerate(before)]
    batch = collate(after, pad_id=0, row_length=30)
    ids = (batch.doc_ids + 100 * np.arange(len(batch.doc_ids))[:, None]).flatten()
    assert (ids[batch.boundaries] == ids[batch.boundaries[:, :1]]).all()
    assert (batch.targets.flatten()[batch.boundaries[:, 0]] != NO_TARGET).all()
    assert set(batch.boundaries.flatten().tolist()) <= set(range(ids.numel()))


def test_settings_that_make_no_sense_are_refused() -> None:
    for settings, message in [
        ({"p": 0.0}, "p is 0.0"),
        ({"max_words": 0}, "max_words is 0"),
        ({"max_restored": 0}, "max_restored is 0"),
        ({"rate": 2.0}, "rate is 2.0"),
    ]:
        with pytest.raises(InputError, match=message):
            SpanMask(**settings)
