"""Labels and how texts are framed."""

import numpy as np
import pytest

from elision.data.frame import FRAMES
from elision.errors import InputError
from elision.tasks.encoding import Encoding, keep
from elision.tasks.labelled import Row, choose_task, classes, scores
from tests import tiny

VOCABULARY = tiny.vocabulary(40)
CLS, SEP, EOS = 2, 3, 5


def framed(first: list[int], second: list[int] | None, max_length: int, causal: bool) -> tuple:
    encoding = Encoding(VOCABULARY, max_length, FRAMES["causal" if causal else "bert"], num_types=0 if causal else 2)
    example = encoding(np.array(first, np.int32), None if second is None else np.array(second, np.int32))
    types = None if example.type_ids is None else example.type_ids.tolist()
    return example.inputs.tolist(), types, example.summary, np.flatnonzero(example.special).tolist()


def test_bidirectional_frames_by_hand() -> None:
    assert framed([10, 11, 12], None, 9, False) == ([CLS, 10, 11, 12, SEP], [0] * 5, 0, [0, 4])
    assert framed([10, 11], [20], 9, False) == ([CLS, 10, 11, SEP, 20, SEP], [0, 0, 0, 0, 1, 1], 0, [0, 3, 5])
    assert framed([10, 11, 12], [20], 6, False)[0] == [CLS, 10, 11, SEP, 20, SEP]
    assert framed([], None, 6, False)[0] == [CLS, SEP]


def test_causal_frames_by_hand_and_their_summary_is_the_last_token() -> None:
    assert framed([10, 11, 12], None, 9, True) == ([10, 11, 12, EOS], None, 3, [3])
    assert framed([10, 11, 12], [20], 9, True) == ([10, 11, 12, EOS, 20, EOS], None, 5, [3, 5])
    assert framed([10, 11, 12, 13], None, 3, True)[0] == [10, 11, EOS]


def test_the_longer_of_a_pair_is_cut_first() -> None:
    assert [keep(5, 2, 5), keep(2, 5, 5), keep(5, 2, 3), keep(4, 4, 5), keep(9, 0, 4), keep(1, 1, 9)] == [
        (3, 2), (2, 3), (2, 1), (3, 2), (4, 0), (1, 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["pos", "neg"], ("classification", ("neg", "pos"))),
        (["10", "9", "1"], ("classification", ("1", "9", "10"))),
        ([0, 1, 1], ("classification", ("0", "1"))),
        (["0.0", "1.0"], ("classification", ("0.0", "1.0"))),
        (["2.5", "0.0", "5.0"], ("regression", ())),
        ([0.25, 1.0], ("regression", ())),
        ([float(i) for i in range(11)], ("regression", ())),
        ([float(i) for i in range(3)], ("classification", ("0.0", "1.0", "2.0"))),
    ],
)
def test_classes_and_scores_are_told_apart(labels: list, expected: tuple) -> None:
    assert choose_task([Row("x", label) for label in labels], "auto") == expected


def test_what_was_asked_for_overrules_the_look_of_the_labels() -> None:
    rows = [Row("x", label) for label in ("1", "2", "3")]
    assert choose_task(rows, "regression") == ("regression", ())
    assert choose_task([Row("x", "0.5"), Row("x", "1.5")], "classification") == ("classification", ("0.5", "1.5"))


def test_labels_of_the_wrong_type_are_refused_with_file_and_line() -> None:
    rows = [Row("x", "1.5", where="a.tsv:2"), Row("y", "high", where="a.tsv:3")]
    with pytest.raises(InputError, match=r"a\.tsv:3: the label 'high' is not a \(finite\) number"):
        choose_task(rows, "regression")
    with pytest.raises(InputError, match=r"a\.tsv:2: the label 'nan'"):
        scores([Row("x", "nan", where="a.tsv:2")])
    with pytest.raises(InputError, match=r"the label 'bleu' .* Did you mean 'blue'"):
        classes([Row("x", "bleu")], ("blue", "red"))


def test_one_class_alone_or_a_class_for_every_row_is_refused() -> None:
    with pytest.raises(InputError, match="all 3 labels are 'a'"):
        choose_task([Row("x", "a")] * 3, "auto")
    with pytest.raises(InputError, match="30 different labels in 30 rows are no classes"):
        choose_task([Row("x", f"text {i}") for i in range(30)], "auto")
