"""Attention: the fused path and the path in blocks against the one that spells the papers out."""

import math

import pytest
import torch
from torch import Tensor

from elision.errors import InputError
from elision.model import blockwise
from elision.model.attention import Attention, CrossAttention, attend, attend_reference
from elision.model.blockwise import attend_in_blocks
from elision.model.cache import LayerCache
from elision.model.position import RotaryPositions
from elision.model.visibility import CAUSAL, EVERYTHING, Visible, causal_mask, window_mask

CPU = torch.device("cpu")
HEADS, CHANNELS, KEYS = 4, 2, 9


def documents() -> Visible:
    doc_ids = torch.tensor([[1] * 4 + [2] * 3 + [3] * 2, [1] * 2 + [2] * 7])
    return Visible((doc_ids[:, :, None] == doc_ids[:, None, :])[:, None])


def padded(num_queries: int) -> Visible:
    """The second row's source ends after five places."""
    unpadded = torch.tensor([[True] * 9, [True] * 5 + [False] * 4])
    return Visible(unpadded[:, None, None].expand(-1, -1, num_queries, -1))


CASES = {
    "everything": (EVERYTHING, KEYS),
    "causal": (CAUSAL, KEYS),
    "documents": (documents(), KEYS),
    "causal documents": (documents() & CAUSAL, KEYS),
    "causal window": (CAUSAL & Visible(window=3), KEYS),
    "window both ways": (Visible(window=3), KEYS),
    "causal window in documents": (documents() & CAUSAL & Visible(window=3), KEYS),
    "cache": (CAUSAL, 3),
    "cache and window": (CAUSAL & Visible(window=4), 3),
    "one query": (CAUSAL, 1),
    "one query and window": (CAUSAL & Visible(window=4), 1),
    "source": (EVERYTHING, 5),
    "padded source": (padded(5), 5),
    "padded source for all queries alike": (padded(1), 5),
    "padded and causal": (padded(1) & CAUSAL, KEYS),
}


def tensors(num_queries: int, groups: int) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(2, HEADS, num_queries, CHANNELS), (2, groups, KEYS, CHANNELS), (2, groups, KEYS, CHANNELS)]
    shapes.append((HEADS, num_queries, KEYS))
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def assert_same_with_gradients(ours: Tensor, theirs: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    upstream = torch.randn_like(ours)
    for mine, reference in zip(
        torch.autograd.grad(ours, inputs, upstream), torch.autograd.grad(theirs, inputs, upstream)
    ):
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("scale, biased", [(None, False), (1.0, True)])
def test_fused_attention_equals_the_reference(
    monkeypatch: pytest.MonkeyPatch, case: str, groups: int, scale: float | None, biased: bool
) -> None:
    # Compiled code and GPUs take the fused kernel for everything.
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    visible, num_queries = CASES[case]
    *inputs, bias = tensors(num_queries, groups)
    bias = bias.detach() if biased else None
    fused = attend(*inputs, visible, scale=scale, bias_HQK=bias)
    assert_same_with_gradients(fused, attend_reference(*inputs, visible, scale=scale, bias_HQK=bias)[0], inputs)


@pytest.mark.parametrize("block", [1, 2, 4, 128])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("groups, scale, biased", [(4, None, False), (2, None, True), (1, 1.0, True)])
def test_attention_in_blocks_equals_the_reference(
    monkeypatch: pytest.MonkeyPatch, case: str, block: int, groups: int, scale: float | None, biased: bool
) -> None:
    monkeypatch.setattr(blockwise, "BLOCK_QUERIES", block)
    visible, num_queries = CASES[case]
    *inputs, bias = tensors(num_queries, groups)
    given = bias if biased else None
    mixed = attend_in_blocks(*inputs, visible, 0.0, scale, given)
    expected, _ = attend_reference(*inputs, visible, scale=scale, bias_HQK=given)
    assert_same_with_gradients(mixed, expected, [*inputs, bias] if biased else inputs)


def test_a_learned_bias_gets_its_gradient_summed_over_rows() -> None:
    inputs = tensors(5, 2)
    visible = padded(1)
    mixed = attend(*inputs[:3], visible, scale=1.0, bias_HQK=inputs[3])
    expected, _ = attend_reference(*inputs[:3], visible, scale=1.0, bias_HQK=inputs[3])
    assert_same_with_gradients(mixed, expected, inputs)


def test_the_gradients_in_blocks_with_dropout_are_those_of_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "BLOCK_QUERIES", 2)
    visible = documents() & CAUSAL & Visible(window=3)

    def dropped(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        torch.manual_seed(5)
        return attend_in_blocks(query, key, value, visible, 0.4, None, bias)

    assert torch.autograd.gradcheck(dropped, tensors(KEYS, 2))


def test_each_head_of_keys_serves_successive_heads_of_queries() -> None:
    query, key, value, _ = tensors(3, 2)
    _, weights = attend_reference(query, key, value, EVERYTHING)
    score = query[:, 1] @ key[:, 0].transpose(-1, -2) / math.sqrt(CHANNELS)
    torch.testing.assert_close(weights[:, 1], torch.softmax(score, -1))
    score = query[:, 2] @ key[:, 1].transpose(-1, -2) / math.sqrt(CHANNELS)
    torch.testing.assert_close(weights[:, 2], torch.softmax(score, -1))


@pytest.mark.parametrize("path", ["fused", "blocks", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("biased", [False, True])
def test_a_query_that_sees_nothing_stays_finite_and_leaves_no_gradient_behind(
    path: str, dtype: torch.dtype, biased: bool
) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 2, 4, 8).to(dtype).requires_grad_() for _ in range(3))
    bias = torch.randn(2, 4, 4).to(dtype) if biased else None
    mask = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    mask[0, 0, 2] = False
    paths = {
        "fused": lambda: attend(query, key, value, Visible(mask), bias_HQK=bias),
        "blocks": lambda: attend_in_blocks(query, key, value, Visible(mask), 0.0, None, bias),
        "reference": lambda: attend_reference(query, key, value, Visible(mask), bias_HQK=bias)[0],
    }
    mixed = paths[path]()
    assert mixed.isfinite().all()
    # What it mixes is not read, so nothing flows back from there.
    upstream = torch.ones_like(mixed)
    upstream[0, :, 2] = 0
    gradients = torch.autograd.grad(mixed, (query, key, value), upstream)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert not gradients[0][0, :, 2].any()


def test_a_window_holds_a_token_and_those_right_before_it() -> None:
    seen = window_mask(5, 5, 2, CPU)[0, 0] & causal_mask(5, 5, CPU)[0, 0]
    assert seen.long().tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]


