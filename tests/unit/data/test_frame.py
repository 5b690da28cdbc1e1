"""Frames: which symbols stand around a text or a pair, written out by hand."""

import dataclasses

import numpy as np
import pytest

from elision.data.frame import FRAMES
from elision.errors import InputError
from tests import tiny

A, B = np.array([10, 11, 12]), np.array([20, 21])
VOCABULARY = tiny.vocabulary(30)  # cls 2, sep 3, bos = eos = 5


@pytest.mark.parametrize(
    ("name", "single", "pair", "summary"),
    [
        ("bert", [2, 10, 11, 12, 3], [2, 10, 11, 12, 3, 20, 21, 3], "first"),
        ("roberta", [2, 10, 11, 12, 3], [2, 10, 11, 12, 3, 3, 20, 21, 3], "first"),
        ("xlnet", [10, 11, 12, 3, 2], [10, 11, 12, 3, 20, 21, 3, 2], "last"),
        ("causal", [10, 11, 12, 5], [10, 11, 12, 5, 20, 21, 5], "last"),
        ("elmo", [5, 10, 11, 12, 5], [5, 10, 11, 12, 5, 5, 20, 21, 5], "first"),
    ],
)
def test_each_frame_by_hand(name: str, single: list[int], pair: list[int], summary: str) -> None:
    frame = FRAMES[name]
    for example, wanted in ((frame(VOCABULARY, A), single), (frame(VOCABULARY, A, B), pair)):
        assert example.inputs.tolist() == wanted
        assert example.inputs[~example.special].tolist() == [i for i in wanted if i >= 10]
        assert example.special[example.inputs < 10].all()
        assert example.summary == (0 if summary == "first" else len(wanted) - 1)
        assert example.type_ids is None
    assert frame.num_symbols(pair=False) == len(single) - len(A)
    assert frame.num_symbols(pair=True) == len(pair) - len(A) - len(B)


def test_segments_change_after_the_first_separator_and_xlnets_summary_is_a_third() -> None:
    assert FRAMES["bert"](VOCABULARY, A, B, num_types=2).type_ids.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert FRAMES["bert"](VOCABULARY, A, num_types=2).type_ids.tolist() == [0] * 5
    assert FRAMES["xlnet"](VOCABULARY, A, B, num_types=3).type_ids.tolist() == [0, 0, 0, 0, 1, 1, 1, 2]
    assert FRAMES["xlnet"](VOCABULARY, A, num_types=3).type_ids.tolist() == [0, 0, 0, 0, 2]


def test_a_vocabulary_without_a_symbol_of_the_frame_is_refused_by_name() -> None:
    without = dataclasses.replace(VOCABULARY, cls=None)
    with pytest.raises(InputError, match="no 'cls' token"):
        FRAMES["bert"](without, A)
