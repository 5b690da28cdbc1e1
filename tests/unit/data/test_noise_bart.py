"""BART's noises: literal, each alone and all together, and what rates they really have in many draws."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from elision.data.example import Example
from elision.data.noise import Denoising
from elision.data.noise.bart import pick_rotation, pick_share, rewrite_inserted, rotated
from elision.data.noise.infilling import draw_span_sizes, kept_beside, pick_infilled, span_size_probabilities
from elision.data.noise.sentence_permutation import pick_sentence_order, places_of, sentence_bounds
from elision.data.order import generator
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary

MASK, STOP, SIZE = 4, 9, 1000
_IDS = np.arange(SIZE)
VOCABULARY = Vocabulary(
    SIZE, _IDS < 6, _IDS >= 600, pad=1, unk=3, cls=0, sep=2, mask=MASK, full_stop=_IDS == STOP, spaceless=_IDS < 0
)
NOTHING = Denoising(permute_sentences=0, infill=0, random_share=0)


def example(*tokens: int) -> Example:
    """<s> tokens </s>; 2 between them is special too."""
    inputs = np.array([0, *tokens, 2])
    return Example(inputs, VOCABULARY.special[inputs])


def noised(noise: Denoising, *tokens: int, draw: int = 0) -> list[int]:
    return noise(example(*tokens), VOCABULARY, generator(1, "noise", draw)).inputs.tolist()


# --- sentence permutation ---


def test_a_full_stop_ends_a_sentence_unless_it_follows_one_and_the_last_token_counts_as_one() -> None:
    # a . b . . c d: the second of two full stops leads the next sentence.
    assert sentence_bounds(np.array([0, 1, 0, 1, 1, 0, 0], bool)).tolist() == [0, 2, 4, 7]
    # a . b: the last token follows a full stop.
    assert sentence_bounds(np.array([0, 1, 0], bool)).tolist() == [0, 2]
    assert sentence_bounds(np.array([0, 0, 0], bool)).tolist() == [0, 3]
    assert sentence_bounds(np.array([], bool)).tolist() == [0]


def test_a_second_full_stop_at_the_very_end_stays_there() -> None:
    assert sentence_bounds(np.array([0, 1, 0, 1, 1], bool)).tolist() == [0, 2, 4]
    noise = dataclasses.replace(NOTHING, permute_sentences=1.0)
    seen = {tuple(noised(noise, 10, STOP, 11, STOP, STOP, draw=draw)) for draw in range(30)}
    assert seen == {(0, 10, 9, 11, 9, 9, 2), (0, 11, 9, 10, 9, 9, 2)}


def test_three_sentences_in_a_given_order() -> None:
    assert places_of(np.array([0, 2, 3, 6]), np.array([2, 0, 1])).tolist() == [3, 4, 5, 0, 1, 2]


def test_all_orders_of_three_sentences_are_equally_likely_and_the_ends_stay() -> None:
    noise = dataclasses.replace(NOTHING, permute_sentences=1.0)
    counts: dict[tuple[int, ...], int] = {}
    for draw in range(6000):
        text = tuple(noised(noise, 10, 11, STOP, 12, STOP, 13, 14, draw=draw))
        assert text[0] == 0 and text[-1] == 2
        counts[text] = counts.get(text, 0) + 1
    assert len(counts) == 6
    assert (0, 13, 14, 12, 9, 10, 11, 9, 2) in counts
    assert max(abs(count - 1000) for count in counts.values()) < 4.5 * math.sqrt(6000 / 6 * 5 / 6)


def test_sentence_permutation_preserves_the_multiset_of_tokens_and_the_inside_of_sentences() -> None:
    rng = np.random.default_rng(0)
    for draw in range(300):
        tokens = np.where(rng.random(40) < 0.2, STOP, rng.integers(10, SIZE, 40))
        after = noised(dataclasses.replace(NOTHING, permute_sentences=1.0), *tokens, draw=draw)
        assert sorted(after[1:-1]) == sorted(tokens)
        bounds = sentence_bounds(tokens == STOP)
        for begin, end in itertools.pairwise(bounds):
            sentence = tokens[begin:end].tolist()
            assert any(after[at : at + len(sentence)] == sentence for at in range(len(after)))


def test_only_a_share_of_the_sentences_rounded_up_is_moved() -> None:
    bounds = np.arange(8)
    moved = [
        int((pick_sentence_order(bounds, 0.25, np.random.default_rng(i)) != np.arange(7)).sum()) for i in range(300)
    ]
    # ceil(0.25 * 7) = 2 sentences trade places, or get their own back.
    assert set(moved) == {0, 2}


def test_question_and_exclamation_marks_do_not_end_a_sentence() -> None:
    # Only ids that the vocabulary says are full stops do: two "sentences" that end with other marks are one.
    assert noised(dataclasses.replace(NOTHING, permute_sentences=1.0), 10, 8, 11, 7) == [0, 10, 8, 11, 7, 2]


def test_with_separators_as_ends_a_sentence_moves_with_its_separator_and_full_stops_do_not_matter() -> None:
    noise = dataclasses.replace(NOTHING, permute_sentences=1.0, sentence_end="separator")
    tokens = np.array([0, 10, STOP, 11, 2, 12, 2, 500])
    special = np.isin(tokens, [0, 2, 500])  # 500: a language at the end
    seen = {
        tuple(noise(Example(tokens, special), VOCABULARY, generator(1, "noise", draw)).inputs.tolist())
        for draw in range(30)
    }
    assert seen == {(0, 10, 9, 11, 2, 12, 2, 500), (0, 12, 2, 10, 9, 11, 2, 500)}


# --- infilling ---


def test_sizes_are_poisson_cut_off_where_they_are_negligible() -> None:
    probabilities = span_size_probabilities(3.0)
    assert abs(probabilities.sum() - 1) < 1e-12
    assert abs(probabilities[0] - math.exp(-3)) < 1e-6 and abs(probabilities[3] - math.exp(-3) * 27 / 6) < 1e-6
    assert abs(probabilities @ np.arange(len(probabilities)) - 3) < 1e-5
    assert math.exp(-3) * 3 ** len(probabilities) / math.factorial(len(probabilities)) < 1e-7
    # A large mean is not cut off before its peak.
    assert np.argmax(span_size_probabilities(30.0)) in (29, 30)
    assert span_size_probabilities(0.0)[0] == 1


def test_sizes_sum_to_the_budget_exactly_and_empty_ones_are_counted_apart() -> None:
    probabilities = span_size_probabilities(3.0)
    for draw in range(500):
        sizes, num_empty = draw_span_sizes(153, probabilities, np.random.default_rng(draw))
        assert sizes.sum() == 153 and (sizes > 0).all() and 0 <= num_empty <= 77
    assert draw_span_sizes(0, probabilities, np.random.default_rng(0))[1] == 0
    for draw in range(500):
        # The smallest budgets are used up, too.
        assert draw_span_sizes(1, probabilities, np.random.default_rng(draw))[0].tolist() == [1]


def test_with_a_mean_of_zero_there_are_only_inserts_half_as_many_as_words_to_leave_out() -> None:
    sizes, num_empty = draw_span_sizes(10, span_size_probabilities(0.0), np.random.default_rng(0))
    assert len(sizes) == 0 and num_empty == 5
    noise = dataclasses.replace(NOTHING, infill=0.3, mean_words=0.0)
    after = noised(noise, *range(10, 30))
    assert after.count(MASK) == 3 and [token for token in after if token != MASK] == [0, *range(10, 30), 2]
    assert len(after) == 22 + 3


def test_of_a_span_its_first_token_remains_and_a_span_that_begins_within_another_disappears() -> None:
    assert kept_beside(np.array([[1, 3]]), 5).tolist() == [True, True, False, True, True]
    assert kept_beside(np.array([[1, 3], [2, 5]]), 6).tolist() == [True, True, False, False, False, True]
    assert kept_beside(np.empty((0, 2), np.int64), 2).tolist() == [True, True]


def test_spans_are_whole_words_and_stop_at_the_end_of_the_text() -> None:
    # 10+600+601, 11, 12+602: three words of 3, 1 and 2 tokens.
    begins_word = np.array([1, 0, 0, 1, 1, 0], bool)
    fixed = np.array([0.0, 0.0, 1.0])  # always two words
    seen = set()
    for draw in range(50):
        spans, num_empty = pick_infilled(begins_word, 0.5, fixed, np.random.default_rng(draw))
        assert num_empty == 0 and len(spans) == 1
        seen.add(tuple(spans[0].tolist()))
    assert seen == {(0, 4), (3, 6), (4, 6)}


def test_one_mask_stands_for_a_whole_word_of_several_tokens() -> None:
    noise = dataclasses.replace(NOTHING, infill=0.5, mean_words=100.0)
    seen = {tuple(noised(noise, 10, 600, 11, 601, 602, 12, draw=draw)) for draw in range(200)}
    # Two words of three are drawn as one span, which stops at the end of the text.
    assert seen == {(0, 4, 12, 2), (0, 10, 600, 4, 2), (0, 10, 600, 11, 601, 602, 4, 2)}


def test_every_symbol_of_a_script_without_spaces_is_a_word() -> None:
    spaceless = dataclasses.replace(VOCABULARY, spaceless=_IDS >= 600)
    noise = dataclasses.replace(NOTHING, infill=0.5, mean_words=100.0)
    tokens = example(10, 600, 601, 602)
    with_spaces = [noise(tokens, VOCABULARY, generator(1, "noise", draw)).inputs for draw in range(200)]
    without = [noise(tokens, spaceless, generator(1, "noise", draw)).inputs for draw in range(200)]
    # One word: it is always left out as a whole.
    assert not any(np.isin(inputs, [10, 600, 601, 602]).any() for inputs in with_spaces)
    assert any(602 in inputs and 600 not in inputs for inputs in without)


def test_infilling_never_touches_the_symbols_at_the_ends() -> None:
    noise = Denoising(infill=1.0, rotate=0.5, insert=0.1, delete=0.3, mask=0.2)
    for draw in range(500):
        after = noised(noise, *range(10, 40), draw=draw)
        assert after[0] == 0 and after[-1] == 2


def test_the_length_is_that_of_the_text_less_what_was_covered_and_more_masks_and_inserts() -> None:
    noise = dataclasses.replace(NOTHING, infill=0.3)
    rng, clean = np.random.default_rng(3), np.arange(10, 110)
    for _ in range(300):
        seed = int(rng.integers(1 << 30))
        spans, num_empty = pick_infilled(
            np.ones(100, bool), 0.3, span_size_probabilities(3.0), np.random.default_rng(seed)
        )
        covered = np.zeros(100, bool)
        for begin, end in spans:
            covered[begin:end] = True
        num_masks = int(kept_beside(spans, 100)[spans[:, 0]].sum())
        after = noise(example(*clean), VOCABULARY, np.random.default_rng(seed)).inputs
        assert len(after) == 102 - covered.sum() + num_masks + num_empty
        assert (after == MASK).sum() == num_masks + num_empty


def test_510_words_at_030_cover_267_per_thousand_behind_40_masks_and_are_416_tokens_long() -> None:
    # ceil(0.3 * 510) = 153 words are drawn; overlaps leave fewer.
    noise, draws = dataclasses.replace(NOTHING, infill=0.3), 3000
    text = np.arange(10, 520)
    masks, lengths, left, inserts = [], [], [], []
    for draw in range(draws):
        after = noise(example(*text), VOCABULARY_OF_WORDS, generator(5, "noise", draw)).inputs[1:-1]
        masks.append((after == MASK).sum())
        lengths.append(len(after))
        left.append(np.isin(text, after).sum())
        inserts.append(draw_span_sizes(153, span_size_probabilities(3.0), generator(6, "noise", draw))[1])
    assert abs(1 - np.mean(left) / 510 - 0.267) < 0.002
    assert abs(np.mean(inserts) - 2.6) < 0.15
    assert abs(np.mean(masks) - np.mean(inserts) - 40) < 0.5
    assert abs(np.mean(lengths) - 416) < 1


VOCABULARY_OF_WORDS = dataclasses.replace(VOCABULARY, continues_word=_IDS < 0)


def test_a_tenth_of_the_masks_are_random_tokens_other_than_id_zero() -> None:
    noise = Denoising(permute_sentences=0, infill=0.3, random_share=0.1)
    random = total = 0
    for draw in range(2000):
        after = noised(noise, *[300] * 100, draw=draw)[1:-1]
        strange = [token for token in after if token not in (MASK, 300)]
        assert 0 not in strange
        random, total = random + len(strange), total + len(strange) + after.count(MASK)
    # Each mask of a span by itself; of the inserts of an example, half of which have one or more, one at least.
    assert 0.1 < random / total < 0.15


# --- the others, each alone ---


def test_mask_takes_exactly_its_share_rounded_up_and_keeps_the_length() -> None:
    noise = dataclasses.replace(NOTHING, mask=0.15)
    places = np.zeros(20)
    for draw in range(10_000):
        after = noised(noise, *range(10, 30), draw=draw)
        assert len(after) == 22 and after.count(MASK) == 3
        places += np.array(after[1:-1]) == MASK
    assert (abs(places / 10_000 - 0.15) < 4.5 * math.sqrt(0.15 * 0.85 / 10_000)).all()
    assert len(pick_share(21, 0.15, np.random.default_rng(0))) == 4


def test_delete_removes_exactly_its_share_without_a_trace_and_keeps_the_order() -> None:
    after = noised(dataclasses.replace(NOTHING, delete=0.15), *range(10, 30))
    assert len(after) == 22 - 3 and after == [*sorted(after[:-1]), 2] and MASK not in after
    assert noised(dataclasses.replace(NOTHING, delete=1.0), 10, 11) == [0, 2]


def test_insert_puts_masks_between_the_ends_as_a_share_of_all_tokens() -> None:
    noise = dataclasses.replace(NOTHING, insert=0.1)
    firsts = 0
    for draw in range(4000):
        after = noised(noise, *range(10, 28), draw=draw)
        assert len(after) == 22 and after[0] == 0 and after[-1] == 2 and after.count(MASK) == 2
        assert [token for token in after if token != MASK] == [0, *range(10, 28), 2]
        firsts += after[1] == MASK
    # Any two of the 20 places within.
    assert abs(firsts / 4000 - 0.1) < 4.5 * math.sqrt(0.09 / 4000)


def test_inserted_tokens_stand_at_their_places_of_the_longer_text() -> None:
    assert rewrite_inserted(np.array([10, 11]), np.array([1, 3]), np.array([4, 99])).tolist() == [10, 4, 11, 99]


def test_rotation_by_nothing_and_by_the_whole_text_is_the_identity() -> None:
    assert rotated(4, 0).tolist() == rotated(4, 4).tolist() == [0, 1, 2, 3]
    assert rotated(4, 3).tolist() == [3, 0, 1, 2]
    assert pick_rotation(0, np.random.default_rng(0)).tolist() == []


def test_rotation_begins_anywhere_with_the_given_probability_and_keeps_the_ends() -> None:
    noise = dataclasses.replace(NOTHING, rotate=0.5)
    counts = dict.fromkeys((10, 11, 12, 13), 0)
    for draw in range(10_000):
        after = noised(noise, 10, 11, 12, 13, draw=draw)
        begin = after[1] - 10
        assert after == [0, *(10 + (begin + i) % 4 for i in range(4)), 2]
        counts[after[1]] += 1
    # Half stay; of the others each of 5 offsets, two of which change nothing.
    expected = {10: 0.5 + 0.5 * 2 / 5, 11: 0.1, 12: 0.1, 13: 0.1}
    for first, probability in expected.items():
        assert abs(counts[first] / 10_000 - probability) < 4.5 * math.sqrt(probability * (1 - probability) / 10_000)


# --- together ---


def test_all_off_leaves_the_text_as_it_is() -> None:
    assert noised(NOTHING, 10, STOP, 11) == [0, 10, STOP, 11, 2]


def test_the_answer_is_the_clean_example_with_the_symbols_that_frame_it() -> None:
    noise = Denoising(delete=0.1, insert=0.1, mask=0.1, rotate=1.0)
    given = example(10, 11, STOP, 12, 13, 600)
    before = given.inputs.copy()
    after = noise(given, VOCABULARY, generator(1, "noise"))
    assert after.answer.tolist() == before.tolist() == given.inputs.tolist()
    assert after.targets is None and len(after.special) == len(after.inputs)
    assert noise.restores == "sequence"


def test_the_noise_is_a_pure_function_of_the_generator() -> None:
    noise = Denoising(delete=0.1, insert=0.1, mask=0.1, rotate=0.5)
    same = [noised(noise, *range(10, 60), draw=7) for _ in range(2)]
    assert same[0] == same[1] != noised(noise, *range(10, 60), draw=8)


def test_noises_follow_each_other_permutation_first_rotation_last() -> None:
    # Two sentences exchanged, then the text begun elsewhere: an order that rotation before permutation could not give.
    noise = dataclasses.replace(NOTHING, permute_sentences=1.0, rotate=1.0)
    seen = {tuple(noised(noise, 10, 11, STOP, 12, STOP, draw=draw)) for draw in range(200)}
    assert (0, 11, 9, 12, 9, 10, 2) in seen and (0, 9, 10, 11, 9, 12, 2) in seen
    assert all(text.count(STOP) == 2 for text in seen)


def test_words_of_a_moved_sentence_still_begin_where_they_did() -> None:
    # 600 begins the second sentence (it follows a symbol), though elsewhere it would continue a word.
    noise = dataclasses.replace(NOTHING, permute_sentences=1.0, infill=0.2, mean_words=1.0, sentence_end="separator")
    seen = {tuple(noised(noise, 10, 2, 600, 2, draw=draw)) for draw in range(300)}
    # <s> 600 </s> 10 </s> with 600 alone left out: it is a word by itself, also at the front.
    assert (0, 4, 2, 10, 2, 2) in seen and (0, 10, 2, 4, 2, 2) in seen


@pytest.mark.parametrize(
    "noise",
    [
        Denoising(),
        Denoising(infill=1.0, mean_words=0.0, insert=1.0),
        Denoising(infill=0.35, mean_words=0.1, mask=0.5, delete=0.5, insert=0.2, rotate=1.0),
        Denoising(infill=0.0, insert=0.33),
    ],
)
@pytest.mark.parametrize("length", [2, 3, 4, 9, 50])
def test_no_example_becomes_longer_than_promised(noise: Denoising, length: int) -> None:
    most_inputs, most_answer = noise.lengths(length)
    longest = 0
    for draw in range(200):
        after = noise(example(*range(10, 8 + length)), VOCABULARY, generator(2, "noise", draw))
        longest = max(longest, len(after))
        assert len(after.inputs) <= most_inputs and len(after.answer) <= most_answer
    if noise.mean_words == 0:
        # With inserts only the promise is as good as kept to the token.
        assert most_inputs - longest <= 4


def test_an_example_without_text_is_left_alone_but_for_inserts() -> None:
    assert noised(Denoising(delete=1.0, rotate=1.0)) == [0, 2]
    assert noised(Denoising(permute_sentences=0, infill=0, insert=0.5, random_share=0)) == [0, 4, 2]


def test_languages_go_with_the_tokens() -> None:
    noise = Denoising(insert=0.2, delete=0.1, rotate=1.0)
    given = dataclasses.replace(example(*range(10, 60)), languages=np.full(52, 3))
    after = noise(given, VOCABULARY, generator(1, "noise"))
    assert after.languages.tolist() == [3] * len(after) and after.decoder_languages.tolist() == [3] * 52


def test_what_stands_in_for_a_token_is_no_special_symbol_of_the_frame() -> None:
    after = Denoising(infill=1.0)(example(10, 2, 11), VOCABULARY, generator(1, "noise"))
    assert after.special[0] and after.special[-1] and not after.special[after.inputs == MASK].any()


@pytest.mark.parametrize("name", ["permute_sentences", "infill", "mask", "delete", "insert", "rotate", "random_share"])
def test_shares_outside_zero_to_one_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is 1.5"):
        Denoising(**{name: 1.5})


def test_a_vocabulary_without_mask_or_full_stop_is_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match="'mask'"):
        Denoising().check(dataclasses.replace(VOCABULARY, mask=None))
    with pytest.raises(InputError, match="separator"):
        Denoising().check(dataclasses.replace(VOCABULARY, full_stop=_IDS < 0))
    Denoising(permute_sentences=0, infill=0, delete=0.15).check(
        dataclasses.replace(VOCABULARY, mask=None, full_stop=None)
    )
    with pytest.raises(InputError, match="mean_words is -1"):
        Denoising(mean_words=-1)
