"""XLNet's noise: where the targets are, and the order that hides them."""

import dataclasses

import numpy as np
import pytest

from elision.data.example import NO_TARGET, Example
from elision.data.noise import PermutationMask
from elision.data.noise.permutation import pick_spans
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary

# Ids 0 to 6 are symbols; of the others, every third begins a word.
SIZE = 1000
WORDS = Vocabulary(SIZE, np.arange(SIZE) < 7, (np.arange(SIZE) >= 7) & (np.arange(SIZE) % 3 != 0))
EVERY = np.ones(512, bool)


class Drawn:
    """A generator that gives what was written out: lengths of spans, shifts, an order."""

    def __init__(self, lengths: list[int], shifts: list[float], ranks: list[list[int]] = ()):
        self.lengths, self.shifts, self.ranks = lengths, shifts, list(ranks)

    def choice(self, values: np.ndarray, size: int, p: np.ndarray | None = None, replace: bool = True) -> np.ndarray:
        if p is None:
            return values[:size]
        assert p.sum() == pytest.approx(1) and np.allclose(p * values, p[0])
        return np.array(self.lengths[:size])

    def random(self, size: int) -> np.ndarray:
        return np.array(self.shifts[:size])

    def permutation(self, size: int) -> np.ndarray:
        ranks = self.ranks.pop(0)
        assert len(ranks) == size
        return np.array(ranks)


def places(picked: np.ndarray) -> list[int]:
    return np.flatnonzero(picked).tolist()


def test_a_span_begins_at_the_next_word_start_in_its_context_and_has_so_many_tokens() -> None:
    starts = np.array([True, False, True, True, False, False, True, False, True, False, True, True])
    # Length 2 in a context of 6: a shift of 0.2 of the 5 possible ones is 1, and the next word start is 2.
    assert places(pick_spans(starts, 2, 5, 3, False, Drawn([2, 1], [0.2, 0.0]))) == [2, 3]
    # The next context begins behind the first: 4 more tokens of the first after its span, less the 1 before it.
    found = pick_spans(starts, 3, 5, 3, False, Drawn([2, 1, 1], [0.2, 0.99, 0.0]))
    assert places(found) == [2, 3, 10]


def test_whole_words_are_counted_where_the_paper_counts_them() -> None:
    starts = np.array([True, False, True, True, False, False, True, False, True, False, True, True])
    assert places(pick_spans(starts, 4, 5, 3, True, Drawn([2, 1, 1, 1], [0.2] * 4))) == [2, 3, 4, 5]


def test_a_span_that_would_reach_the_end_ends_the_walk_and_single_tokens_fill_up() -> None:
    starts = np.array([True, False, True, True, False, False, True, False])
    # Length 2 and a shift of 5 leads to the start at 6, and the end is 8: the first two tokens stand in.
    assert places(pick_spans(starts, 2, 5, 4, False, Drawn([2, 2], [0.75, 0.0]))) == [0, 1]


def test_a_last_span_is_cut_to_what_is_left() -> None:
    assert places(pick_spans(EVERY[:40], 3, 5, 2, False, Drawn([2, 5, 5], [0.0, 0.0, 0.0]))) == [0, 1, 4]


def test_lengths_are_drawn_in_proportion_to_1_over_n_and_spans_lie_anywhere_in_their_context() -> None:
    rng = np.random.default_rng(0)
    lengths, begins, picked = [], [], np.zeros(512)
    for _ in range(400):
        # No more than spans give by themselves, so that no single tokens are added.
        found = pick_spans(EVERY, 60, 5, 6, False, rng)
        picked += found
        edges = np.flatnonzero(np.diff(np.concatenate([[0], found, [0]])))
        lengths += (edges[1::2] - edges[::2]).tolist()
        begins.append(edges[0])
    counts = np.bincount(lengths, minlength=8)[1:6] / len(lengths)
    share = 1 / np.arange(1, 6) / (1 / np.arange(1, 6)).sum()
    # Neighbouring spans now and then touch and look like one.
    assert np.abs(counts - share).max() < 0.06
    assert 2.0 < np.mean(lengths) < 2.6
    # One token of six is picked, wherever it stands.
    assert picked[20:300].mean() / 400 == pytest.approx(1 / 6, abs=0.01)
    assert min(begins) == 0 and max(begins) > 20


