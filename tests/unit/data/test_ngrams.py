"""N-gram masks: whole words, within the budget, of the lengths that the paper gives."""

import numpy as np
import pytest

from elision.data.example import NO_TARGET, Example
from elision.data.noise import NgramMask
from elision.data.noise.ngrams import draw_num_words, pick_ngrams
from elision.errors import InputError
from tests import tiny

rng = np.random.default_rng


def example(length: int) -> Example:
    """Two segments between [CLS] and [SEP]s, ids from 10 on."""
    inputs = 10 + np.arange(length) % 80
    special = np.zeros(length, bool)
    special[[0, length // 2, length - 1]] = True
    inputs[special] = 3
    return Example(inputs, special)


def words_of(inputs: np.ndarray, special: np.ndarray, continues: np.ndarray) -> list[list[int]]:
    """Return the positions of each word, found one token at a time."""
    words: list[list[int]] = []
    for at in range(len(inputs)):
        if special[at]:
            continue
        if continues[inputs[at]] and not special[at - 1]:
            words[-1].append(at)
        else:
            words.append([at])
    return words


CONTINUES = np.zeros(100, bool)
CONTINUES[[11, 13, 14, 20, 31, 32, 33, 34, 35, 50, 77]] = True


def test_a_literal_run_of_two_words() -> None:
    # One word of two pieces and two of one: from the second word on, two words.
    candidates, continues = np.array([1, 2, 3, 4]), np.array([False, False, True, False])
    found = {tuple(pick_ngrams(candidates, continues, 3, 2, rng(seed)).tolist()) for seed in range(200)}
    assert (2, 3, 4) in found and (1, 2, 3) in found
    # Three places: all that can be made of whole words in runs of at most two.
    assert found <= {(2, 3, 4), (1, 2, 3), (1, 4), (1, 2, 3, 4)} and all(len(run) <= 3 for run in found)


def test_the_mean_length_is_18_elevenths_words_and_falls_with_1_over_n() -> None:
    lengths = draw_num_words(200_000, 3, rng(0))
    assert lengths.mean() == pytest.approx(18 / 11, abs=0.005)
    assert np.bincount(lengths)[1:] / len(lengths) == pytest.approx([6 / 11, 3 / 11, 2 / 11], abs=0.005)


def test_all_pieces_of_a_masked_word_are_targets_and_no_special_symbol_is() -> None:
    noise, words = NgramMask(max_targets=None, rate=0.3), tiny.vocabulary(100, CONTINUES)
    halves = 0
    for seed in range(200):
        before = example(40)
        after = noise(before, words, rng(seed))
        masked = after.targets != NO_TARGET
        assert not (masked & before.special).any()
        for word in words_of(before.inputs, before.special, CONTINUES):
            assert masked[word].all() or not masked[word].any()
            halves += len(word) > 1 and masked[word].all()
        assert (after.targets[masked] == before.inputs[masked]).all()
        assert (after.inputs[~masked] == before.inputs[~masked]).all()
    assert halves > 100


@pytest.mark.parametrize(("length", "cap", "budget"), [(40, None, 6), (40, 4, 4), (7, 20, 1), (512, 20, 20)])
def test_targets_keep_to_the_budget_and_nearly_reach_it(length: int, cap: int | None, budget: int) -> None:
    noise, words = NgramMask(max_targets=cap), tiny.vocabulary(100, CONTINUES)
    counts = [int((noise(example(length), words, rng(seed)).targets != NO_TARGET).sum()) for seed in range(200)]
    assert max(counts) == budget
    assert np.mean(counts) > budget - 0.5


def test_a_run_that_exceeds_the_budget_loses_words_from_its_end() -> None:
    candidates = np.arange(1, 31)
    alone = np.zeros(30, bool)
    for seed in range(50):
        # Every run would be of up to 30 words; two places are left for it.
        picked = pick_ngrams(candidates, alone.copy(), 2, 30, rng(seed))
        assert len(picked) == 2
    # A word of three pieces does not fit into two places, and is not cut.
    assert len(pick_ngrams(np.arange(3), np.array([False, True, True]), 2, 3, rng(0))) == 0


def test_runs_do_not_overlap_so_that_every_place_is_drawn_once() -> None:
    candidates = np.arange(5, 65)
    for seed in range(50):
        picked = pick_ngrams(candidates, np.zeros(60, bool), 60, 3, rng(seed))
        assert len(np.unique(picked)) == len(picked) <= 60
        assert (np.diff(picked) > 0).all()


def test_each_piece_of_a_run_draws_its_own_fate() -> None:
    noise, words = NgramMask(max_targets=None), tiny.vocabulary(100)
    kinds: list[list[str]] = []
    for seed in range(3000):
        before = example(40)
        after = noise(before, words, rng(seed))
        at = np.flatnonzero(after.targets != NO_TARGET)
        fates = np.where(
            after.inputs[at] == words.mask, "mask", np.where(after.inputs[at] == before.inputs[at], "same", "random")
        )
        kinds += [fates[[i, i + 1]].tolist() for i in np.flatnonzero(np.diff(at) == 1)]
    first, second = np.array(kinds).T
    # A random symbol is the mask or the original in 2 of 100 cases.
    for column in (first, second):
        shares = [float((column == kind).mean()) for kind in ("mask", "random", "same")]
        assert shares == pytest.approx([0.801, 0.098, 0.101], abs=0.012)
    assert float(((first == "mask") & (second == "mask")).mean()) == pytest.approx(0.64, abs=0.02)


def test_a_text_of_special_symbols_alone_has_no_targets() -> None:
    noise = NgramMask()
    after = noise(Example(np.array([2, 3, 3]), np.ones(3, bool)), tiny.vocabulary(100), rng(0))
    assert (after.targets == NO_TARGET).all()


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(InputError, match="max_words is 0"):
        NgramMask(max_words=0)
    with pytest.raises(InputError, match="exceed 1"):
        NgramMask(mask_share=0.9, random_share=0.2)
    with pytest.raises(InputError, match="max_targets is 0"):
        NgramMask(max_targets=0)
