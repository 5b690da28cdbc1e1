"""Batch: the waist between data and models. No model reads an Example, no loader knows a head.

Shapes: B rows, T tokens in a row (S in a row of an encoder's side), E examples in the batch, N targets in the batch.
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

    A batch for an encoder and a decoder has a second side: decoder_inputs, decoder_positions, decoder_doc_ids [B, T] and
    decoder_languages [B, T] or None, row by row of the same examples, while inputs and what lies beside them are [B, S].
    Equal ids in both sides' doc_ids are one example. targets, target_at, summary_at, needed_at and most_targets then speak
    of the decoder's places; `written_inputs`, `written_positions` and `written_doc_ids` are the side that they speak of, in
    either kind of batch. unseen [B, S] or None: bool, inputs that the decoder may not look at. num_decoder_tokens of
    the num_tokens are the decoder's. prefix [B, T] or None: bool, places that all of their document see though the model be
    causal.
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
    decoder_inputs: Tensor | None = None
    decoder_positions: Tensor | None = None
    decoder_doc_ids: Tensor | None = None
    decoder_languages: Tensor | None = None
    unseen: Tensor | None = None
    prefix: Tensor | None = None
    num_decoder_tokens: int = 0
    num_targets: int = 0
    most_targets: int = 0
    num_examples: int = 0
    num_tokens: int = 0
    causal: bool = False
    turn: str = ""
    whole_rows: bool = False
    contiguous: bool = False
    examples: tuple[int, ...] = ()

    @property
    def written_inputs(self) -> Tensor:
        """The inputs [B, T] of the side that has the targets."""
        return self.inputs if self.decoder_inputs is None else self.decoder_inputs

    @property
    def written_positions(self) -> Tensor:
        """The positions [B, T] of the side that has the targets."""
        return self.positions if self.decoder_positions is None else self.decoder_positions

    @property
    def written_doc_ids(self) -> Tensor:
        """The document ids [B, T] of the side that has the targets."""
        return self.doc_ids if self.decoder_doc_ids is None else self.decoder_doc_ids

    @property
    def decoder_side(self) -> "Batch":
        """The decoder's side by itself, as a batch for a model without an encoder."""
        return dataclasses.replace(
            self,
            inputs=self.decoder_inputs,
            positions=self.decoder_positions,
            doc_ids=self.decoder_doc_ids,
            languages=self.decoder_languages,
            type_ids=None,
            decoder_inputs=None,
            decoder_positions=None,
            decoder_doc_ids=None,
            decoder_languages=None,
            unseen=None,
        )

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


def pack(
    lengths: Sequence[int], row_length: int, others: Sequence[int] | None = None, other_row_length: int = 1
) -> list[list[int]]:
    """Lay examples into rows of `row_length` places: longest first, each into the first row with room.

    Returns, for each row, the indices of its examples. First-fit decreasing uses at most 11/9 of the fewest possible
    rows (Johnson 1973). Examples must not be longer than a row. With `others`, the lengths of the examples' second sides,
    a row has room for those too, `other_row_length` places; the longest is the one that takes the largest share of either.

    >>> pack([3, 5, 2], 5)
    [[1], [0, 2]]
    >>> pack([3, 5, 2], 8, [1, 2, 2], 4)
    [[1, 0], [2]]
    """
    others = [0] * len(lengths) if others is None else others
    rows: list[list[int]] = []
    room: list[list[int]] = []
    open_from = 0
    shortest, other_shortest = min(lengths, default=0), min(others, default=0)

    def share(index: int) -> float:
        return max(lengths[index] / row_length, others[index] / other_row_length)

    for index in sorted(range(len(lengths)), key=lambda i: -share(i)):
        length, other = lengths[index], others[index]
        assert length <= row_length and other <= other_row_length, (length, row_length, other, other_row_length)
        while open_from < len(rows) and (room[open_from][0] < shortest or room[open_from][1] < other_shortest):
            open_from += 1
        for row in range(open_from, len(rows)):
            if room[row][0] >= length and room[row][1] >= other:
                break
        else:
            row = len(rows)
            rows.append([])
            room.append([row_length, other_row_length])
        rows[row].append(index)
        room[row][0] -= length
        room[row][1] -= other
    return rows


