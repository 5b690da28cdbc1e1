"""DeBERTa's masks: contexts, the budget, and where the released code leaves nothing to restore."""

import numpy as np
import pytest

from elision.data.example import NO_TARGET, Example
from elision.data.noise import ContextNgramMask
from elision.data.noise.context_ngrams import keep_within, mark_in_contexts
from elision.errors import InputError
from tests import tiny


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def framed(length: int) -> Example:
    """[CLS] 10 11 12 ... [SEP], `length` tokens in all."""
    special = np.zeros(length, bool)
    special[[0, -1]] = True
    return Example(np.array([2, *range(10, 8 + length), 3]), special)


def places(noised: Example) -> list[int]:
    return np.flatnonzero(noised.targets != NO_TARGET).tolist()


def test_every_context_of_six_single_words_has_one_of_them_anywhere_in_it() -> None:
    counts = np.zeros(6)
    for seed in range(3000):
        marked = mark_in_contexts(18, 6, 1, rng(seed)).reshape(3, 6)
        assert (marked.sum(1) == 1).all()
        counts += marked.sum(0)
    # 9,000 draws of one place in six: 1,500 each, with a standard deviation of 35.
    assert np.abs(counts - 1500).max() < 4 * 35


def test_the_last_context_is_what_is_left() -> None:
    seen = set()
    for seed in range(200):
        marked = np.flatnonzero(mark_in_contexts(8, 6, 1, rng(seed)))
        assert len(marked) == 2 and marked[0] < 6 <= marked[1]
        seen.add(int(marked[1]))
    assert seen == {6, 7}
    assert mark_in_contexts(1, 6, 3, rng()).tolist() == [True]
    assert mark_in_contexts(0, 6, 3, rng()).tolist() == []


def test_runs_of_n_words_have_a_context_of_six_n_and_p_of_n_falls_as_1_over_n() -> None:
    counts = np.zeros(8)
    for seed in range(4000):
        # The first run of a long text: its length, as its end is followed by a word that is not marked or by the next run.
        marked = mark_in_contexts(600, 6, 3, rng(seed))
        at = int(np.flatnonzero(marked)[0])
        counts[int(np.argmin(marked[at:]))] += 1
    # 6/11, 3/11 and 2/11, but for a few runs that touch the next.
    assert counts[1:4] / 4000 == pytest.approx([6 / 11, 3 / 11, 2 / 11], abs=0.03)


def test_a_run_may_reach_beyond_its_context_and_the_next_context_begins_after_it() -> None:
    class Draws:
        """Lengths 2 and 2; both runs begin at the last word of their context of 2 words."""

        def choice(self, values: np.ndarray, size: int, p: np.ndarray) -> np.ndarray:
            return np.full(size, 2)

        def random(self, size: int) -> np.ndarray:
            return np.full(size, 0.99)

    # Contexts of 2 words: words 0 and 1 (the run is 1 and 2), words 3 and 4 (4 and 5), word 6 (6).
    assert np.flatnonzero(mark_in_contexts(7, 1, 2, Draws())).tolist() == [1, 2, 4, 5, 6]


def test_the_budget_is_spent_from_the_left_until_it_is_reached() -> None:
    marked = np.array([True, False, True, True, False, True])
    sizes = np.array([1, 1, 3, 1, 1, 1])
    assert keep_within(marked, sizes, 1, None).tolist() == [0]
    # The second word has 3 tokens and is taken whole.
    assert keep_within(marked, sizes, 2, None).tolist() == [0, 2]
    assert keep_within(marked, sizes, 4, None).tolist() == [0, 2]
    assert keep_within(marked, sizes, 5, None).tolist() == [0, 2, 3]
    assert keep_within(marked, sizes, 99, None).tolist() == [0, 2, 3, 5]
    assert keep_within(marked[:0], sizes[:0], 3, None).tolist() == []


def test_the_budget_spent_in_random_order_reaches_every_marked_word() -> None:
    marked, sizes = np.array([True, True, True, False]), np.ones(4, int)
    kept = [tuple(keep_within(marked, sizes, 2, rng(seed)).tolist()) for seed in range(300)]
    assert set(kept) == {(0, 1), (0, 2), (1, 2)}


