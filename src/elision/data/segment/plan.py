"""What every segmenter plans."""

from typing import Protocol

from elision.data.example import Example


class Plan(Protocol):
    """The examples of one split: `len(plan)` of them, each built from its index.

    contiguous: example n + 1 goes on where example n ends, and a model that carries something from one to the next
    wants them in that order.
    """

    contiguous: bool

    def __len__(self) -> int: ...

    def example(self, index: int) -> Example:
        """Build example `index`, 0 <= index < len(plan)."""
        ...