def test_the_queries_of_a_window_are_the_last_of_the_keys() -> None:
    assert window_mask(2, 5, 3, CPU)[0, 0].long().tolist() == [[0, 1, 1, 1, 1], [0, 0, 1, 1, 1]]


def test_the_narrower_of_two_windows_holds() -> None:
    for joined in (Visible(window=5) & Visible(window=3) & CAUSAL, Visible(window=3) & (CAUSAL & Visible(window=5))):
        assert (joined.mask, joined.causal, joined.window) == (None, True, 3)
    assert (EVERYTHING & CAUSAL).window is None


def test_a_window_with_a_mask_becomes_part_of_it() -> None:
    joined = documents() & CAUSAL & Visible(window=2)
    assert not joined.causal and joined.window is None
    assert torch.equal(joined.mask, documents().mask & causal_mask(9, 9, CPU) & window_mask(9, 9, 2, CPU))


def test_a_window_that_reaches_all_keys_hides_nothing() -> None:
    assert Visible(window=9).matrix(9, 9, CPU) is None
    assert not Visible(window=8).matrix(9, 9, CPU).all()


def test_blocks_leave_out_keys_that_none_of_their_queries_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "BLOCK_QUERIES", 4)
    assert blockwise._blocks(9, 9, CAUSAL & Visible(window=3)) == [(0, 4, 0, 4), (4, 8, 2, 8), (8, 9, 6, 9)]
    assert blockwise._blocks(9, 9, documents() & CAUSAL) == [(0, 4, 0, 4), (4, 8, 2, 8), (8, 9, 2, 9)]
    assert blockwise._blocks(2, 9, CAUSAL & Visible(window=3)) == [(0, 2, 5, 9)]


def test_a_narrow_window_on_a_long_text_is_done_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elision.model.attention.BLOCK_QUERIES", 1)
    monkeypatch.setattr(blockwise, "BLOCK_QUERIES", 1)
    *inputs, _ = tensors(KEYS, 2)
    visible = CAUSAL & Visible(window=2)
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda *given, **named: 1 / 0)
    mixed = attend(*inputs, visible)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", fused)
    assert_same_with_gradients(mixed, attend_reference(*inputs, visible)[0], inputs)


