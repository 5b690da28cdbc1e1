"""Pairs of translations as examples, and XLM's masks over them, against plain loops."""

import collections

import numpy as np
import pytest

from elision.data.batch import collate
from elision.data.example import NO_TARGET, Example
from elision.data.mixing import LanguageMix
from elision.data.noise import BernoulliMask
from elision.data.segment import TranslationPairs
from elision.data.segment.parallel import kept
from elision.data.store import Store
from elision.errors import InputError
from elision.text.tokenizer import ByteLevelBPE
from tests import tiny

WORDS = tiny.vocabulary(100)
CLS, SEP = WORDS.cls, WORDS.sep
SIZES = [(1, 1), (2, 9), (9, 2), (14, 15), (30, 1), (7, 7), (1, 30), (20, 20)]
PAIRS = [
    [[list(range(10, 10 + one))], [list(range(50, 50 + other))]]
    for one, other in SIZES
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Documents of one language, then pairs; shards are short, so that pairs lie in several."""
    made_with = tiny.tokenizer(ByteLevelBPE(300, layout="xlm"))
    folder = tmp_path_factory.mktemp("pairs")
    documents = [[[5, 6, 7], [8, 9]], [[60, 61]]]
    return tiny.id_store(folder, made_with, documents, languages=["aa", "cc"], pairs=PAIRS, shard_tokens=25)


def by_hand(one: list[int], other: list[int], room: int, restart: bool) -> tuple[list[int], list[int], list[int]]:
    """Return tokens, positions and languages of a pair, written as the paper draws it; the longer side is cut first."""
    one, other = list(one), list(other)
    while len(one) + len(other) > room:
        side = one if len(one) > len(other) else other
        side.pop()
    first = [CLS, *one, SEP] if restart else [CLS, *one]
    second = [SEP, *other, SEP]
    positions = [*range(len(first)), *range(len(second))] if restart else [*range(len(first) + len(second))]
    return first + second, positions, [0] * len(first) + [1] * len(second)


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("max_length", [6, 7, 16, 24, 64])
def test_a_pair_is_laid_out_as_drawn_by_hand(store: Store, max_length: int, restart: bool) -> None:
    plan = TranslationPairs(max_length, restart_positions=restart).plan(store.split("train"), WORDS, seed=0)
    assert len(plan) == len(PAIRS) and not plan.contiguous
    for index, ((one,), (other,)) in enumerate(PAIRS):
        example = plan.example(index)
        room = max_length - (4 if restart else 3)
        tokens, positions, languages = by_hand(one, other, room, restart)
        if len(one) + len(other) > room and min(len(one), len(other)) >= room // 2:
            # Of two long sides either may give the odd token.
            assert len(example) == len(tokens) and abs(np.sum(example.languages) - sum(languages)) <= 1
            continue
        assert example.inputs.tolist() == tokens
        assert example.positions.tolist() == positions
        assert example.languages.tolist() == languages
        assert example.special.tolist() == [token in (CLS, SEP) for token in tokens]


def test_positions_count_from_0_twice_and_four_separators_stand_around_the_sides(store: Store) -> None:
    """Where one symbol begins and ends a text, as in XLM's vocabulary."""
    words = store.tokenizer.vocabulary
    assert words.cls == words.sep
    plan = TranslationPairs(24).plan(store.split("train"), words, seed=0)
    for index in range(len(plan)):
        example = plan.example(index)
        assert (example.inputs == words.sep).sum() == 4
        (restart,) = np.flatnonzero(example.positions[1:] == 0) + 1
        assert example.positions[:restart].tolist() == list(range(restart))
        assert example.positions[restart:].tolist() == list(range(len(example) - restart))
        assert example.inputs[[0, restart - 1, restart, -1]].tolist() == [words.sep] * 4
        assert (np.flatnonzero(np.diff(example.languages)) == restart - 1).all()


def test_both_directions_are_the_same_pairs_with_their_sides_exchanged(store: Store) -> None:
    split = store.split("train")
    there = TranslationPairs(64).plan(split, WORDS, 0)
    both = TranslationPairs(64, both_directions=True).plan(split, WORDS, 0)
    assert len(both) == 2 * len(there)
    for index in range(len(there)):
        assert both.example(index).inputs.tolist() == there.example(index).inputs.tolist()
        (one, language), (other, other_language) = both.sides(len(there) + index)
        (first, first_language), (second, second_language) = there.sides(index)
        assert one.tolist() == second.tolist() and other.tolist() == first.tolist()
        assert (language, other_language) == (second_language, first_language)


def test_what_stays_of_a_long_pair_fits_exactly_and_the_longer_side_loses_first() -> None:
    for one in range(1, 12):
        for other in range(1, 12):
            for room in range(2, 24):
                left, right = kept(one, other, room)
                assert left + right == min(one + other, room) and 1 <= left <= one and 1 <= right <= other
                if left < one and right < other:
                    assert abs(left - right) <= 1


def test_packed_pairs_keep_their_positions_and_are_one_document_each(store: Store) -> None:
    plan = TranslationPairs(24).plan(store.split("train"), WORDS, 0)
    examples = [plan.example(index) for index in range(4)]
    batch = collate(examples, pad_id=0, row_length=64)
    assert batch.inputs.shape[0] < 4
    for index, place in zip(batch.examples, batch.summary_at.tolist()):
        row, begin = divmod(place, 64)
        here = slice(begin, begin + len(examples[index]))
        assert batch.positions[row, here].tolist() == examples[index].positions.tolist()
        assert batch.languages[row, here].tolist() == examples[index].languages.tolist()
        assert len(batch.doc_ids[row, here].unique()) == 1


def test_a_store_without_translations_is_refused_with_what_makes_one(wordpiece_store: Store) -> None:
    with pytest.raises(InputError, match=r"holds no translations: prepare it with .*--parallel"):
        TranslationPairs(24).plan(wordpiece_store.split("train"), WORDS, 0)
    with pytest.raises(InputError, match="holds no translations"):
        LanguageMix(0.5).plan(TranslationPairs(24), wordpiece_store.split("train"), WORDS, 0)
    with pytest.raises(InputError, match="max_length is 5"):
        TranslationPairs(5)


def test_pairs_of_languages_are_drawn_by_the_alpha_th_power_of_their_share(tmp_path) -> None:
    made_with = tiny.tokenizer(ByteLevelBPE(300))
    pairs = [[[[10, 11]], [[12, 13]]]] * 90
    store = tiny.id_store(tmp_path, made_with, [[[5]]], languages=["zz"], pairs=pairs)
    split = store.split("train")
    # Ten of the pairs become pairs of other languages.
    codes = split.language_codes.copy()
    codes[split.pair_starts[:10]], codes[split.pair_starts[:10] + 1] = 1, 0
    split.__dict__["language_codes"] = codes
    plan = LanguageMix(alpha=0.7).plan(TranslationPairs(24), split, WORDS, 0)
    assert plan.languages == ("aa-bb", "bb-aa")
    _, indices = plan.order(np.arange(20_000), seed=3)
    drawn = np.bincount([plan.part_of(index) for index in indices]) / len(indices)
    expected = np.array([80.0, 10.0]) ** 0.7
    np.testing.assert_allclose(drawn, expected / expected.sum(), atol=0.01)


def noised(length: int, number: int, noise: BernoulliMask) -> tuple[np.ndarray, list[Example]]:
    inputs = np.arange(length, dtype=np.int64) % 80 + 10
    inputs[::7] = SEP
    before = Example(inputs, inputs == SEP)
    rng = np.random.default_rng(0)
    return inputs, [noise(before, WORDS, rng) for _ in range(number)]


def test_every_place_but_the_first_is_a_target_with_the_same_probability_separators_too() -> None:
    before, after = noised(40, 4000, BernoulliMask(rate=0.15))
    share = np.mean([example.targets != NO_TARGET for example in after], 0)
    assert share[0] == 0
    # Four standard deviations of a share of 0.15 in 4,000 draws.
    np.testing.assert_allclose(share[1:], 0.15, atol=4 * np.sqrt(0.15 * 0.85 / 4000))
    assert (before[7:] == SEP).any() and share[7] > 0
    # Each place by itself: how many there are is spread as coins are.
    counts = np.array([(example.targets != NO_TARGET).sum() for example in after])
    assert abs(counts.var() / (39 * 0.15 * 0.85) - 1) < 0.1


def test_eight_in_ten_targets_are_masked_and_one_is_any_token_of_the_whole_vocabulary() -> None:
    before, after = noised(40, 6000, BernoulliMask(rate=0.3))
    fates: collections.Counter[str] = collections.Counter()
    strays: collections.Counter[int] = collections.Counter()
    for example in after:
        picked = example.targets != NO_TARGET
        assert (example.inputs[~picked] == before[~picked]).all() and (example.targets[picked] == before[picked]).all()
        for read, true in zip(example.inputs[picked], before[picked]):
            fates["mask" if read == WORDS.mask else "kept" if read == true else "stray"] += 1
            strays[int(read)] += read not in (WORDS.mask, true)
    total = sum(fates.values())
    # A stray token is the mask or the true one with probability 1/100 each.
    assert abs(fates["mask"] / total - 0.801) < 0.01
    assert abs(fates["stray"] / total - 0.098) < 0.01
    assert strays[WORDS.pad] > 0 and strays[WORDS.cls] > 0 and strays[99] > 0