@pytest.mark.parametrize("max_words", [1, 3])
def test_left_to_right_the_tail_is_never_a_target_and_at_random_every_place_is_as_likely(max_words: int) -> None:
    # The 510 tokens between the special symbols of 512. The fact that is held: 48 (single pieces) and about 30 (runs).
    draws, vocabulary = 1500, tiny.vocabulary(600)
    rates = {}
    for randomise in (False, True):
        noise = ContextNgramMask(max_words=max_words, randomise_survivors=randomise)
        counts = np.zeros(512)
        for seed in range(draws):
            counts[places(noise(framed(512), vocabulary, rng(seed)))] += 1
        rates[randomise] = counts[1:-1] / draws
    early = rates[False][6:300].mean()
    assert early == pytest.approx(1 / 6, abs=0.003)
    last = int(np.flatnonzero(rates[False])[-1])
    assert 509 - last == 48 if max_words == 1 else 22 <= 509 - last <= 45
    assert rates[True][6:300].mean() == pytest.approx(0.151, abs=0.004)
    assert rates[True][462:498].mean() == pytest.approx(0.151, abs=0.01)


def test_targets_count_special_symbols_into_the_budget_and_are_capped() -> None:
    vocabulary = tiny.vocabulary(600)
    for length, number in ((12, 2), (42, 6), (302, 45)):
        assert len(places(ContextNgramMask(max_words=1)(framed(length), vocabulary, rng()))) == number
    noise = ContextNgramMask(max_words=1, max_targets=20)
    assert len(places(noise(framed(302), vocabulary, rng()))) == 20


def test_masking_single_pieces_literally() -> None:
    noise = ContextNgramMask(max_words=1, mask_share=1.0, random_share=0.0)
    for seed in range(50):
        noised = noise(framed(8), tiny.vocabulary(20), rng(seed))
        (place,) = places(noised)
        assert 1 <= place <= 6
        assert noised.inputs.tolist() == [4 if n == place else token for n, token in enumerate(framed(8).inputs)]
        assert noised.targets[place] == framed(8).inputs[place]


def test_runs_are_of_whole_words_and_single_pieces_are_not() -> None:
    # Words of 1, 3 and 2 pieces, then [SEP], then a piece that would continue a word.
    continues = np.zeros(30, bool)
    continues[[12, 13, 15, 16]] = True
    inputs = np.array([2, 10, 11, 12, 13, 14, 15, 3, 16, 17, 3])
    example = Example(inputs, np.isin(inputs, [2, 3]))
    words = [{1}, {2, 3, 4}, {5, 6}, {8}, {9}]
    pieces = set()
    for seed in range(300):
        vocabulary = tiny.vocabulary(30, continues)
        chosen = set(places(ContextNgramMask(rate=0.5, max_targets=None)(example, vocabulary, rng(seed))))
        assert set().union(*(word for word in words if word <= chosen)) == chosen
        single = places(ContextNgramMask(rate=0.1, max_words=1)(example, vocabulary, rng(seed)))
        pieces.add(tuple(single))
    assert pieces == {(1,), (2,), (3,), (4,), (5,), (6,), (8,), (9,)}


def test_special_symbols_inside_a_text_are_never_targets() -> None:
    # Unknown (1) and [MASK] (4) in the text itself.
    inputs = np.array([2, 1, 10, 4, 1, 3])
    noise = ContextNgramMask(rate=1.0, max_words=1, max_targets=None)
    assert places(noise(Example(inputs, np.isin(inputs, [2, 3])), tiny.vocabulary(20), rng())) == [2]


def test_a_text_of_special_symbols_alone_has_no_target() -> None:
    example = Example(np.array([2, 1, 3]), np.array([True, False, True]))
    noised = ContextNgramMask()(example, tiny.vocabulary(20), rng())
    assert places(noised) == [] and noised.inputs.tolist() == [2, 1, 3]


def test_fates_are_drawn_80_10_10_piece_by_piece() -> None:
    vocabulary, example = tiny.vocabulary(1000), framed(512)
    fates = np.zeros(3)
    for seed in range(300):
        noised = ContextNgramMask()(example, vocabulary, rng(seed))
        at = places(noised)
        masked, same = noised.inputs[at] == 4, noised.inputs[at] == example.inputs[at]
        fates += [masked.sum(), (~masked & ~same).sum(), same.sum()]
    assert fates / fates.sum() == pytest.approx([0.8, 0.1, 0.1], abs=0.008)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 0.0}, "rate is 0"),
        ({"rate": 1.5}, "rate is 1.5"),
        ({"mask_share": 0.8, "random_share": 0.3}, "exceed 1"),
        ({"max_words": 0}, "max_words is 0"),
        ({"max_targets": 0}, "max_targets is 0"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ContextNgramMask(**settings)
