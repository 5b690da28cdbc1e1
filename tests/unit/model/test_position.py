"""Position schemes: their tables, angles and buckets."""

import math

import pytest
import torch

from elision.errors import InputError
from elision.model.position import (
    LearnedPositions,
    RelativePositions,
    RotaryPositions,
    SinusoidalPositions,
    halves_from_pairs,
    pairs_from_halves,
    rotated,
    sinusoids,
)


def test_interleaved_sinusoids_are_those_of_the_paper() -> None:
    table = SinusoidalPositions(8).build(6).table
    for position in range(8):
        for pair in range(3):
            angle = position / 10000 ** (2 * pair / 6)
            assert table[position, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_halves_hold_the_same_numbers_with_all_sines_first() -> None:
    turned = sinusoids(8, 6, "halves")
    table = sinusoids(8, 6)
    assert torch.equal(turned, torch.cat([table[:, 0::2], table[:, 1::2]], 1))
    assert turned[0].tolist() == [0, 0, 0, 1, 1, 1]


def test_half_minus_one_ends_exactly_at_the_longest_wave_length() -> None:
    table = SinusoidalPositions(100, layout="halves", divisor="half_minus_one").build(8).table
    for pair, wave in enumerate([1, 10000 ** (1 / 3), 10000 ** (2 / 3), 10000]):
        assert table[99, pair].item() == pytest.approx(math.sin(99 / wave), abs=1e-5)
        assert table[99, 4 + pair].item() == pytest.approx(math.cos(99 / wave), abs=1e-5)


@pytest.mark.parametrize("width", [2, 5, 7])
@pytest.mark.parametrize("layout", ["interleaved", "halves"])
@pytest.mark.parametrize("divisor", ["half", "half_minus_one"])
def test_every_width_has_a_table(width: int, layout: str, divisor: str) -> None:
    table = SinusoidalPositions(4, layout, divisor).build(width).table
    assert table.shape == (4, width) and table.isfinite().all()


def test_each_scheme_names_its_hook_and_its_number_of_positions() -> None:
    schemes = [LearnedPositions(4), SinusoidalPositions(5), RotaryPositions(num_positions=6), RelativePositions()]
    assert [scheme.hook for scheme in schemes] == ["embed", "embed", "rotate", "bias"]
    assert [scheme.num_positions for scheme in schemes] == [4, 5, 6, None]


LAYOUTS = ("halves", "pairs")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_pair_of_channels_turns_by_its_own_angle(layout: str) -> None:
    rotation = RotaryPositions(theta=100.0, layout=layout).build(4)
    vector = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    turned = rotated(vector.view(1, 1, 1, 4), rotation.angles(torch.tensor([[5]]), torch.float64))[0, 0, 0]
    pairs = [(0, 2), (1, 3)] if layout == "halves" else [(0, 1), (2, 3)]
    for pair, (one, other) in enumerate(pairs):
        number = complex(vector[one], vector[other]) * complex(math.cos(5 / 10**pair), math.sin(5 / 10**pair))
        assert (turned[one].item(), turned[other].item()) == pytest.approx((number.real, number.imag), abs=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_product_of_query_and_key_knows_only_their_distance(layout: str, share: float) -> None:
    torch.manual_seed(0)
    rotation = RotaryPositions(layout=layout, share=share).build(8)
    query, key = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64).expand(-1, 1, 1, 20, 8)
    query, key = rotation.rotate(query, key, torch.arange(20)[None])
    product = (query @ key.transpose(-1, -2))[0, 0]
    for offset in range(-10, 11):
        along = product.diagonal(offset)
        torch.testing.assert_close(along, along[:1].expand_as(along))
    assert not torch.allclose(product[0, 1], product[1, 0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_channels_beyond_the_share_do_not_turn(layout: str) -> None:
    rotation = RotaryPositions(share=0.25, layout=layout).build(16)
    states = torch.randn(2, 3, 5, 16)
    turned = rotated(states, rotation.angles(torch.arange(5).expand(2, -1), torch.float32))
    assert torch.equal(turned[..., 4:], states[..., 4:])
    assert not torch.isclose(turned[:, :, 1:, :4], states[:, :, 1:, :4]).all(-1).any()
    torch.testing.assert_close(turned.norm(dim=-1), states.norm(dim=-1))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_short_way_on_a_cpu_is_the_long_one_with_its_gradient(
    monkeypatch: pytest.MonkeyPatch, layout: str, share: float
) -> None:
    torch.manual_seed(0)
    angles = RotaryPositions(layout=layout, share=share).build(8).angles(torch.arange(5).expand(2, -1), torch.float64)
    states = torch.randn(2, 5, 3, 8, dtype=torch.float64).transpose(1, 2).requires_grad_()
    short = rotated(states, angles)
    upstream = torch.randn_like(short)
    (short_gradient,) = torch.autograd.grad(short, states, upstream)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    long = rotated(states, angles)
    torch.testing.assert_close(short, long, rtol=0, atol=1e-14)
    (long_gradient,) = torch.autograd.grad(long, states, upstream)
    torch.testing.assert_close(short_gradient, long_gradient, rtol=0, atol=1e-14)


@pytest.mark.parametrize("compiling", [False, True])
def test_states_of_half_precision_stay_so_with_angles_that_are_exact(
    monkeypatch: pytest.MonkeyPatch, compiling: bool
) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    angles = RotaryPositions(share=0.5).build(8).angles(torch.arange(300)[None], torch.float32)
    states = torch.randn(1, 2, 300, 8)
    rough = rotated(states.bfloat16(), angles)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), rotated(states.bfloat16().float(), angles), rtol=2**-8, atol=0)


def test_position_zero_turns_nothing() -> None:
    states = torch.randn(1, 2, 1, 6)
    for layout in LAYOUTS:
        angles = RotaryPositions(layout=layout).build(6).angles(torch.zeros(1, 1, dtype=torch.long), torch.float32)
        assert torch.equal(rotated(states, angles), states)


def test_rows_reordered_from_pairs_to_halves_give_the_same_products() -> None:
    torch.manual_seed(0)
    heads, size, width = 3, 8, 10
    weights = [torch.randn(heads * size, width, dtype=torch.float64) for _ in range(2)]
    hidden, positions = torch.randn(2, 6, width, dtype=torch.float64), torch.arange(6).expand(2, -1)

    def products(layout: str, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        split = [(hidden @ weight.T).view(2, 6, heads, size).transpose(1, 2) for weight in (query, key)]
        turned_query, turned_key = RotaryPositions(layout=layout).build(size).rotate(*split, positions)
        return turned_query @ turned_key.transpose(-1, -2)

    moved = [halves_from_pairs(weight, size) for weight in weights]
    # Row i of the second half of head h was the second of pair i.
    assert torch.equal(moved[0][size + 4 + 1], weights[0][size + 2 * 1 + 1])
    torch.testing.assert_close(products("halves", *moved), products("pairs", *weights))
    assert not torch.allclose(products("halves", *weights), products("pairs", *weights))
    assert all(torch.equal(pairs_from_halves(there, size), weight) for there, weight in zip(moved, weights))


def test_angles_of_half_precision_are_computed_exactly_and_then_rounded() -> None:
    rotation = RotaryPositions().build(4)
    positions = torch.tensor([[1000, 1001]])
    rough, exact = rotation.angles(positions, torch.bfloat16), rotation.angles(positions, torch.float32)
    assert rough.cosine.dtype == torch.bfloat16 and torch.equal(rough.cosine, exact.cosine.bfloat16())
    assert rotation.angles(positions, torch.float64).sine[0, 0, 1, 1].item() == pytest.approx(
        math.sin(1001 / 100), abs=1e-12
    )


@pytest.mark.parametrize("share, size, turned", [(0.5, 6, 3), (0.1, 8, 0), (1.5, 8, 12)])
def test_a_share_that_leaves_half_a_pair_or_none_is_refused(share: float, size: int, turned: int) -> None:
    with pytest.raises(InputError, match=f"turns {turned} of them"):
        RotaryPositions(share=share).build(size)


def bucket_of(offset: int, bidirectional: bool, num_buckets: int = 32, max_distance: int = 128) -> int:
    """The bucket of a key `offset` places after the query, read off a table whose rows say their own number."""
    bias = RelativePositions(num_buckets, max_distance).build(1)
    with torch.no_grad():
        bias.table.weight.copy_(torch.arange(num_buckets)[:, None])
        return int(bias.bias(torch.tensor([500]), torch.tensor([500 + offset]), bidirectional).item())


def test_an_encoder_has_buckets_for_both_sides() -> None:
    assert [bucket_of(offset, True) for offset in (0, -1, -7, -8)] == [0, 1, 7, 8]
    assert [bucket_of(offset, True) for offset in (1, 7, 8)] == [17, 23, 24]
    assert (bucket_of(-90, True), bucket_of(-91, True), bucket_of(-10000, True)) == (14, 15, 15)
    assert (bucket_of(90, True), bucket_of(91, True), bucket_of(10000, True)) == (30, 31, 31)


def test_a_decoder_has_all_buckets_for_what_came_before() -> None:
    assert [bucket_of(offset, False) for offset in (3, 0, -1, -15, -16)] == [0, 0, 1, 15, 16]
    assert (bucket_of(-112, False), bucket_of(-113, False), bucket_of(-10000, False)) == (30, 31, 31)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("num_buckets, max_distance", [(32, 128), (8, 20)])
def test_buckets_are_those_of_the_reference_implementation(
    bidirectional: bool, num_buckets: int, max_distance: int
) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    table = RelativePositions(num_buckets, max_distance).build(2)
    queries, keys = torch.arange(3, 203), torch.arange(300)
    theirs = T5Attention._relative_position_bucket(
        keys[None, :] - queries[:, None], bidirectional, num_buckets, max_distance
    )
    expected = table.table.weight[theirs].permute(2, 0, 1)
    assert torch.equal(table.bias(queries, keys, bidirectional), expected)


def test_the_bias_depends_only_on_the_offset() -> None:
    bias = RelativePositions(8, 20).build(3).bias(torch.arange(12), torch.arange(12), True)
    for offset in range(-11, 12):
        assert (bias.diagonal(offset, 1, 2) == bias.diagonal(offset, 1, 2)[:, :1]).all()
