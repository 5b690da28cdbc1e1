"""Order and randomness: keyed permutations and independent generators."""

import itertools

import numpy as np
import pytest

from elision.data.order import derive_seed, generator, shuffled


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 63, 64, 65, 100, 1000, 4096, 4097, 100_003])
def test_shuffled_is_a_bijection(size: int) -> None:
    for epoch in range(3):
        moved = shuffled(np.arange(size), size, 1, "epoch", epoch)
        assert np.array_equal(np.sort(moved), np.arange(size))


def test_a_huge_range_is_permuted_without_being_held() -> None:
    size = 10**10 + 7
    index = np.arange(size - 1000, size)
    moved = shuffled(index, size, 1, "epoch", 0)
    assert len(np.unique(moved)) == 1000
    assert ((moved >= 0) & (moved < size)).all()
    # Neighbours are scattered over the whole range.
    assert moved.std() > 0.2 * size


def test_an_order_depends_on_seed_purpose_and_epoch_and_on_nothing_else() -> None:
    index = np.arange(1000)
    orders = [
        shuffled(index, 1000, seed, purpose, epoch)
        for seed, purpose, epoch in itertools.product((1, 2), ("epoch", "fixed"), (0, 1))
    ]
    for one, other in itertools.combinations(orders, 2):
        assert (one == other).mean() < 0.02
    assert np.array_equal(orders[0], shuffled(index, 1000, 1, "epoch", 0))
    # Elementwise: asking for one place gives what asking for all gives.
    assert [int(shuffled(np.array([i]), 1000, 1, "epoch", 0)[0]) for i in range(20)] == orders[0][:20].tolist()


@pytest.mark.parametrize("size", [5, 16])
def test_over_epochs_each_place_goes_everywhere_equally_often(size: int) -> None:
    epochs = 1500
    moved = np.array([shuffled(np.arange(size), size, 3, "epoch", epoch) for epoch in range(epochs)])
    for place in range(size):
        counts = np.bincount(moved[:, place], minlength=size)
        chi_square = ((counts - epochs / size) ** 2 / (epochs / size)).sum()
        # Mean size - 1, standard deviation sqrt(2 (size - 1)): a bound that uniform counts exceed once in 10^4.
        assert chi_square < (size - 1) + 4.5 * np.sqrt(2 * (size - 1)), (place, counts)


def test_over_epochs_neighbours_land_on_every_pair_of_places_equally_often() -> None:
    epochs, size = 3000, 5
    moved = np.array([shuffled(np.arange(2), size, 9, "epoch", epoch) for epoch in range(epochs)])
    counts = np.bincount(moved[:, 0] * size + moved[:, 1], minlength=size * size)
    expected = epochs / (size * (size - 1))
    off_diagonal = counts[[i * size + j for i in range(size) for j in range(size) if i != j]]
    assert ((off_diagonal - expected) ** 2 / expected).sum() < 19 + 4.5 * np.sqrt(2 * 19)


def test_a_shuffle_keeps_no_correlation_between_a_place_and_where_it_goes() -> None:
    moved = shuffled(np.arange(50_000), 50_000, 1, "epoch", 0)
    assert abs(np.corrcoef(np.arange(50_000), moved)[0, 1]) < 0.02
    assert abs(np.corrcoef(moved[:-1], moved[1:])[0, 1]) < 0.02


def test_generators_of_different_arguments_are_independent() -> None:
    keys = [
        (seed, purpose, indices)
        for seed in (0, 1)
        for purpose in ("noise", "cuts")
        for indices in ((), (0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1), (2**40, 3))
    ]
    draws = np.array([generator(seed, purpose, *indices).random(2000) for seed, purpose, indices in keys])
    # Trailing zero indices are the only arguments that may agree: () = (0,) = (0, 0).
    distinct = np.unique(draws[:, 0])
    same = len({(seed, purpose, (*indices, 0, 0)[:2]) for seed, purpose, indices in keys})
    assert len(distinct) == same
    matrix = np.corrcoef(draws[np.unique(draws[:, 0], return_index=True)[1]])
    assert np.abs(matrix - np.eye(len(matrix))).max() < 5 / np.sqrt(2000)
    assert abs(draws.mean() - 0.5) < 0.01


def test_a_long_draw_of_one_example_does_not_run_into_the_next() -> None:
    first, second = generator(1, "noise", 0, 5).random(100_000), generator(1, "noise", 0, 6).random(10)
    assert not np.isin(second, first).any()


def test_a_generator_can_be_made_again() -> None:
    assert np.array_equal(generator(3, "noise", 1, 2).random(5), generator(3, "noise", 1, 2).random(5))


def test_seeds_for_other_libraries_differ_and_fit_into_63_bits() -> None:
    seeds = {derive_seed(1, purpose, step, part) for purpose in ("a", "b") for step in range(50) for part in range(4)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, "a", 2) == derive_seed(1, "a", 2)
