"""Noise: literal rewrites, densities, and BERT's budget."""

import math

import numpy as np
import pytest

from elision.data.example import NO_TARGET, Example
from elision.data.noise import NextToken, TokenMask
from elision.data.noise.tokens import pick_tokens, pick_whole_words, rewrite_tokens
from elision.errors import InputError
from tests import tiny

TOKENS = np.array([10, 11, 12, 13, 14, 15])
MASK = 4


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def framed(length: int) -> Example:
    """[CLS] 10 11 12 ... [SEP], `length` tokens in all."""
    inputs = np.array([2, *range(10, 8 + length), 3])
    special = np.zeros(length, bool)
    special[[0, -1]] = True
    return Example(inputs, special, type_ids=np.zeros(length, np.int64))


def within(count: float, number: int, probability: float, sigmas: float = 3.0) -> bool:
    """Whether a binomial count lies within so many standard deviations of what is expected."""
    return abs(count - number * probability) <= sigmas * math.sqrt(number * probability * (1 - probability))


def test_masking_two_positions_literally() -> None:
    assert rewrite_tokens(TOKENS, np.array([1, 4]), MASK, 100, 1.0, 0.0, rng()).tolist() == [10, 4, 12, 13, 4, 15]


def test_keeping_all_picked_positions_changes_nothing() -> None:
    assert rewrite_tokens(TOKENS, np.array([0, 5]), MASK, 100, 0.0, 0.0, rng()).tolist() == [10, 11, 12, 13, 14, 15]


def test_random_replacement_from_a_vocabulary_of_one_literally() -> None:
    assert rewrite_tokens(TOKENS, np.array([2, 3]), MASK, 1, 0.0, 1.0, rng()).tolist() == [10, 11, 0, 0, 14, 15]


def test_rewriting_leaves_its_argument_alone() -> None:
    rewrite_tokens(TOKENS, np.arange(6), MASK, 100, 1.0, 0.0, rng())
    assert TOKENS.tolist() == [10, 11, 12, 13, 14, 15]


def test_masking_the_only_candidate_literally() -> None:
    example = Example(np.array([2, 10, 3]), np.array([True, False, True]))
    noised = TokenMask(rate=0.15, mask_share=1.0, random_share=0.0)(example, tiny.vocabulary(20), rng())
    assert noised.inputs.tolist() == [2, 4, 3]
    assert noised.targets.tolist() == [-100, 10, -100]


def test_masking_everything_literally() -> None:
    noise = TokenMask(rate=1.0, max_targets=None, mask_share=1.0, random_share=0.0)
    noised = noise(framed(8), tiny.vocabulary(20), rng())
    assert noised.inputs.tolist() == [2, 4, 4, 4, 4, 4, 4, 3]
    assert noised.targets.tolist() == [-100, 10, 11, 12, 13, 14, 15, -100]


def test_next_token_literally() -> None:
    example = Example(TOKENS, np.zeros(6, bool), doc_ids=np.array([1, 1, 1, 2, 2, 2]), summary=4)
    shifted = NextToken()(example, tiny.vocabulary(20), rng())
    assert shifted.inputs.tolist() == [10, 11, 12, 13, 14]
    assert shifted.targets.tolist() == [11, 12, 13, 14, 15]
    assert shifted.doc_ids.tolist() == [1, 1, 1, 2, 2]
    assert shifted.summary == len(shifted) - 1


def test_each_candidate_is_picked_equally_often_and_each_pair_of_candidates_too() -> None:
    candidates, source, draws = np.array([1, 3, 4, 6, 7, 9]), rng(1), 100_000
    picked = np.array([pick_tokens(candidates, 2, source) for _ in range(draws)])
    assert (picked[:, 0] < picked[:, 1]).all()
    for position in candidates:
        assert within((picked == position).sum(), draws, 2 / 6), position
    pairs = np.unique(picked[:, 0] * 10 + picked[:, 1], return_counts=True)[1]
    assert len(pairs) == 15
    assert all(within(count, draws, 1 / 15, 3.5) for count in pairs)


def test_picking_more_tokens_than_there_are_takes_all() -> None:
    assert pick_tokens(np.array([2, 5]), 3, rng()).tolist() == [2, 5]
    assert pick_tokens(np.array([], np.int64), 3, rng()).tolist() == []


def test_fates_are_drawn_80_10_10() -> None:
    number, vocab_size = 200_000, 1000
    inputs = np.full(number, 999)
    rewritten = rewrite_tokens(inputs, np.arange(number), MASK, vocab_size, 0.8, 0.1, rng(2))
    masked = (rewritten == MASK).sum()
    # A random replacement can be the mask symbol, or the token itself.
    assert within(masked, number, 0.8 + 0.1 / vocab_size)
    assert within((rewritten == 999).sum(), number, 0.1 + 0.1 / vocab_size)
    replaced = rewritten[(rewritten != MASK) & (rewritten != 999)]
    assert within(len(replaced), number, 0.1 * (vocab_size - 2) / vocab_size)
    # Uniform over the whole vocabulary, special symbols and the last id included.
    counts = np.bincount(replaced, minlength=vocab_size)[np.setdiff1d(np.arange(vocab_size), [MASK, 999])]
    expected = counts.sum() / len(counts)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - len(counts)) < 4 * math.sqrt(2 * len(counts))
    assert counts[0] > 0


