"""Batch: the waist between data and models. No model reads an Example, no loader knows a head.

Shapes: B rows, T tokens in a row, E examples in the batch, N targets in the batch.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from elision.data.example import NO_TARGET, Example


@dataclasses.dataclass(eq=False, slots=True)
class Batch:
    """Examples laid into rows: several to a row when packed, never visible to each other.

    Tensors: inputs, positions, doc_ids [B, T] (doc id 0 = empty place, ids count documents within a row from 1, and
    positions restart with each); type_ids, languages [B, T] or None; order [B, T] or None, the place of each token in a
    permutation; targets [B, T], -100 where there is none. target_at [N] and
    summary_at [E] are indices into the flattened B * T places: where a target is, and where the state lies that stands
    for an example. labels [E], int64 classes or float32 scores, or None. draws [N] or None: float64 from 0 to 1, one for
    each target, for an objective that draws something there: it then depends on the example and not on its place here.

    needed_at [M] are the places whose final state anybody reads: targets, and summaries when there are labels. None when
    that is most of them. A model whose objectives read nothing else may leave the other places' last layer out.

    Counts known without asking the device: num_targets, most_targets (in one row; 0 = nobody counted), num_examples,
    num_tokens (places that hold a token).
    boundaries [P, 3] or None: for every token of a span that its boundary tokens are to restore, the places (of the
    flattened B * T) of the token, of the boundary on its left and of that on its right. `causal`: no token may see what
    follows it, whatever the backbone allows. `turn`: which kind of batch it is, where a recipe reads several in turn; the
    first kind has no name. `whole_rows`: every row is exactly one document without empty places, so
    attention needs no document mask. `contiguous`: each row goes on in the same row of the next batch, so that a model that
    carries something over should.
    `examples`: where each example came from, in the order of summary_at.
    """

    inputs: Tensor
    positions: Tensor
    doc_ids: Tensor
    targets: Tensor
    target_at: Tensor
    summary_at: Tensor
    type_ids: Tensor | None = None
    languages: Tensor | None = None
    order: Tensor | None = None
    boundaries: Tensor | None = None
    draws: Tensor | None = None
    labels: Tensor | None = None
    needed_at: Tensor | None = None
    num_targets: int = 0
    most_targets: int = 0
    num_examples: int = 0
    num_tokens: int = 0
    causal: bool = False
    turn: str = ""
    whole_rows: bool = False
    contiguous: bool = False
    examples: tuple[int, ...] = ()

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`; copies from pinned memory do not wait."""
        moved = {
            field.name: value.to(device, non_blocking=True)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return dataclasses.replace(self, **moved)

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory, from which a GPU copies while it computes."""
        pinned = {
            field.name: value.pin_memory()
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return dataclasses.replace(self, **pinned)

    def fingerprint(self) -> str:
        """Return a short hash of what the batch holds, to name it in reports."""
        digest = hashlib.sha256()
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), Tensor):
                digest.update(value.cpu().numpy().tobytes())
        return digest.hexdigest()[:16]


def pack(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Lay examples into rows of `row_length` places: longest first, each into the first row with room.

    Returns, for each row, the indices of its examples. First-fit decreasing uses at most 11/9 of the fewest possible
    rows (Johnson 1973). Examples must not be longer than a row.

    >>> pack([3, 5, 2], 5)
    [[1], [0, 2]]
    """
    rows: list[list[int]] = []
    room: list[int] = []
    open_from = 0
    shortest = min(lengths, default=0)
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        assert length <= row_length, (length, row_length)
        while open_from < len(rows) and room[open_from] < shortest:
            open_from += 1
        for row in range(open_from, len(rows)):
            if room[row] >= length:
                rows[row].append(index)
                room[row] -= length
                break
        else:
            rows.append([index])
            room.append(row_length - length)
    return rows


def collate(
    examples: Sequence[Example],
    *,
    pad_id: int,
    row_length: int | None = None,
    packing: bool = True,
    causal: bool = False,
    turn: str = "",
    contiguous: bool = False,
    sources: Sequence[int] = (),
) -> Batch:
    """Lay examples into a batch: packed into rows of `row_length`, or one to a row, padded to the longest.

    `pad_id` fills empty places; no model output depends on it. `sources` names each example (its index in the data).

    A worked example: examples 7 8 9 and 5 6 packed into rows of 5 give inputs 7 8 9 5 6, positions 0 1 2 0 1 and
    doc_ids 1 1 1 2 2; unpacked, inputs 7 8 9 / 5 6 pad, doc_ids 1 1 1 / 1 1 0.
    """
    lengths = [len(example) for example in examples]
    longest = max(lengths)
    width = row_length if packing and row_length is not None else longest
    rows = pack(lengths, width) if packing else [[index] for index in range(len(examples))]
    shape = (len(rows), width)
    inputs = np.full(shape, pad_id, np.int64)
    positions = np.zeros(shape, np.int64)
    doc_ids = np.zeros(shape, np.int64)
    targets = np.full(shape, NO_TARGET, np.int64)
    # What only some systems have, by name.
    others = {
        name: np.zeros(shape, np.int64)
        for name in ("type_ids", "languages", "order")
        if getattr(examples[0], name) is not None
    }
    draws = np.zeros(shape) if examples[0].draws is not None else None
    boundaries: list[np.ndarray] = []
    summary_at, chosen = [], []
    for row, members in enumerate(rows):
        at, num_documents = 0, 0
        for index in members:
            example, end = examples[index], at + lengths[index]
            inputs[row, at:end] = example.inputs
            if example.doc_ids is None:
                positions[row, at:end] = np.arange(lengths[index])
                doc_ids[row, at:end] = num_documents + 1
                num_documents += 1
            else:
                positions[row, at:end] = _restarting(example.doc_ids)
                doc_ids[row, at:end] = num_documents + example.doc_ids
                num_documents += int(example.doc_ids.max())
            if example.positions is not None:
                positions[row, at:end] = example.positions
            if example.targets is not None:
                targets[row, at:end] = example.targets
            for name, table in others.items():
                table[row, at:end] = getattr(example, name)
            if draws is not None:
                draws[row, at:end] = example.draws
            if example.spans is not None:
                boundaries.append(row * width + at + _boundaries(example.spans))
            summary_at.append(row * width + at + example.summary)
            chosen.append(index)
            at = end
    target_at = np.flatnonzero(targets.reshape(-1) != NO_TARGET)
    needed_at, labels = target_at, None
    if examples[0].label is not None:
        values = [examples[index].label for index in chosen]
        labels = torch.tensor(values, dtype=torch.float32 if isinstance(values[0], float) else torch.int64)
        needed_at = np.union1d(target_at, summary_at)
    if boundaries:
        needed_at = np.union1d(needed_at, np.concatenate(boundaries))
    return Batch(
        inputs=torch.from_numpy(inputs),
        positions=torch.from_numpy(positions),
        doc_ids=torch.from_numpy(doc_ids),
        targets=torch.from_numpy(targets),
        target_at=torch.from_numpy(target_at),
        summary_at=torch.tensor(summary_at, dtype=torch.int64),
        **{name: torch.from_numpy(table) for name, table in others.items()},
        boundaries=torch.from_numpy(np.concatenate(boundaries)) if boundaries else None,
        draws=torch.from_numpy(draws.reshape(-1)[target_at]) if draws is not None else None,
        labels=labels,
        needed_at=torch.from_numpy(needed_at) if 2 * len(needed_at) < inputs.size else None,
        num_targets=len(target_at),
        most_targets=int((targets != NO_TARGET).sum(1).max()),
        num_examples=len(examples),
        num_tokens=sum(lengths),
        whole_rows=bool((doc_ids == 1).all()),
        causal=causal,
        turn=turn,
        contiguous=contiguous,
        examples=tuple(sources[index] for index in chosen) if sources else tuple(chosen),
    )


def _boundaries(spans: np.ndarray) -> np.ndarray:
    """Return [P, 3]: each place that a span restores, the place before the span and the place after it."""
    begin, end, restored = spans.astype(np.int64).T
    sizes = restored - begin
    inside = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(begin, sizes)
    return np.stack([inside, np.repeat(begin - 1, sizes), np.repeat(end, sizes)], 1)


def _restarting(doc_ids: np.ndarray) -> np.ndarray:
    """Return positions that count from 0 within each run of equal ids."""
    index = np.arange(len(doc_ids))
    starts = np.flatnonzero(np.diff(doc_ids, prepend=doc_ids[0] - 1))
    return index - np.repeat(starts, np.diff(np.append(starts, len(doc_ids))))