def collate(
    examples: Sequence[Example],
    *,
    pad_id: int,
    row_length: int | None = None,
    decoder_row_length: int | None = None,
    packing: bool = True,
    causal: bool = False,
    turn: str = "",
    contiguous: bool = False,
    sources: Sequence[int] = (),
) -> Batch:
    """Lay examples into a batch: packed into rows of `row_length`, or one to a row, padded to the longest.

    `pad_id` fills empty places; no model output depends on it. `sources` names each example (its index in the data).
    Examples with decoder inputs lie in rows of two sides, `row_length` and `decoder_row_length` places; what is longer than
    these makes the rows longer.

    A worked example: examples 7 8 9 and 5 6 packed into rows of 5 give inputs 7 8 9 5 6, positions 0 1 2 0 1 and
    doc_ids 1 1 1 2 2; unpacked, inputs 7 8 9 / 5 6 pad, doc_ids 1 1 1 / 1 1 0.
    """
    two_sided = examples[0].decoder_inputs is not None
    lengths = [len(example) for example in examples]
    sizes = [len(example.decoder_inputs) for example in examples] if two_sided else None
    width = row_length if packing and row_length is not None else max(lengths)
    decoder_width = 1
    if two_sided:
        # An encoder may have nothing to read, but a row without a place is no tensor.
        width = max([width, 1, *lengths])
        decoder_width = max([decoder_row_length if packing and decoder_row_length else 1, *sizes])
    if packing:
        rows = pack(lengths, width, sizes, decoder_width)
    else:
        rows = [[index] for index in range(len(examples))]
    chosen = [index for members in rows for index in members]
    laid = _Side(rows, lengths, width)
    own = [_documents(examples[index], lengths[index]) for index in chosen]
    side = laid if sizes is None else _Side(rows, sizes, decoder_width)
    tables: dict[str, np.ndarray] = {}
    for name in ("type_ids", "languages", "order", "unseen", "prefix"):
        # What only some systems have.
        if (first := getattr(examples[0], name)) is not None:
            tables[name] = laid.table([getattr(examples[index], name) for index in chosen], first.dtype.type(0))
    if two_sided:
        read = [examples[index] for index in chosen]
        tables["decoder_inputs"] = side.table([example.decoder_inputs for example in read], pad_id)
        tables["decoder_positions"] = side.table(
            [
                np.arange(len(example.decoder_inputs))
                if example.decoder_positions is None
                else example.decoder_positions
                for example in read
            ]
        )
        tables["decoder_doc_ids"] = side.table(side.numbered([np.ones(sizes[index], np.int64) for index in chosen]))
        if read[0].decoder_languages is not None:
            tables["decoder_languages"] = side.table([example.decoder_languages for example in read])
    doc_ids = laid.table(laid.numbered(own))
    positions = laid.table(
        [
            _restarting(documents) if examples[index].positions is None else examples[index].positions
            for index, documents in zip(chosen, own, strict=True)
        ]
    )
    targets = side.table(
        [
            np.full(size, NO_TARGET) if examples[index].targets is None else examples[index].targets
            for index, size in zip(chosen, side.sizes, strict=True)
        ],
        NO_TARGET,
    )
    target_at = np.flatnonzero(targets.reshape(-1) != NO_TARGET)
    summary_at = [start + examples[index].summary for index, start in zip(chosen, side.starts, strict=True)]
    needed_at, labels = target_at, None
    if examples[0].label is not None:
        values = [examples[index].label for index in chosen]
        labels = torch.tensor(values, dtype=torch.float32 if isinstance(values[0], float) else torch.int64)
        needed_at = np.union1d(target_at, summary_at)
    boundaries = None
    if any(example.spans is not None for example in examples):
        boundaries = np.concatenate(
            [
                start + _boundaries(examples[index].spans)
                for index, start in zip(chosen, laid.starts, strict=True)
                if examples[index].spans is not None
            ]
        )
        needed_at = np.union1d(needed_at, boundaries)
    draws = None
    if examples[0].draws is not None:
        draws = laid.table([examples[index].draws for index in chosen], 0.0).reshape(-1)[target_at]
    sides = (doc_ids, tables["decoder_doc_ids"]) if two_sided else (doc_ids,)
    return Batch(
        inputs=torch.from_numpy(laid.table([examples[index].inputs for index in chosen], pad_id)),
        positions=torch.from_numpy(positions),
        doc_ids=torch.from_numpy(doc_ids),
        targets=torch.from_numpy(targets),
        target_at=torch.from_numpy(target_at),
        summary_at=torch.tensor(summary_at, dtype=torch.int64),
        **{name: torch.from_numpy(table) for name, table in tables.items()},
        boundaries=None if boundaries is None else torch.from_numpy(boundaries),
        draws=None if draws is None else torch.from_numpy(draws),
        labels=labels,
        needed_at=torch.from_numpy(needed_at) if 2 * len(needed_at) < targets.size else None,
        num_decoder_tokens=sum(sizes) if two_sided else 0,
        num_targets=len(target_at),
        most_targets=int((targets != NO_TARGET).sum(1).max()),
        num_examples=len(examples),
        num_tokens=sum(lengths) + (sum(sizes) if two_sided else 0),
        whole_rows=all(bool((ids == 1).all()) for ids in sides),
        causal=causal,
        turn=turn,
        contiguous=contiguous,
        examples=tuple(sources[index] for index in chosen) if sources else tuple(chosen),
    )


