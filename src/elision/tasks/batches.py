"""Examples in batches for measuring and predicting: those of similar length together, several to a row."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from elision.data.batch import Batch, collate
from elision.data.example import Example

# Examples in a forward pass, and the shortest row that examples are packed into.
EXAMPLES_PER_BATCH = 64
MIN_ROW_LENGTH = 128

Item = TypeVar("Item")


class Examples(Protocol):
    """Anything that builds examples by number."""

    def __len__(self) -> int: ...

    def example(self, index: int) -> Example: ...


def in_batches(examples: Sequence[Example], device: torch.device, packing: bool = True) -> Iterator[Batch]:
    """Yield batches that hold every example once; `batch.examples` says which, in the order of their places."""
    # Neighbours of similar length fill rows best, and leave the least empty when nothing is packed.
    order = np.argsort([len(example) for example in examples], kind="stable")
    for start in range(0, len(order), EXAMPLES_PER_BATCH):
        chosen = order[start : start + EXAMPLES_PER_BATCH].tolist()
        # Rows have room for several short examples, yet stay short enough for attention to be cheap.
        width = max(MIN_ROW_LENGTH, len(examples[chosen[-1]]))
        batch = collate(
            [examples[i] for i in chosen],
            pad_id=0,
            row_length=width,
            decoder_row_length=width,
            packing=packing,
            sources=chosen,
        )
        yield batch.to(device)


def device_of(model: nn.Module) -> torch.device:
    """Return where a model computes."""
    return next(model.parameters()).device


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of up to `size` items: a stream is read ahead by one such list, not held whole."""
    held: list[Item] = []
    for item in items:
        held.append(item)
        if len(held) == size:
            yield held
            held = []
    if held:
        yield held
