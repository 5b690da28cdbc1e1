"""The mechanism of key maps on tables written out here."""

import pytest
import torch

from elision.errors import InputError
from elision.export.keymap import Entry, KeyMap, each_layer, module, tensor

QUERY, KEY, VALUE = (torch.full((2, 3), float(n)) for n in range(3))
OURS = {
    "fused.weight": torch.cat([QUERY, KEY, VALUE]),
    "fused.bias": torch.arange(6.0),
    "turned.weight": torch.arange(6.0).view(2, 3),
    "turned.bias": torch.arange(2.0),
    "table": torch.eye(4),
}
TABLE = KeyMap([*module("fused", "q", "k", "v"), *module("turned", "conv", transposed=True), *tensor("table", "wte")])
SHAPES = {name: value.shape for name, value in OURS.items()}


def test_fused_tensors_are_split_and_conv1d_matrices_turned() -> None:
    theirs = TABLE.to_theirs(OURS)
    assert set(theirs) == {"q.weight", "k.weight", "v.weight", "q.bias", "k.bias", "v.bias"} | {
        "conv.weight",
        "conv.bias",
        "wte",
    }
    assert torch.equal(theirs["k.weight"], KEY)
    assert theirs["v.bias"].tolist() == [4, 5]
    assert theirs["conv.weight"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert theirs["conv.bias"].tolist() == [0, 1]
    assert all(value.is_contiguous() for value in theirs.values())


def test_there_and_back_is_the_identity() -> None:
    back = TABLE.to_ours(TABLE.to_theirs(OURS), SHAPES, "x")
    assert back.keys() == OURS.keys()
    assert all(torch.equal(back[name], OURS[name]) for name in OURS)


def test_layers_are_numbered_from_zero() -> None:
    names = [entry.theirs for entry in each_layer(2, tensor("a.{n}.b", "h.{n}.c"))]
    assert names == [("h.0.c",), ("h.1.c",)]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"k.weight": None}, "missing k.weight; unknown none"),
        ({"extra": torch.zeros(1)}, "missing none; unknown extra"),
        ({"conv.weight": torch.zeros(2, 3)}, r"conv.weight in x has shape \(2, 3\), but its config.json says \(3, 2\)"),
        ({"q.weight": torch.zeros(4, 3)}, r"q.weight in x has shape \(4, 3\), but its config.json says \(2, 3\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change: dict[str, torch.Tensor | None], message: str) -> None:
    theirs = TABLE.to_theirs(OURS) | change
    with pytest.raises(InputError, match=message):
        TABLE.to_ours({name: value for name, value in theirs.items() if value is not None}, SHAPES, "x")


def test_heads_and_channels_that_lie_apart_there_are_one_dimension_here() -> None:
    table = KeyMap(
        [Entry("kv.weight", ("k", "v"), transposed=True, shape=(3, 1, 2)), Entry("start", ("mask",), shape=(1, 1, 4))]
    )
    ours = {"kv.weight": torch.arange(12.0).view(4, 3), "start": torch.arange(4.0).view(1, 4)}
    theirs = table.to_theirs(ours)
    assert theirs["k"].tolist() == [[[0, 3]], [[1, 4]], [[2, 5]]] and theirs["mask"].shape == (1, 1, 4)
    back = table.to_ours(theirs, {name: value.shape for name, value in ours.items()}, "x")
    assert all(torch.equal(back[name], ours[name]) for name in ours)
    with pytest.raises(InputError, match=r"mask in x has shape \(4,\), but its config.json says \(1, 1, 4\)"):
        table.to_ours(theirs | {"mask": torch.zeros(4)}, {name: value.shape for name, value in ours.items()}, "x")


def test_parts_of_unequal_size_keep_their_rows() -> None:
    """Four heads of queries share one head of keys and values."""
    fused = torch.arange(18.0).view(6, 3)
    table = KeyMap([Entry("fused", ("q", "k", "v"), sizes=(4, 1, 1))])
    theirs = table.to_theirs({"fused": fused})
    assert torch.equal(theirs["q"], fused[:4])
    assert theirs["k"].tolist() == [[12, 13, 14]] and theirs["v"].tolist() == [[15, 16, 17]]
    assert torch.equal(table.to_ours(theirs, {"fused": fused.shape}, "x")["fused"], fused)
    with pytest.raises(InputError, match=r"k in x has shape \(2, 3\), but its config.json says \(1, 3\)"):
        table.to_ours(theirs | {"k": torch.zeros(2, 3)}, {"fused": fused.shape}, "x")