@pytest.mark.parametrize("length", [5, 6, 9, 10, 17, 30, 63, 128, 200])
def test_the_budget_counts_special_symbols_and_is_capped(length: int) -> None:
    noised = TokenMask(rate=0.15, max_targets=20)(framed(length), tiny.vocabulary(300), rng(length))
    assert (noised.targets != NO_TARGET).sum() == min(20, max(1, round(0.15 * length)))


def test_targets_hold_the_original_and_special_symbols_are_never_touched() -> None:
    source, example = rng(3), framed(40)
    for _ in range(200):
        noised = TokenMask(rate=0.5, max_targets=None)(example, tiny.vocabulary(300), source)
        chosen = noised.targets != NO_TARGET
        assert (noised.targets[chosen] == example.inputs[chosen]).all()
        assert (noised.inputs[~chosen] == example.inputs[~chosen]).all()
        assert not (chosen & example.special).any()


def test_noise_is_a_function_of_its_generator_alone() -> None:
    first, again, other = (TokenMask()(framed(60), tiny.vocabulary(300), rng(seed)) for seed in (7, 7, 8))
    assert (first.inputs == again.inputs).all() and (first.targets == again.targets).all()
    assert (first.targets != other.targets).any()


def test_whole_words_are_taken_entirely_or_not_at_all() -> None:
    # Words of 1, 3, 2 and 4 pieces.
    candidates = np.arange(1, 11)
    continues = np.array([0, 0, 1, 1, 0, 1, 0, 1, 1, 1], bool)
    words = [{1}, {2, 3, 4}, {5, 6}, {7, 8, 9, 10}]
    source, seen = rng(4), set()
    for _ in range(500):
        picked = set(pick_whole_words(candidates, continues, 4, source).tolist())
        chosen = [word for word in words if word <= picked]
        assert set().union(*chosen) == picked
        assert 0 < len(picked) <= 4
        seen.add(tuple(sorted(picked)))
    # Words drawn in any order, those that would exceed the budget of 4 passed over: the maximal sets are
    # {1, 3}, {1, 2} or {4} pieces; {3} alone is never left since the word of one piece still fits beside it.
    assert seen == {(1, 2, 3, 4), (1, 5, 6), (7, 8, 9, 10)}


def test_a_first_candidate_that_continues_a_word_counts_as_one() -> None:
    picked = pick_whole_words(np.array([1, 2]), np.array([True, True]), 2, rng())
    assert picked.tolist() == [1, 2]


def test_words_that_all_exceed_the_budget_leave_nothing_to_restore() -> None:
    assert pick_whole_words(np.array([1, 2, 3]), np.array([False, True, True]), 2, rng()).tolist() == []
    assert pick_whole_words(np.array([], np.int64), np.array([], bool), 2, rng()).tolist() == []


def test_whole_word_masking_reads_the_words_from_the_vocabulary_and_stops_at_special_symbols() -> None:
    continues = np.zeros(20, bool)
    continues[[11, 13]] = True
    inputs = np.array([2, 10, 11, 3, 13, 12, 3])
    special = np.isin(inputs, [2, 3])
    noise = TokenMask(rate=0.3, max_targets=None, whole_words=True, mask_share=1.0, random_share=0.0)
    seen = set()
    for seed in range(100):
        noised = noise(Example(inputs, special), tiny.vocabulary(20, continues), rng(seed))
        seen.add(tuple(np.flatnonzero(noised.targets != NO_TARGET).tolist()))
    # Two targets: the word 10 11, or the words 13 (its first piece lies beyond the separator) and 12.
    assert seen == {(1, 2), (4, 5)}


def test_each_piece_of_a_whole_word_draws_its_own_fate() -> None:
    continues = np.zeros(20, bool)
    continues[11] = True
    noise = TokenMask(rate=0.5, whole_words=True, mask_share=0.5, random_share=0.0)
    example = Example(np.array([2, 10, 11, 3]), np.array([True, False, False, True]))
    results = {
        tuple(noise(example, tiny.vocabulary(20, continues), rng(seed)).inputs[1:3].tolist()) for seed in range(60)
    }
    assert results == {(10, 11), (4, 11), (10, 4), (4, 4)}


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"rate": 1.5}, "rate is 1.5"),
        ({"rate": -0.1}, "rate is -0.1"),
        ({"mask_share": 0.8, "random_share": 0.3}, "mask_share 0.8"),
        ({"max_targets": 0}, "max_targets is 0"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict, field: str) -> None:
    with pytest.raises(InputError, match=field):
        TokenMask(**settings)


def test_a_vocabulary_without_a_mask_symbol_is_refused() -> None:
    from elision.text.vocabulary import Vocabulary

    bare = Vocabulary(10, np.zeros(10, bool), np.zeros(10, bool), eos=0)
    with pytest.raises(InputError, match="no 'mask' token"):
        TokenMask().check(bare)
    NextToken().check(bare)
