"""ELECTRA's masks and its two segments."""

import dataclasses

import numpy as np
import pytest

from elision.data.example import NO_TARGET, Example
from elision.data.noise import ElectraMask
from elision.data.segment import TwoSegments
from elision.data.store import Store
from elision.errors import InputError
from tests import tiny

VOCABULARY = tiny.vocabulary(1000)


def example(length: int) -> Example:
    """Return [CLS], tokens 10 ..., [SEP]."""
    inputs = np.arange(10, 10 + length)
    inputs[[0, -1]] = 2, 3
    special = np.zeros(length, bool)
    special[[0, -1]] = True
    return Example(inputs, special, type_ids=np.zeros(length, np.int64))


def noised(noise: ElectraMask, given: Example, seed: int = 0) -> Example:
    return noise(given, VOCABULARY, np.random.default_rng(seed))


def test_a_drawn_token_becomes_a_mask_or_stays() -> None:
    given = example(5)
    masked = noised(ElectraMask(rate=0.2, mask_share=1.0), given, seed=1)
    kept = noised(ElectraMask(rate=0.2, mask_share=0.0), given, seed=1)
    (place,) = np.flatnonzero(masked.targets != NO_TARGET)
    expected = given.inputs.copy()
    expected[place] = 4
    assert masked.inputs.tolist() == expected.tolist() and kept.inputs.tolist() == given.inputs.tolist()
    assert masked.targets[place] == kept.targets[place] == given.inputs[place]
    assert given.targets is None and given.inputs[place] != 4


@pytest.mark.parametrize(
    ("length", "rate", "distinct"),
    [(128, 0.15, 0.138), (512, 0.15, 0.140), (512, 0.25, 0.221)],
)
def test_drawing_with_replacement_hits_as_many_places_as_in_the_released_code(
    length: int, rate: float, distinct: float
) -> None:
    given = example(length)
    hit = np.mean([(noised(ElectraMask(rate=rate), given, seed).targets >= 0).mean() for seed in range(300)])
    assert hit == pytest.approx(distinct, abs=0.002)
    without = noised(ElectraMask(rate=rate, with_replacement=False), given)
    assert (without.targets >= 0).sum() == round(rate * length)


def test_one_draw_in_seven_leaves_its_token_and_none_becomes_another() -> None:
    given, masked, chosen = example(128), 0, 0
    for seed in range(300):
        after = noised(ElectraMask(with_replacement=False), given, seed)
        at = after.targets >= 0
        assert set(after.inputs[at]) <= {4, *after.targets[at]}
        assert (after.inputs[~at] == given.inputs[~at]).all()
        masked, chosen = masked + (after.inputs[at] == 4).sum(), chosen + at.sum()
    assert masked / chosen == pytest.approx(0.85, abs=0.015)


def test_symbols_that_frame_and_masks_in_the_text_are_never_drawn() -> None:
    given = example(10)
    given.inputs[3:6] = 4
    for seed in range(50):
        after = noised(ElectraMask(rate=1.0), given, seed)
        assert (after.targets[[0, 3, 4, 5, 9]] == NO_TARGET).all()
    bare = Example(np.array([2, 4, 3]), np.array([True, False, True]))
    assert (noised(ElectraMask(), bare).targets == NO_TARGET).all()


def test_there_is_always_one_draw_and_never_more_than_the_cap() -> None:
    assert (noised(ElectraMask(rate=0.0), example(6)).targets >= 0).sum() == 1
    capped = noised(ElectraMask(rate=0.5, max_targets=3, with_replacement=False), example(40))
    assert (capped.targets >= 0).sum() == 3
    for settings in ({"rate": 1.5}, {"mask_share": -0.1}, {"max_targets": 0}):
        with pytest.raises(InputError, match=next(iter(settings))):
            ElectraMask(**settings)


# --- Two segments.


def store(tmp_path, *documents: list[list[int]]) -> Store:
    return tiny.id_store(tmp_path / "store", tiny.tokenizer(tiny.WORDPIECE), documents)


