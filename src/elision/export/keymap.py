"""One table for each class family says what our tensors are called in another layout, and how they lie there.

The same table reads and writes, so an export of an import is the identity.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from elision.errors import InputError


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of ours and its counterpart: several names when it lies there in parts (queries, keys, values).

    `transposed`: matrices lie there with inputs first (GPT-2's Conv1D). `shape`: what is one dimension of ours is several
    there, after any transposition (XLNet's heads and channels); None = as ours. `num_heads`: queries, keys and values lie
    there head by head, each head's three one after another (DeBERTa's in_proj); 0 = all queries first, as ours. `sizes`: how
    many of our rows each part has, where they differ (grouped queries have fewer keys and values); () = equal parts. `value`:
    what it always is here, where it has no name there because they compute it (CTRL's sines).
    """

    ours: str
    theirs: tuple[str, ...]
    transposed: bool = False
    shape: tuple[int, ...] | None = None
    num_heads: int = 0
    sizes: tuple[int, ...] = ()
    value: Tensor | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        assert len(self.sizes) in (0, len(self.theirs)), f"{self.ours}: {len(self.theirs)} names, sizes {self.sizes}"
        assert bool(self.theirs) == (self.value is None), f"{self.ours}: either it has names there or a value here"

    def parts(self, num_rows: int) -> tuple[int, ...]:
        """Return how many rows of ours, of `num_rows` in all, each part has."""
        assert not self.sizes or sum(self.sizes) == num_rows, f"{self.ours}: {num_rows} rows, sizes {self.sizes}"
        return self.sizes or (num_rows // len(self.theirs),) * len(self.theirs)

    def stored(self, part: torch.Size) -> torch.Size:
        """Return the shape there of a part that has this shape here."""
        return torch.Size(self.shape) if self.shape is not None else part[::-1] if self.transposed else part


def tensor(ours: str, *theirs: str) -> list[Entry]:
    """One tensor under its full name."""
    return [Entry(ours, theirs)]


def module(ours: str, *theirs: str, transposed: bool = False) -> list[Entry]:
    """The weight and the bias of one module."""
    return [
        Entry(f"{ours}.{part}", tuple(f"{name}.{part}" for name in theirs), transposed and part == "weight")
        for part in ("weight", "bias")
    ]


def each_layer(num_layers: int, entries: Iterable[Entry]) -> list[Entry]:
    """The entries for every layer; `{n}` in a name is the number of the layer, from 0."""
    return [
        dataclasses.replace(entry, ours=entry.ours.format(n=n), theirs=tuple(name.format(n=n) for name in entry.theirs))
        for n in range(num_layers)
        for entry in entries
    ]


class KeyMap:
    """The table of one model, used in both directions."""

    def __init__(self, entries: Iterable[Entry]):
        self.entries = tuple(entries)
        self.theirs = frozenset(name for entry in self.entries for name in entry.theirs)

    def to_theirs(self, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename, split and transpose our tensors, weights or gradients.

        Raises: InputError naming tensors that the layout has no place for (a head with a bias of its own, say).
        """
        known = {entry.ours for entry in self.entries}
        assert known <= ours.keys(), f"not in the model: {sorted(known - ours.keys())}"
        if foreign := sorted(ours.keys() - known):
            raise InputError(
                f"Hugging Face's class has no place for {_some(foreign)}: use the model through elision.load, or train it "
                f"without them"
            )
        theirs: dict[str, Tensor] = {}
        for entry in self.entries:
            if entry.value is not None:
                continue
            whole = ours[entry.ours]
            for name, part in zip(entry.theirs, whole.split(entry.parts(len(whole))), strict=True):
                lying = part.T if entry.transposed else part
                if entry.num_heads:
                    lying = _regrouped(lying, 3, entry.num_heads)
                theirs[name] = lying.reshape(entry.stored(part.shape)).contiguous()
        return theirs

    def to_ours(self, theirs: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], source: str) -> dict[str, Tensor]:
        """Rename, join and transpose their tensors into ours, which must have the given shapes.

        Raises: InputError naming the tensors that are missing, foreign or of a shape that the settings exclude.
        """
        missing, foreign = sorted(self.theirs - theirs.keys()), sorted(theirs.keys() - self.theirs)
        if missing or foreign:
            raise InputError(
                f"the weights in {source} do not fit its config.json: missing {_some(missing)}; "
                f"unknown {_some(foreign)}. Look whether num_hidden_layers (n_layer) agrees with the file"
            )
        ours: dict[str, Tensor] = {}
        for entry in self.entries:
            if entry.value is not None:
                ours[entry.ours] = entry.value.to(next(iter(theirs.values())).dtype)
                continue
            wanted = shapes[entry.ours]
            parts = []
            for name, num_rows in zip(entry.theirs, entry.parts(wanted[0]), strict=True):
                part_shape = torch.Size([num_rows, *wanted[1:]])
                stored = entry.stored(part_shape)
                if theirs[name].shape != stored:
                    raise InputError(
                        f"{name} in {source} has shape {tuple(theirs[name].shape)}, but its config.json says "
                        f"{tuple(stored)}: the two belong to different models"
                    )
                part = theirs[name].reshape(part_shape[::-1] if entry.transposed else part_shape)
                if entry.num_heads:
                    part = _regrouped(part, entry.num_heads, 3)
                parts.append(part.T if entry.transposed else part)
            ours[entry.ours] = torch.cat(parts) if len(parts) > 1 else parts[0].contiguous()
        return ours


def _regrouped(rows: Tensor, outer: int, inner: int) -> Tensor:
    """Return the rows, which lie in `outer` groups of `inner` each, in `inner` groups of `outer` each."""
    return rows.unflatten(0, (outer, inner, -1)).transpose(0, 1).flatten(0, 2)


def _some(names: list[str]) -> str:
    return (", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")) or "none"