def test_a_learned_bias_never_holds_the_weights_of_all_rows() -> None:
    """What autograd keeps for the backward pass is no larger than the bias and the inputs."""
    query, key, value = (torch.randn(8, 2, 300, 4, requires_grad=True) for _ in range(3))
    bias = torch.randn(2, 300, 300, requires_grad=True)
    kept: list[int] = []

    def remember(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        attend(query, key, value, EVERYTHING, bias_HQK=bias)
    assert max(kept) == bias.numel() < 8 * 2 * 300 * 300


def layer(**settings: object) -> Attention:
    torch.manual_seed(1)
    return Attention(12, 4, 0.0, **settings).double()


def test_grouped_attention_equals_plain_attention_with_the_shared_rows_repeated() -> None:
    grouped = layer(num_key_value_heads=2)
    plain = layer()
    weight, bias = grouped.query_key_value.weight, grouped.query_key_value.bias

    def repeated(rows: Tensor) -> Tensor:
        query, key, value = rows.split([12, 6, 6])
        spread = [part.unflatten(0, (2, 3)).repeat_interleave(2, 0).flatten(0, 1) for part in (key, value)]
        return torch.cat([query, *spread])

    plain.query_key_value.load_state_dict({"weight": repeated(weight), "bias": repeated(bias)})
    plain.output.load_state_dict(grouped.output.state_dict())
    hidden = torch.randn(2, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(grouped(hidden, CAUSAL), plain(hidden, CAUSAL))


@pytest.mark.parametrize(
    "biases, fused, output", [("all", True, True), ("output", False, True), ("none", False, False)]
)
def test_biases_are_where_they_are_wanted(biases: str, fused: bool, output: bool) -> None:
    own, cross = layer(biases=biases), CrossAttention(12, 4, 0.0, biases=biases)
    assert [own.query_key_value.bias is not None, own.output.bias is not None] == [fused, output]
    assert [cross.query.bias is not None, cross.key_value.bias is not None] == [fused, fused]
    assert (cross.output.bias is not None) == output


def test_heads_may_be_wider_than_the_states() -> None:
    wide = layer(head_size=5, num_key_value_heads=1, biases="none")
    assert wide.query_key_value.weight.shape == (4 * 5 + 2 * 5, 12) and wide.output.weight.shape == (12, 20)
    assert wide(torch.randn(2, 3, 12, dtype=torch.float64), CAUSAL).shape == (2, 3, 12)


def test_attention_without_scaling_scores_by_the_raw_product() -> None:
    scaled, raw = layer(), layer(scale=1.0)
    hidden = torch.randn(1, 4, 12, dtype=torch.float64)
    with torch.no_grad():
        raw.query_key_value.weight[:12] /= math.sqrt(3)
        raw.query_key_value.bias[:12] /= math.sqrt(3)
    torch.testing.assert_close(scaled(hidden, EVERYTHING), raw(hidden, EVERYTHING))


def test_heads_that_cannot_share_evenly_are_refused() -> None:
    with pytest.raises(InputError, match="num_key_value_heads 3 does not divide num_heads 4"):
        layer(num_key_value_heads=3)


@pytest.mark.parametrize("layout", ["halves", "pairs"])
def test_rotary_attention_read_bit_by_bit_from_a_cache_equals_that_of_the_whole(layout: str) -> None:
    attention = layer(num_key_value_heads=2, head_size=4)
    rotation = RotaryPositions(layout=layout).build(4)
    hidden, positions = torch.randn(2, 6, 12, dtype=torch.float64), torch.arange(6).expand(2, -1)
    angles = rotation.angles(positions, torch.float64)
    whole = attention(hidden, CAUSAL, angles=angles)
    cache, parts = LayerCache(), []
    for start, stop in [(0, 3), (3, 4), (4, 6)]:
        angles = rotation.angles(positions[:, start:stop], torch.float64)
        parts.append(attention(hidden[:, start:stop], CAUSAL, cache, angles=angles))
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_places_that_are_not_needed_are_left_out() -> None:
    attention, cross = layer(num_key_value_heads=1), CrossAttention(12, 4, 0.0).double()
    hidden, places = torch.randn(2, 5, 12, dtype=torch.float64), torch.tensor([1, 7, 9])
    torch.testing.assert_close(
        attention(hidden, CAUSAL, needed_at=places), attention(hidden, CAUSAL).flatten(0, 1)[places]
    )
    source = torch.randn(2, 3, 12, dtype=torch.float64)
    torch.testing.assert_close(
        cross(hidden, source, EVERYTHING, needed_at=places), cross(hidden, source, EVERYTHING).flatten(0, 1)[places]
    )


class Held:
    """The part of a layer's cache that cross-attention uses."""

    cross: tuple[Tensor, Tensor] | None = None


@pytest.mark.parametrize("length", [1, 3])
def test_beams_share_the_keys_and_values_of_their_example(length: int) -> None:
    torch.manual_seed(0)
    cross = CrossAttention(12, 4, 0.0, source_size=7, head_size=5).double()
    source = torch.randn(2, 6, 7, dtype=torch.float64)
    visible = Visible(torch.tensor([[True] * 6, [True] * 2 + [False] * 4])[:, None, None])
    hidden = torch.randn(6, length, 12, dtype=torch.float64)
    beams = Visible(visible.mask.repeat_interleave(3, 0))
    alone = cross(hidden, source.repeat_interleave(3, 0), beams)
    cache = Held()
    torch.testing.assert_close(cross(hidden, source, visible, cache), alone)
    assert [held.shape for held in cache.cross] == [(2, 4, 6, 5)] * 2
    torch.testing.assert_close(cross(hidden, None, visible, cache), alone)
    # One row for each example reads the same keys and values.
    torch.testing.assert_close(cross(hidden[::3], None, visible, cache), alone[::3])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_rotary_attention_runs_under_autocast(dropout: float) -> None:
    """There linear layers give shorter numbers than the states have."""
    torch.manual_seed(0)
    attention = Attention(16, 4, dropout, num_key_value_heads=2)
    hidden, angles = (
        torch.randn(2, 5, 16),
        RotaryPositions().build(4).angles(torch.arange(5).expand(2, -1), torch.float32),
    )
    exact = attention.eval()(hidden, CAUSAL, angles=angles)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(attention(hidden, CAUSAL, angles=angles).float(), exact, rtol=0.05, atol=0.02)
        attention.train()(hidden, CAUSAL, angles=angles).float().sum().backward()
    assert attention.query_key_value.weight.grad.isfinite().all()
