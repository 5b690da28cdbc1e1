"""mBART's translations: each side ends with the symbol of its language."""

import dataclasses

import pytest

from elision.data.answers import written
from elision.data.mixing import LanguageMix
from elision.data.segment import LanguagePairs
from elision.data.store import Store
from elision.errors import InputError
from elision.text.tokenizer import ByteLevelBPE
from tests import tiny

AA, BB = 70, 71
WORDS = dataclasses.replace(tiny.vocabulary(100), symbols={"aa_XX": AA, "[bb]": BB})
END = WORDS.eos
PAIRS = [[[[10, 11]], [[20]]], [[[12]], [[21, 22, 23, 24]]]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made_with = tiny.tokenizer(ByteLevelBPE(300, layout="xlm"))
    return tiny.id_store(tmp_path_factory.mktemp("pairs"), made_with, [[[5, 6]]], languages=["cc"], pairs=PAIRS)


def test_each_side_ends_with_its_language_and_the_decoder_begins_with_that_of_its_own(store: Store) -> None:
    plan = LanguagePairs(max_length=16).plan(store.split("train"), WORDS, 0)
    assert len(plan) == 2 and plan.languages == ("aa", "bb")
    example = written(plan.example(0), None)
    assert example.inputs.tolist() == [10, 11, END, AA] and example.special.tolist() == [False, False, True, True]
    assert example.targets.tolist() == [20, END, BB] and example.decoder_inputs.tolist() == [BB, 20, END]
    assert len(example.languages) == 4 and len(example.decoder_languages) == 3
    # The last thing written stands for the whole.
    assert example.summary == 2


def test_both_directions_exchange_the_languages_too(store: Store) -> None:
    plan = LanguagePairs(max_length=16, both_directions=True).plan(store.split("train"), WORDS, 0)
    assert plan.example(2).inputs.tolist() == [20, END, BB] and plan.example(2).answer.tolist() == [10, 11, END, AA]
    mixed = LanguageMix(alpha=0.5).plan(LanguagePairs(max_length=16), store.split("train"), WORDS, 0)
    assert mixed.languages == ("aa-bb",) and mixed.example(0).inputs[-1] == AA


@pytest.mark.parametrize("too_long", ["cut", "leave out"])
def test_no_side_is_longer_than_allowed_and_what_is_cut_keeps_its_symbols(store: Store, too_long: str) -> None:
    plan = LanguagePairs(max_length=4, too_long=too_long).plan(store.split("train"), WORDS, 0)
    answers = [plan.example(index).answer.tolist() for index in range(len(plan))]
    assert answers == ([[20, END, BB], [21, 22, END, BB]] if too_long == "cut" else [[20, END, BB]])


def test_languages_without_a_symbol_and_sides_without_room_are_refused(store: Store) -> None:
    with pytest.raises(InputError, match="no symbol for the language bb"):
        LanguagePairs().plan(store.split("train"), dataclasses.replace(WORDS, symbols={"aa": AA}), 0)
    with pytest.raises(InputError, match="need 3"):
        LanguagePairs(max_length=2)
