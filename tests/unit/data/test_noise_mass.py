"""MASS's noise: a fragment, what its two readers may see of it, and where it lies how often."""

import dataclasses

import numpy as np
import pytest

from elision.data.example import Example
from elision.data.noise import Fragment
from elision.data.noise.fragment import draw_start, fragment_length
from elision.data.order import generator
from elision.errors import InputError
from tests import tiny

VOCABULARY = tiny.vocabulary(500)
MASK = VOCABULARY.mask


def text(length: int) -> Example:
    return Example(np.arange(10, 10 + length), np.zeros(length, bool), languages=np.full(length, 2))


def noised(length: int, index: int = 0, **settings: object) -> Example:
    return Fragment(**settings)(text(length), VOCABULARY, generator(1, "noise", index))


def test_a_worked_example() -> None:
    noise = Fragment(mask_share=1.0, random_share=0.0)
    seen = set()
    for index in range(50):
        after = noise(text(6), VOCABULARY, generator(1, "noise", index))
        start = int(after.decoder_positions[0]) + 1
        seen.add(start)
        whole = text(6).inputs.tolist()
        assert after.inputs.tolist() == [*whole[:start], MASK, MASK, MASK, *whole[start + 3 :]]
        assert after.decoder_inputs.tolist() == whole[start - 1 : start + 2]
        assert after.targets.tolist() == whole[start : start + 3]
        assert after.decoder_positions.tolist() == [start - 1, start, start + 1]
    assert seen == {1, 2, 3}


@pytest.mark.parametrize("length", [2, 3, 4, 5, 9, 10, 128])
def test_half_of_the_tokens_are_restored(length: int) -> None:
    for index in range(20):
        after = noised(length, index)
        assert len(after.targets) == len(after.decoder_inputs) == round(length / 2)
        assert Fragment().lengths(length) == (length, round(length / 2))


@pytest.mark.parametrize("length", [2, 3, 10, 50])
def test_decoder_positions_are_contiguous_and_within_the_text_and_the_first_token_is_never_left_out(
    length: int,
) -> None:
    for index in range(50):
        after = noised(length, index)
        positions = after.decoder_positions
        assert (np.diff(positions) == 1).all() and positions[0] >= 0 and positions[-1] <= length - 2
        assert after.inputs[0] == 10
        # What the decoder reads and restores stood at its positions in the text.
        np.testing.assert_array_equal(after.decoder_inputs, 10 + positions)
        np.testing.assert_array_equal(after.targets, 11 + positions)
        assert after.decoder_languages.tolist() == [2] * len(positions) and after.answer is None


def test_what_the_decoder_sees_of_the_encoder_has_no_mask_in_it() -> None:
    for index in range(50):
        after = noised(40, index)
        assert after.unseen.dtype == bool and (after.unseen == (after.inputs == MASK)).all()
        assert not (after.inputs[~after.unseen] == MASK).any() and not after.unseen.all()


def test_one_token_is_like_bert_and_all_but_the_first_a_language_model() -> None:
    for index in range(20):
        assert len(noised(30, index, rate=0.0).targets) == 1
        whole = noised(30, index, rate=1.0)
        assert whole.targets.tolist() == text(30).inputs[1:].tolist()
        assert whole.decoder_inputs.tolist() == text(30).inputs[:-1].tolist()
    assert fragment_length(1, 0.5) == 0


def test_a_fragment_begins_first_last_or_anywhere_in_the_published_shares() -> None:
    rng = np.random.default_rng(0)
    starts = np.bincount([draw_start(12, 6, 0.2, rng) for _ in range(20_000)], minlength=8) / 20_000
    assert starts[0] == 0 and starts[7:].sum() == 0
    # 60 % over the six places from 1 to 6, both ends included.
    np.testing.assert_allclose(starts[1:7], [0.3, 0.1, 0.1, 0.1, 0.1, 0.3], atol=0.012)


def test_in_the_encoder_80_percent_become_the_mask_10_percent_are_random_and_10_percent_stay() -> None:
    masked = kept = total = 0
    for index in range(300):
        after = noised(100, index)
        left_out = after.decoder_positions + 1
        masked += (after.inputs[left_out] == MASK).sum()
        kept += (after.inputs[left_out] == after.targets).sum()
        total += len(left_out)
        outside = np.setdiff1d(np.arange(100), left_out)
        assert (after.inputs[outside] == text(100).inputs[outside]).all()
    assert abs(masked / total - 0.8) < 0.02 and abs(kept / total - 0.1) < 0.02


def test_what_cannot_have_a_fragment_is_refused() -> None:
    with pytest.raises(InputError, match="a single token"):
        noised(1)
    apart = dataclasses.replace(text(4), doc_ids=np.array([1, 1, 2, 2]))
    with pytest.raises(InputError, match="cross_documents to True"):
        Fragment()(apart, VOCABULARY, generator(1, "noise", 0))
    with pytest.raises(InputError, match=r"edge_share is 0\.6"):
        Fragment(edge_share=0.6)
    with pytest.raises(InputError, match="no 'mask' token"):
        Fragment().check(dataclasses.replace(VOCABULARY, mask=None))
