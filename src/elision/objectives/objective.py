"""What an objective is: what must be restored, and what a mistake costs."""

import dataclasses
from typing import ClassVar, Protocol

from torch import Tensor, nn

from elision.data.batch import Batch
from elision.model.backbone import BackboneModel, Output


@dataclasses.dataclass(slots=True)
class Term:
    """One part of a loss on one microbatch: a sum, over how many things, and how much it weighs.

    The loop divides the sum by the count over all microbatches and ranks of the step; `count` is known without asking
    the device.
    """

    sum: Tensor
    count: int
    weight: float = 1.0


Terms = dict[str, Term]


@dataclasses.dataclass(slots=True)
class Judged:
    """How often an objective's best answers are right: `right` of `count`.

    labels: what the true answers were, where they are few (yes or no), so that the more frequent one can be told; else None.
    """

    right: Tensor
    count: int
    labels: Tensor | None = None


class Objective(Protocol):
    """One objective of a recipe. Several share one pass of the backbone over the batch."""

    name: ClassVar[str]
    reads_everywhere: ClassVar[bool] = False
    """whether it reads the state of places that have neither a target nor stand for an example"""
    pretraining_only: ClassVar[bool] = False
    """whether its head is of no use afterwards: an export, whose classes have no place for it, leaves it out"""

    def head(self, backbone: BackboneModel) -> nn.Module:
        """Build the parameters that belong to the objective and not to the backbone."""
        ...

    def begin(self, head: nn.Module, backbone: BackboneModel, symbols: list[str]) -> None:
        """Set weights at the start of a new run, after initialisation (DistilBERT takes its teacher's layers).

        symbols: how each id is written.
        """

    def before(self, head: nn.Module, backbone: BackboneModel, batch: Batch) -> tuple[Batch, Terms]:
        """Change what the backbone will read (ELECTRA puts a generator's samples in); default: nothing."""
        return batch, {}

    def after(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> Terms:
        """Return the loss terms, given what the backbone made of the batch."""
        ...

    def judge(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> dict[str, Judged]:
        """Return, by term, how often the best answer is right (evaluation only); default: nothing to judge."""
        return {}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the count of each term of `batch`, before any pass: what the loop divides by."""
        ...

    def num_flops(self, head: nn.Module, backbone: BackboneModel, batch: Batch) -> float:
        """Return the floating-point operations of the head's forward pass."""
        ...
