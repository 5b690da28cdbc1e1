"""Relative attention: the fast paths compute what the formula says, with every gradient."""

import pytest
import torch
from torch import Tensor

from elision.model import relative
from elision.model.relative import Keys, RelativeAttention, attend_reference, distance_table, shifted
from elision.model.relative_blocks import _blocks, attend_relative_in_blocks

ROWS, LENGTH, WIDTH, HEADS, CHANNELS = 2, 7, 12, 3, 4


def inputs(memory: int, length: int = LENGTH) -> tuple[RelativeAttention, Tensor, Tensor, Tensor, Tensor]:
    """Return an attention with moved weights, the states of memory and text, distances, types of the keys, visibility."""
    torch.manual_seed(0)
    attention = RelativeAttention(WIDTH, HEADS, dropout=0.0, num_segments=3).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    num_keys = memory + length
    states = torch.randn(ROWS, num_keys, WIDTH, dtype=torch.float64)
    distances = distance_table(length, num_keys, WIDTH, None, states)
    types = torch.randint(0, 3, (ROWS, num_keys))
    visible = torch.rand(ROWS, length, num_keys) < 0.6
    visible |= torch.eye(num_keys, dtype=torch.bool)[memory:]
    visible[:, :, :memory] = True
    return attention, states, distances, types, visible


def by_formula(
    attention: RelativeAttention, states: Tensor, distances: Tensor, types: Tensor, visible: Tensor, at: Tensor
) -> Tensor:
    """Mix by the reference path, for the queries at places `at` [B, Q] of the text, given visible [B, Q, K]."""
    memory = states.shape[1] - LENGTH
    key, value = attention.key_value(states).view(ROWS, -1, 2, HEADS, CHANNELS).permute(2, 3, 0, 1, 4)
    asked = states[:, memory:].gather(1, at[:, :, None].expand(-1, -1, WIDTH))
    mixed = attend_reference(
        attention.query(asked).view(ROWS, -1, HEADS, CHANNELS).permute(2, 0, 1, 3),
        key,
        value,
        attention.distance(distances).view(-1, HEADS, CHANNELS).transpose(0, 1),
        (attention.content_bias, attention.distance_bias, attention.segment_bias),
        attention.segments,
        types[:, memory:].gather(1, at),
        types,
        visible,
        at,
    )
    return mixed.flatten(2)


def by_module(
    attention: RelativeAttention, states: Tensor, distances: Tensor, types: Tensor, visible: Tensor, at: Tensor | None
) -> Tensor:
    """Mix by the module itself, which is told who sees the text and lets all see the memory."""
    memory = states.shape[1] - LENGTH
    marks = torch.nn.functional.one_hot(types, 3)
    asked, own = states[:, memory:], marks[:, memory:]
    if at is not None:
        asked = asked.gather(1, at[:, :, None].expand(-1, -1, WIDTH))
        own = own.gather(1, at[:, :, None].expand(-1, -1, 3))
    keys = attention.keys(states, distances, marks)
    return attention(attention.query(asked), keys, visible[:, :, memory:], own, at)


