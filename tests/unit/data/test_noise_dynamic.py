"""RoBERTa's masks: literal, and its rates and fates in many draws."""

import dataclasses

import numpy as np
import pytest

from elision.data.example import NO_TARGET, Example
from elision.data.noise import DynamicMask
from elision.data.noise.dynamic import round_stochastically
from elision.data.noise.stray import stray_tokens
from elision.data.order import generator
from elision.errors import InputError
from tests import tiny

VOCABULARY = tiny.vocabulary(1000)


def example(length: int) -> Example:
    """<s> 10 11 12 ... </s>."""
    special = np.zeros(length, bool)
    special[[0, -1]] = True
    inputs = np.arange(10, 10 + length)
    inputs[[0, -1]] = VOCABULARY.cls, VOCABULARY.sep
    return Example(inputs, special)


def test_with_rate_one_and_only_masks_every_place_is_left_out() -> None:
    noised = DynamicMask(rate=1.0, mask_share=1.0, random_share=0.0)(example(5), VOCABULARY, generator(1, "noise"))
    assert noised.inputs.tolist() == [4, 4, 4, 4, 4]
    assert noised.targets.tolist() == [2, 11, 12, 13, 3]


def test_512_places_give_76_targets_with_probability_a_fifth_and_77_otherwise() -> None:
    counts = [
        int((DynamicMask()(example(512), VOCABULARY, generator(1, "noise", i)).targets != NO_TARGET).sum())
        for i in range(2000)
    ]
    assert set(counts) == {76, 77}
    assert abs(np.mean(np.array(counts) == 77) - 0.8) < 4 * np.sqrt(0.16 / 2000)


def test_rounding_keeps_the_mean() -> None:
    rng = np.random.default_rng(0)
    drawn = [round_stochastically(1.35, rng) for _ in range(20_000)]
    assert set(drawn) == {1, 2}
    assert abs(np.mean(drawn) - 1.35) < 0.015


def test_targets_are_15_percent_of_all_places_the_framing_symbols_included() -> None:
    length, draws = 33, 6000
    places = np.zeros(length)
    for i in range(draws):
        noised = DynamicMask()(example(length), VOCABULARY, generator(2, "noise", i))
        places += noised.targets != NO_TARGET
    assert abs(places.sum() / (draws * length) - 0.15) < 0.001
    # Each place alike, <s> and </s> too.
    assert (abs(places / draws - 0.15) < 4.5 * np.sqrt(0.15 * 0.85 / draws)).all()


def test_of_the_targets_80_10_10_become_masks_random_and_stay_and_nothing_else_changes() -> None:
    before, fates = example(200), np.zeros(3)
    replaced = []
    for i in range(1000):
        noised = DynamicMask()(before, VOCABULARY, generator(3, "noise", i))
        chosen = noised.targets != NO_TARGET
        assert np.array_equal(noised.targets[chosen], before.inputs[chosen])
        assert np.array_equal(noised.inputs[~chosen], before.inputs[~chosen])
        read = noised.inputs[chosen]
        masked, stays = read == VOCABULARY.mask, read == before.inputs[chosen]
        fates += masked.sum(), (~masked & ~stays).sum(), stays.sum()
        replaced.append(read[~masked & ~stays])
    np.testing.assert_allclose(fates / fates.sum(), [0.8, 0.1, 0.1], atol=0.01)
    assert not VOCABULARY.special[np.concatenate(replaced)].any(), "random tokens are no special symbols"
    assert len(np.unique(np.concatenate(replaced))) > 900, "but any other"


def test_masks_differ_from_epoch_to_epoch_and_are_the_same_for_the_same_seed_epoch_and_index() -> None:
    before = example(64)

    def noised(seed: int, epoch: int, index: int) -> list[int]:
        return DynamicMask()(before, VOCABULARY, generator(seed, "noise", epoch, index)).targets.tolist()

    assert noised(1, 0, 5) == noised(1, 0, 5)
    others = [noised(1, 1, 5), noised(1, 0, 6), noised(2, 0, 5)]
    assert all(other != noised(1, 0, 5) for other in others)


def test_random_tokens_may_follow_their_frequency_in_the_text() -> None:
    counts = np.zeros(1000, np.int64)
    counts[[0, 10, 20, 30]] = 500, 600, 300, 100
    counted = dataclasses.replace(VOCABULARY, counts=counts)
    drawn = stray_tokens("text", counted, 50_000, np.random.default_rng(0))
    ids, times = np.unique(drawn, return_counts=True)
    assert ids.tolist() == [10, 20, 30], "special symbols are never drawn, however frequent"
    np.testing.assert_allclose(times / len(drawn), [0.6, 0.3, 0.1], atol=0.01)
    assert DynamicMask(random_from="text").needs_counts and not DynamicMask().needs_counts


def test_an_example_too_short_for_a_target_may_have_none() -> None:
    found = {
        int((DynamicMask()(example(3), VOCABULARY, generator(1, "noise", i)).targets != NO_TARGET).sum())
        for i in range(50)
    }
    assert found == {0, 1}


@pytest.mark.parametrize("settings", [{"rate": 1.5}, {"mask_share": -0.1}, {"mask_share": 0.8, "random_share": 0.3}])
def test_shares_outside_0_to_1_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"share|exceed 1"):
        DynamicMask(**settings)