class _Side:
    """Where the examples of a batch lie: row by row, in the flattened places from `starts` on, `sizes` of them each."""

    def __init__(self, rows: list[list[int]], lengths: Sequence[int], width: int):
        self.shape = (len(rows), width)
        self.sizes = [lengths[index] for members in rows for index in members]
        self.starts: list[int] = []
        self._first_of_row: list[bool] = []
        for row, members in enumerate(rows):
            at = row * width
            for number, index in enumerate(members):
                self.starts.append(at)
                self._first_of_row.append(number == 0)
                at += lengths[index]

    def table(self, values: Sequence[np.ndarray], empty: int | float | bool = 0) -> np.ndarray:
        """Return [B, T] with the values of each example in its places: int64, float64 or bool, as `empty` is."""
        laid = np.full(self.shape[0] * self.shape[1], empty)
        for start, value in zip(self.starts, values, strict=True):
            laid[start : start + len(value)] = value
        return laid.reshape(self.shape)

    def numbered(self, documents: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the ids of each example's documents, which count from 1, counted on through its row."""
        numbered, so_far = [], 0
        for first, ids in zip(self._first_of_row, documents, strict=True):
            so_far = 0 if first else so_far
            numbered.append(so_far + ids)
            so_far += int(ids.max(initial=0))
        return numbered


def _documents(example: Example, length: int) -> np.ndarray:
    return np.ones(length, np.int64) if example.doc_ids is None else example.doc_ids


def _boundaries(spans: np.ndarray) -> np.ndarray:
    """Return [P, 3]: each place that a span restores, the place before the span and the place after it."""
    begin, end, restored = spans.astype(np.int64).T
    sizes = restored - begin
    inside = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(begin, sizes)
    return np.stack([inside, np.repeat(begin - 1, sizes), np.repeat(end, sizes)], 1)


def _restarting(doc_ids: np.ndarray) -> np.ndarray:
    """Return positions that count from 0 within each run of equal ids."""
    index = np.arange(len(doc_ids))
    if not len(doc_ids):
        return index
    starts = np.flatnonzero(np.diff(doc_ids, prepend=doc_ids[0] - 1))
    return index - np.repeat(starts, np.diff(np.append(starts, len(doc_ids))))
