"""Pairs of texts of which one is read and the other written, against pairs laid out by hand."""

import dataclasses

import numpy as np
import pytest

from elision.data.answers import written
from elision.data.mixing import LanguageMix
from elision.data.noise import GivenAnswer
from elision.data.segment import SourceTarget
from elision.data.store import Store
from elision.errors import InputError
from elision.text.tokenizer import ByteLevelBPE
from tests import tiny

WORDS = tiny.vocabulary(100)
END, CLS, SEP = WORDS.eos, WORDS.cls, WORDS.sep
SIZES = [(1, 1), (2, 9), (9, 2), (14, 15), (30, 1), (7, 7), (1, 30), (20, 20)]
PAIRS = [[[list(range(10, 10 + one))], [list(range(50, 50 + other))]] for one, other in SIZES]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Documents of one language, then pairs; shards are short, so that pairs lie in several."""
    made_with = tiny.tokenizer(ByteLevelBPE(300, layout="xlm"))
    folder = tmp_path_factory.mktemp("pairs")
    return tiny.id_store(folder, made_with, [[[5, 6, 7], [8, 9]]], languages=["cc"], pairs=PAIRS, shard_tokens=25)


def test_either_side_is_framed_by_itself_and_the_other_is_the_answer(store: Store) -> None:
    plan = SourceTarget(64).plan(store.split("train"), WORDS, seed=0)
    assert len(plan) == len(PAIRS) and not plan.contiguous
    for index, ((one,), (other,)) in enumerate(PAIRS):
        example = plan.example(index)
        assert example.inputs.tolist() == [*one, END]
        assert example.answer.tolist() == [*other, END]
        assert example.special.tolist() == [False] * len(one) + [True]
        assert example.languages.tolist() == [0] * (len(one) + 1)
        assert example.decoder_languages.tolist() == [1] * (len(other) + 1)
        assert example.targets is None and example.positions is None
        assert example.summary == len(other)


def test_the_frame_decides_which_symbols_stand_around_a_side(store: Store) -> None:
    example = SourceTarget(64, frame="roberta").plan(store.split("train"), WORDS, seed=0).example(1)
    assert example.inputs.tolist() == [CLS, 10, 11, SEP]
    assert example.answer.tolist() == [CLS, *range(50, 59), SEP]
    assert SourceTarget(frame="roberta").needs_roles == {"cls", "sep"}
    assert SourceTarget().needs_roles == {"eos"}


def test_both_directions_are_the_same_pairs_with_their_sides_exchanged(store: Store) -> None:
    plan = SourceTarget(64, both_directions=True).plan(store.split("train"), WORDS, seed=0)
    assert len(plan) == 2 * len(PAIRS)
    for index in range(len(PAIRS)):
        there, back = plan.example(index), plan.example(len(PAIRS) + index)
        assert back.inputs.tolist() == there.answer.tolist() and back.answer.tolist() == there.inputs.tolist()
        assert set(back.languages.tolist()) == {1} and set(back.decoder_languages.tolist()) == {0}


def test_a_pair_with_a_side_that_is_too_long_is_left_out_whole(store: Store) -> None:
    split = store.split("train")

    def sizes(settings: SourceTarget) -> list[tuple[int, int]]:
        plan = settings.plan(split, WORDS, seed=0)
        return [(len(e.inputs) - 1, len(e.answer) - 1) for e in map(plan.example, range(len(plan)))]

    assert sizes(SourceTarget(16)) == [(a, b) for a, b in SIZES if a <= 15 and b <= 15]
    assert sizes(SourceTarget(31, 16)) == [(a, b) for a, b in SIZES if b <= 15]
    both = sizes(SourceTarget(31, 16, both_directions=True))
    short = [(a, b) for a, b in SIZES if a <= 15 and b <= 15]
    assert both == short + [(b, a) for a, b in short]


def test_cutting_takes_the_end_of_a_side_and_leaves_its_symbols(store: Store) -> None:
    plan = SourceTarget(8, 5, too_long="cut").plan(store.split("train"), WORDS, seed=0)
    assert len(plan) == len(PAIRS)
    for index, ((one,), (other,)) in enumerate(PAIRS):
        assert plan.example(index).inputs.tolist() == [*one[:7], END]
        assert plan.example(index).answer.tolist() == [*other[:4], END]


def test_pairs_that_declare_no_language_are_pairs_all_the_same(tmp_path) -> None:
    made_with = tiny.tokenizer(ByteLevelBPE(300))
    store = tiny.id_store(tmp_path, made_with, [], pairs=PAIRS[:2], pair_languages=(None, None))
    example = SourceTarget(64).plan(store.split("train"), WORDS, seed=0).example(0)
    assert example.inputs.tolist() == [10, END] and example.answer.tolist() == [50, END]
    assert example.languages is None and example.decoder_languages is None


def test_with_no_noise_the_answer_is_written_from_the_start_symbol(store: Store) -> None:
    before = SourceTarget(64).plan(store.split("train"), WORDS, seed=0).example(1)
    noise = GivenAnswer()
    example = noise(before, WORDS, np.random.default_rng(0))
    assert noise.lengths(64) == SourceTarget(64).longest
    example = written(example, WORDS.pad)
    assert example.inputs.tolist() == [10, 11, END]
    assert example.decoder_inputs.tolist() == [WORDS.pad, *range(50, 59)]
    assert example.targets.tolist() == [*range(50, 59), END]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((1,), "max_length is 1: a token and what frames it need 2"),
        ((8, 9), r"max_answer_length is 9: it must be from 2 to max_length \(8\)"),
        ((8, 1), "max_answer_length is 1"),
    ],
)
def test_lengths_that_hold_no_token_or_longer_answers_than_sources_are_refused(settings, message) -> None:
    with pytest.raises(InputError, match=message):
        SourceTarget(*settings)


def test_stores_without_a_pair_that_fits_are_refused_with_what_to_do(store: Store, wordpiece_store: Store) -> None:
    with pytest.raises(InputError, match=r"holds no translations: prepare it with .*--parallel"):
        SourceTarget(24).plan(wordpiece_store.split("train"), WORDS, 0)
    with pytest.raises(InputError, match="holds no translations"):
        LanguageMix(0.5).plan(SourceTarget(24), wordpiece_store.split("train"), WORDS, 0)
    only = dataclasses.replace(WORDS, eos=None)
    with pytest.raises(InputError, match="no 'eos' token"):
        SourceTarget(24).plan(store.split("train"), only, 0)


def test_pairs_of_languages_are_mixed_each_by_itself(store: Store) -> None:
    split = store.split("train")
    codes = split.language_codes.copy()
    codes[split.pair_starts[:2]], codes[split.pair_starts[:2] + 1] = 1, 0
    split.__dict__["language_codes"] = codes
    plan = LanguageMix(alpha=0.5).plan(SourceTarget(64), split, WORDS, 0)
    assert plan.languages == ("aa-bb", "bb-aa") and [len(part) for part in plan.parts] == [6, 2]
    np.testing.assert_allclose(plan.shares, np.sqrt([6, 2]) / np.sqrt([6, 2]).sum())
    assert set(plan.example(7).languages.tolist()) == {1} and set(plan.example(7).decoder_languages.tolist()) == {0}