@pytest.mark.parametrize("memory", [0, 5])
@pytest.mark.parametrize("path", ["blocks", "blocks of 3", "fused"])
@pytest.mark.parametrize("gathered", [False, True])
def test_each_path_equals_the_formula_with_every_gradient(
    memory: int, path: str, gathered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention, states, distances, types, visible = inputs(memory)
    at = torch.arange(LENGTH).expand(ROWS, -1)
    if gathered:
        at = torch.tensor([[4, 0, 6], [2, 2, 5]])
        visible = visible.gather(1, at[:, :, None].expand(-1, -1, memory + LENGTH))
    if path == "blocks of 3":
        monkeypatch.setattr("elision.model.relative_blocks.BLOCK_QUERIES", 3)
    if path == "fused":
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    wanted = [states.requires_grad_(), distances.requires_grad_(), *attention.parameters()]
    expected = by_formula(attention, states, distances, types, visible, at)
    mixed = by_module(attention, states, distances, types, visible, at if gathered else None)
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-12)
    upstream = torch.randn_like(expected)
    unused = {id(attention.output.weight)}
    wanted = [tensor for tensor in wanted if id(tensor) not in unused]
    for ours, theirs in zip(
        torch.autograd.grad(mixed, wanted, upstream), torch.autograd.grad(expected, wanted, upstream), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


def test_blocks_skip_keys_that_none_of_their_queries_may_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elision.model.relative_blocks.BLOCK_QUERIES", 2)
    attention, states, distances, types, _ = inputs(memory=3)
    causal = torch.ones(LENGTH, LENGTH + 3, dtype=torch.bool).tril(3).expand(ROWS, -1, -1)
    at = torch.arange(LENGTH).expand(ROWS, -1)
    assert [seen for _, _, seen in _blocks(LENGTH, LENGTH + 3, causal[:, :, 3:])] == [5, 7, 9, 10]
    mixed = by_module(attention, states, distances, types, causal, None)
    torch.testing.assert_close(mixed, by_formula(attention, states, distances, types, causal, at), rtol=0, atol=1e-12)


def test_row_t_of_the_distance_table_is_sines_then_cosines_of_distance_k_minus_1_minus_t() -> None:
    table = distance_table(3, 5, 4, None, torch.zeros((), dtype=torch.float64))
    for row, distance in enumerate([4, 3, 2, 1, 0, -1, -2]):
        angles = torch.tensor([distance / 1.0, distance / 100.0], dtype=torch.float64)
        torch.testing.assert_close(table[row], torch.cat([angles.sin(), angles.cos()]), rtol=0, atol=1e-6)
    clamped = distance_table(3, 5, 4, 2, torch.zeros(()))
    assert torch.equal(clamped[0], clamped[2]) and not torch.equal(clamped[2], clamped[3])


def test_the_skewed_view_reads_the_score_of_distance_m_plus_i_minus_j() -> None:
    num_queries, num_keys = 4, 6
    distances = torch.arange(num_keys - 1, -num_queries, -1).double()
    by_key = shifted(distances.expand(1, 1, num_queries, -1), num_keys, None)[0, 0]
    for i in range(num_queries):
        for j in range(num_keys):
            assert by_key[i, j] == (num_keys - num_queries) + i - j


def test_dropped_weights_follow_from_the_seed_and_keep_the_mean() -> None:
    torch.manual_seed(0)
    content, distance = torch.randn(2, 1, 40, 4), torch.zeros(2, 1, 40, 4)
    key, value = torch.randn(2, 1, 50, 4), torch.ones(2, 1, 50, 4)
    table = torch.zeros(2, 89, 4)

    def mixed(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return attend_relative_in_blocks(content, distance, key, value, table, None, None, 0.3)

    assert torch.equal(mixed(1), mixed(1)) and not torch.equal(mixed(1), mixed(2))
    several = torch.stack([mixed(seed) for seed in range(30)])
    assert several.std() > 0.05
    assert abs(float(several.mean()) - 1) < 0.02


@pytest.mark.parametrize("gathered", [False, True])
def test_gradients_with_dropout_are_those_of_the_same_drop(gathered: bool) -> None:
    torch.manual_seed(0)
    shapes = [(2, 2, 3, 6), (2, 2, 3, 4), (2, 2, 5, 6), (2, 2, 5, 4), (2, 7, 4)]
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    visible = torch.rand(2, 3, 5) < 0.7
    visible[:, :, 0] = True
    places = relative.distance_of(torch.tensor([[2, 0, 1], [1, 1, 2]]), 5, 7) if gathered else None

    def dropped(*tensors: Tensor) -> Tensor:
        torch.manual_seed(3)
        return attend_relative_in_blocks(*tensors, visible, places, 0.25)

    assert torch.autograd.gradcheck(dropped, tensors)


def test_without_types_everything_is_of_one_segment() -> None:
    attention, states, distances, _, visible = inputs(memory=2)
    keys = attention.keys(states, distances, None)
    asked = attention.query(states[:, 2:])
    same = torch.zeros(ROWS, LENGTH + 2, dtype=torch.long)
    expected = by_module(attention, states, distances, same, visible, None)
    torch.testing.assert_close(attention(asked, keys, visible[:, :, 2:], None), expected, rtol=0, atol=1e-12)
    assert isinstance(keys, Keys) and keys.key.shape == (HEADS, ROWS, LENGTH + 2, CHANNELS)
