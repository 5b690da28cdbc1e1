"""SQuAD's measures on examples worked out by hand."""

import pytest

from elision.errors import InputError
from elision.tasks.answer_scores import check_answer_metric, exact_match, measure_answers, normalised, overlap_f1


def test_case_punctuation_articles_and_spaces_do_not_count() -> None:
    assert normalised("The  Answer, an (odd) one!") == "answer odd one"
    # Removed without a space, as in the official script.
    assert normalised("well-known U.S.") == "wellknown us"
    assert normalised("Theatre banana") == "theatre banana"
    assert exact_match("the Cat.", "cat") == 1.0 and exact_match("cats", "cat") == 0.0


def test_f1_counts_common_words_as_often_as_both_have_them() -> None:
    assert overlap_f1("in the year 1813", "1813") == pytest.approx(2 * 1 / (3 + 1))
    assert overlap_f1("b b c", "b c c") == pytest.approx(2 * 2 / 6)
    assert overlap_f1("", "") == 1.0 and overlap_f1("the", "") == 1.0 and overlap_f1("", "x") == 0.0
    assert overlap_f1("x", "y") == 0.0
    assert overlap_f1("1989년에", "1989년") == 0.0
    assert overlap_f1("1989년에", "1989년", characters=True) == pytest.approx(2 * 5 / 11)


def test_the_best_of_several_true_answers_counts_and_absence_is_an_empty_answer() -> None:
    values = measure_answers([["Jane Austen", "Austen"], ["1813"]], ["Austen", "in 1813"])
    assert values["exact_match"] == 0.5 and values["f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert set(values) == {"f1", "exact_match", "character_f1"}
    values = measure_answers([["x"], [], []], ["x", "", "y"])
    assert values["f1"] == pytest.approx(2 / 3) and values["f1_where_answered"] == 1.0
    assert values["seen_unanswerable"] == 0.5


def test_an_unknown_measure_is_refused() -> None:
    assert check_answer_metric(None) == "f1" and check_answer_metric("character_f1") == "character_f1"
    with pytest.raises(InputError, match="answers have f1, exact_match, character_f1"):
        check_answer_metric("em")
