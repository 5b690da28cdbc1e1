"""What a backbone is to everybody else: to objectives, the loop, fine-tuning and export.

B rows, T tokens, D hidden size, E examples, V vocabulary, M places that are needed.
"""

import dataclasses
from typing import Protocol

import torch
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.data.frame import FrameName
from elision.errors import InputError
from elision.model.embeddings import Embeddings
from elision.model.init import Init
from elision.model.visibility import Visible


@dataclasses.dataclass(slots=True)
class Output:
    """What a backbone makes of a batch.

    hidden [B, T, D] is what fine-tuning reads. `prediction` [B, T, D] is what a pretraining head reads: the same tensor,
    unless the backbone has another stream for it (XLNet's queries, DeBERTa's mask decoder); such a stream is filled only
    at places that have a target. `carry` is what the next batch of a contiguous stream starts from (memories, LSTM
    states): tensors by name, rows first, or None.
    """

    hidden: Tensor
    prediction: Tensor
    carry: dict[str, Tensor] | None = None


class BackboneSettings(Protocol):
    """The frozen dataclass of a backbone: a member of the closed union `model.backbones.Backbone`."""

    num_layers: int
    hidden_size: int
    visibility: str
    """"bidirectional" or "causal", as objectives and fine-tuning understand it"""
    activation: str
    norm_eps: float
    init: Init
    num_types: int
    num_languages: int
    frame: FrameName
    """how texts and pairs are framed for fine-tuning"""
    classifier: str
    """activation of the dense layer under a classifier ("none": no such layer)"""

    @property
    def max_length(self) -> int | None:
        """The longest sequence it can read; None = no limit."""
        ...

    @property
    def embedding_width(self) -> int:
        """Width of the token table."""
        ...

    def forward_flops(self, batch: Batch, needed_only: bool) -> float:
        """Return the floating-point operations of matrix products in a forward pass over `batch`.

        needed_only: the states of the other places are left out.
        """
        ...

    def build(self, vocab_size: int, embeddings: bool = True) -> "BackboneModel":
        """Return the module with initialised weights; without embeddings of its own it must be handed embedded text."""
        ...

    def visible(self, batch: Batch) -> Visible:
        """Return who sees whom in a batch."""
        ...

    def check_length(self, length: int) -> None:
        """Raise InputError when a sequence of `length` tokens cannot be read."""
        ...

    def generator(self, width: float, depth: float) -> "BackboneSettings":
        """Return the settings of a smaller model of the same kind, `width` and `depth` times as large, that restores
        left-out tokens from what this model's embeddings give it (or any of that width); `prediction` is what its head
        reads. Raises: InputError where there is no such model."""
        ...


class PerToken(Protocol):
    """What settings share whose models do the same work for each token of a row: how the work of a batch is counted."""

    skippable_flops: float
    """the operations of a forward pass that a place costs which is left out by `needed_only`"""

    def flops_per_token(self, row_length: int) -> float:
        """Return the floating-point operations of matrix products in a forward pass, per token of a full row."""
        ...

    def forward_flops(self, batch: Batch, needed_only: bool) -> float:
        """Return the floating-point operations of matrix products in a forward pass over `batch`."""
        flops = self.flops_per_token(batch.inputs.shape[1]) * batch.num_tokens
        if needed_only and batch.needed_at is not None:
            flops -= self.skippable_flops * (batch.num_tokens - len(batch.needed_at))
        return flops


class BackboneModel(Protocol):
    """The module of a backbone.

    `embeddings`: tables and norm, None in a model that reads what another has embedded. `pooler`: the dense tanh layer
    that was pretrained on the summary token, or None. `blocks`: what `torch.compile` compiles one by one.
    """

    settings: BackboneSettings
    vocab_size: int
    embeddings: Embeddings | None
    pooler: nn.Linear | None
    blocks: nn.ModuleList

    def __call__(
        self,
        batch: Batch,
        carry: dict[str, Tensor] | None = None,
        visible: Tensor | None = None,
        needed_only: bool = False,
        embedded: Tensor | None = None,
    ) -> Output:
        """Return the states of a batch.

        visible: bool [B, T, T], narrows further whom a token sees. needed_only: states at places that are not in
        `batch.needed_at` may be left out (zeros). embedded [B, T, width of the token table]: read instead of the
        model's own embeddings.
        """
        ...

    @property
    def table(self) -> Tensor:
        """The token table [V, width] that output heads are tied to and that an export ships."""
        ...

    def pool(self, summary_ED: Tensor) -> Tensor:
        """Return what heads over whole examples read, [E, D]: the pooled state, or the state itself without a pooler."""
        ...

    def speak(self, language: int) -> None:
        """Have texts that do not say their language be of the one with this number, where there are several."""
        ...

    def read_symbols(self, symbols: list[str]) -> None:
        """Take in how each id is written, before training starts: ELMo's characters. Others leave it."""
        ...

    def standalone_state(self) -> dict[str, Tensor]:
        """Return the state by name as it stands without any objective's head (shared tables folded in)."""
        ...


class OverTokenTable(nn.Module):
    """What the modules share whose embeddings hold a token table (all but ELMo's)."""

    embeddings: Embeddings | None
    pooler: nn.Linear | None

    @property
    def table(self) -> Tensor:
        """The token table [V, width] that output heads are tied to."""
        return self.embeddings.table

    def pool(self, summary_ED: Tensor) -> Tensor:
        """Return what heads over whole examples read, [E, D]: the pooled state, or the state itself without a pooler."""
        return summary_ED if self.pooler is None else torch.tanh(self.pooler(summary_ED))

    def speak(self, language: int) -> None:
        """Have texts that do not say their language be of the one with this number."""
        self.embeddings.language = language

    def read_symbols(self, symbols: list[str]) -> None:
        """Nothing here depends on how a token is written."""

    def standalone_state(self) -> dict[str, Tensor]:
        """Return the state by name, with a table that rests on another one folded into one."""
        return {**self.state_dict(), "embeddings.tokens.weight": self.table.detach()}


def check_counts(settings: object, *names: str) -> None:
    """Raise InputError unless the named fields are at least 1."""
    for name in names:
        if getattr(settings, name) < 1:
            raise InputError(f"{name} is {getattr(settings, name)}: it must be at least 1")


def check_dropout(settings: object) -> None:
    """Raise InputError unless both rates of dropout are probabilities below 1."""
    for name in ("dropout", "attention_dropout"):
        if not 0 <= getattr(settings, name) < 1:
            raise InputError(f"{name} is {getattr(settings, name)}: give a probability from 0 to below 1")