def examples(made: Store, settings: TwoSegments, seed: int = 0) -> list[Example]:
    plan = settings.plan(made.split("train"), VOCABULARY, seed)
    return [plan.example(index) for index in range(len(plan))]


def test_sentences_are_divided_at_half_the_length_and_cut(tmp_path) -> None:
    made = store(tmp_path, [[10, 11], [12, 13, 14], [15]])
    (only,) = examples(made, TwoSegments(max_length=8, short_probability=0.0, single_probability=0.0))
    assert only.inputs.tolist() == [2, 10, 11, 3, 12, 13, 14, 3]
    assert only.type_ids.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert only.special.tolist() == [True, False, False, True, False, False, False, True]
    assert only.label is None and only.summary == 0


def test_a_single_segment_has_all_the_room(tmp_path) -> None:
    made = store(tmp_path, [[10, 11], [12, 13, 14], [15, 16, 17]])
    (only,) = examples(made, TwoSegments(max_length=8, short_probability=0.0, single_probability=1.0))
    assert only.inputs.tolist() == [2, 10, 11, 12, 13, 14, 15, 3]
    assert not only.type_ids.any() and only.special.sum() == 2


def test_a_long_first_sentence_leaves_no_room_for_a_second_segment(tmp_path) -> None:
    made = store(tmp_path, [[*range(10, 16)], [20, 21]])
    first, *_ = examples(made, TwoSegments(max_length=8, short_probability=0.0, single_probability=0.0))
    assert first.inputs.tolist() == [2, 10, 11, 12, 13, 14, 15, 3] and not first.type_ids.any()


def test_the_sentence_across_the_half_goes_to_either_side_equally_often(tmp_path) -> None:
    # Sentences of 3 tokens at a half of 8: two of them are A, the third crosses.
    documents = [[[10, 11, 12]] * 7 for _ in range(400)]
    made = store(tmp_path, *documents)
    found = [int((each.type_ids == 0).sum()) - 2 for each in examples(made, TwoSegments(20, 0.0, 0.0))]
    assert set(found) == {6, 9}
    assert found.count(9) / len(found) == pytest.approx(0.5, abs=0.08)


def test_every_sentence_is_used_once_in_order_and_examples_end_with_their_document(tmp_path) -> None:
    sizes = np.random.default_rng(0).integers(1, 6, (30, 12))
    token, documents = 6, []
    for row in sizes:
        documents.append([])
        for size in row:
            documents[-1].append([*range(token, token + size)])
            token += size
        token += 1
    made = store(tmp_path, *documents)
    settings = TwoSegments(max_length=200, short_probability=0.5, single_probability=0.3)
    held = [each.inputs[~each.special].tolist() for each in examples(made, settings)]
    assert sorted(ids[0] for ids in held) == [ids[0] for ids in sorted(held)]
    assert [i for ids in sorted(held) for i in ids] == [i for doc in documents for ids in doc for i in ids]
    assert all(np.diff(ids).max(initial=1) == 1 for ids in held), "no example crosses a document"


def test_shares_of_short_and_single_examples(tmp_path) -> None:
    made = store(tmp_path, *[[[10]] * 400 for _ in range(60)])
    found = examples(made, TwoSegments(max_length=40, short_probability=0.3, single_probability=0.2))
    whole = [each for each in found if len(each) >= 40]
    assert 0.2 < 1 - len(whole) / len(found) < 0.4
    assert np.mean([each.type_ids.any() for each in whole]) == pytest.approx(0.8, abs=0.04)
    short = [len(each) for each in found if len(each) < 40]
    # The target counts tokens, without the two or three symbols.
    assert min(short) <= 9 and max(short) >= 35
    assert dataclasses.asdict(TwoSegments()) == {
        "max_length": 128,
        "short_probability": 0.05,
        "single_probability": 0.1,
    }


def test_settings_and_stores_that_give_no_example_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="max_length is 4"):
        TwoSegments(max_length=4)
    with pytest.raises(InputError, match="single_probability is 2"):
        TwoSegments(single_probability=2.0)
