"""Translation word by word, as a trivial rival."""

import pytest

from elision.tasks.dictionary import Dictionary, words

PAIRS = [
    ("the house", "das Haus"),
    ("the book", "das Buch"),
    ("a book", "ein Buch"),
    ("The book.", "Das Buch."),
]


def test_the_textbook_example_of_model_1_comes_out() -> None:
    # Brown et al.'s model finds that "house" is "Haus", though each stands beside "das" as often.
    found = Dictionary.fit(PAIRS).words
    assert found == {"the": "das", "house": "Haus", "book": "Buch", "a": "ein", ".": "."}


def test_spaces_unknown_words_and_the_capital_of_the_first_word_stay() -> None:
    assert Dictionary.fit(PAIRS)("A house, the  BOOK.") == "Ein Haus, das Buch."


def test_letters_of_scripts_without_spaces_are_words() -> None:
    assert words("10,5 中文!") == ["10", ",", "5", "中", "文", "!"]
    translate = Dictionary.fit([("中 文", "middle text"), ("中", "middle")])
    assert translate("中文") == "middle text"


def test_nothing_to_learn_from_leaves_texts_as_they_are() -> None:
    assert Dictionary.fit([])("as it was") == "as it was"
    assert Dictionary.fit([("", "x")])("as it was") == "as it was"


def test_no_more_word_pairs_are_counted_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elision.tasks.dictionary.MAX_PAIRS", 3)
    assert "a" not in Dictionary.fit(PAIRS).words