def test_an_example_gets_an_order_of_plain_tokens_then_targets_and_symbols() -> None:
    example = Example(np.array([10, 11, 12, 3]), np.array([False, False, False, True]))
    noise = PermutationMask(rate=0.25, permute_length=4)

    class First(Drawn):
        def choice(
            self, values: np.ndarray, size: int, p: np.ndarray | None = None, replace: bool = True
        ) -> np.ndarray:
            return np.array([5]) if p is not None else np.array([1])

    found = noise(example, WORDS, First([5], [0.9], [[2, 3, 0, 1]]))
    assert found.order.tolist() == [0, 4, 0, 2]
    assert found.targets.tolist() == [NO_TARGET, 11, NO_TARGET, NO_TARGET]
    assert found.inputs is example.inputs


def row(rng: np.random.Generator) -> Example:
    """Return a row as `MemoryStreams` makes them: 256 tokens, A, a symbol, B, two symbols."""
    inputs = rng.integers(7, SIZE, 512)
    special = np.isin(np.arange(512), [400, 510, 511])
    inputs[special] = 4
    return Example(inputs, special)


@pytest.mark.parametrize("whole_words", [False, True])
def test_of_512_tokens_43_and_42_are_picked_and_symbols_among_them_are_dropped(whole_words: bool) -> None:
    noise = PermutationMask(whole_words=whole_words)
    some_dropped = False
    for seed in range(50):
        rng = np.random.default_rng(seed)
        example = row(rng)
        found = noise(example, WORDS, rng)
        asked = found.targets != NO_TARGET
        assert asked[:256].sum() == 43
        dropped = 42 - asked[256:].sum()
        assert 0 <= dropped <= 3
        some_dropped |= dropped > 0
        assert not (asked & example.special).any()
        assert (found.targets[asked] == example.inputs[asked]).all()
        assert (found.inputs == example.inputs).all()
    assert some_dropped


def test_each_stretch_has_a_random_order_of_its_own_and_later_ones_stand_behind() -> None:
    noise = PermutationMask()
    first_ranks = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        example = row(rng)
        found = noise(example, WORDS, rng)
        hidden = (found.targets != NO_TARGET) | example.special
        for number, here in enumerate((slice(0, 256), slice(256, 512))):
            order = found.order[here] - number * 257
            assert (order[~hidden[here]] == 0).all()
            own = order[hidden[here]]
            assert len(set(own.tolist())) == len(own) and own.min() >= 1 and own.max() <= 256
        assert found.order[:256].max() < found.order[256:].min()
        targets = np.flatnonzero(found.targets[:256] != NO_TARGET)
        first_ranks.append(np.argsort(np.argsort(found.order[targets]))[0] / (len(targets) - 1))
    # The first of the targets stands anywhere in the order, evenly.
    assert np.mean(first_ranks) == pytest.approx(0.5, abs=0.06)
    assert np.std(first_ranks) == pytest.approx(np.sqrt(1 / 12), abs=0.03)


def test_short_and_odd_lengths_get_their_share() -> None:
    noise = PermutationMask(permute_length=12)
    for length in (1, 2, 5, 12, 13, 24, 31):
        example = Example(np.arange(7, 7 + length), np.zeros(length, bool))
        found = noise(example, WORDS, np.random.default_rng(length))
        assert (found.targets != NO_TARGET).sum() == max(1, round(85 / 512 * length))


def test_equal_generators_give_equal_noise() -> None:
    example = row(np.random.default_rng(0))
    first, again, other = (PermutationMask()(example, WORDS, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first.order == again.order).all() and (first.targets == again.targets).all()
    assert (first.order != other.order).any()


@pytest.mark.parametrize("change", [{"rate": 1.2}, {"max_span": 0}, {"context": 0}, {"permute_length": 0}])
def test_bad_settings_are_refused_by_name(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        dataclasses.replace(PermutationMask(), **change)
