"""A backbone with the heads of its objectives: the one module that the loop trains and that checkpoints hold."""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor, nn

from elision.data.batch import Batch
from elision.model.backbone import Output
from elision.model.backbones import Backbone
from elision.objectives.objective import Judged, Objective, Terms
from elision.objectives.token_prediction import TokenPrediction

T = TypeVar("T")


@dataclasses.dataclass(slots=True)
class Pass:
    """One pass over a batch: the loss terms, what the backbone made of it, and the batch as the backbone read it."""

    terms: Terms
    output: Output
    batch: Batch


class LanguageModel(nn.Module):
    """`model(batch, carry)` returns the loss terms of every objective and what the next batch starts from."""

    def __init__(self, backbone: Backbone, objectives: Sequence[Objective], vocab_size: int):
        super().__init__()
        self.backbone = backbone.build(vocab_size)
        self.objectives = tuple(objectives)
        self.heads = nn.ModuleDict({objective.name: objective.head(self.backbone) for objective in objectives})

    def forward(self, batch: Batch, carry: dict[str, Tensor] | None = None) -> tuple[Terms, dict[str, Tensor] | None]:
        """Run every objective over one pass of the backbone; returns their terms and what the next batch starts from."""
        done = self.run(batch, carry)
        return done.terms, done.output.carry

    def run(self, batch: Batch, carry: dict[str, Tensor] | None = None) -> Pass:
        """Run every objective over one pass of the backbone; returns everything that came of it."""
        terms: Terms = {}
        for objective in self.objectives:
            batch, early = objective.before(self.heads[objective.name], self.backbone, batch)
            terms |= early
        output = self.backbone(batch, carry, needed_only=self.reads_needed_only)
        for objective in self.objectives:
            terms |= objective.after(self.heads[objective.name], self.backbone, output, batch)
        return Pass(self._named(terms, batch), output, batch)

    def judge(self, done: Pass) -> dict[str, Judged]:
        """Return, by term, how often the best answer of an objective is right."""
        judged: dict[str, Judged] = {}
        for objective in self.objectives:
            judged |= objective.judge(self.heads[objective.name], self.backbone, done.output, done.batch)
        return self._named(judged, done.batch)

    def begin(self, symbols: list[str]) -> None:
        """Do what a new run does once, after initialisation: show the backbone how each id is written, and let every
        objective set what it starts from."""
        self.backbone.read_symbols(symbols)
        for objective in self.objectives:
            objective.begin(self.heads[objective.name], self.backbone, symbols)

    def compile_blocks(self) -> None:
        """Have `torch.compile` make kernels for the repeated blocks.

        One compilation serves all of them. Embeddings and heads stay as they are: they are a small part of the work,
        and how many places they see changes from step to step, which would make them compile again and again.
        """
        for module in (self.backbone, *self.heads.values()):
            for block in getattr(module, "blocks", ()):
                block.compile()

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return the count of each term of `batch`, before any pass."""
        counts = {name: count for objective in self.objectives for name, count in objective.counts(batch).items()}
        return self._named(counts, batch)

    def _named(self, values: dict[str, T], batch: Batch) -> dict[str, T]:
        """Name the values of a batch that came in turn with others after its turn: tlm for mlm, tlm_nsp for nsp."""
        if not batch.turn:
            return values
        first = self.objectives[0].name
        return {batch.turn if name == first else f"{batch.turn}_{name}": value for name, value in values.items()}

    def logits(self, batch: Batch, visible: Tensor | None = None) -> Tensor:
        """Return the scores of every token at every place, [B, T, V], by the first objective that predicts tokens.

        visible: bool [B, T, T] or None; narrows further whom a token sees.
        """
        objective = self._predicting_tokens()
        return objective.predict(self.heads[objective.name], self.backbone, batch, visible)

    def vocabulary_logits(self, hidden: Tensor) -> Tensor:
        """Return [..., V] for states [..., D]."""
        objective = self._predicting_tokens()
        return objective.logits(self.heads[objective.name], self.backbone, hidden)

    def _predicting_tokens(self) -> TokenPrediction:
        if self.token_objective is None:
            raise TypeError(f"none of the objectives {[o.name for o in self.objectives]} predicts tokens")
        return self.token_objective

    @property
    def reads_needed_only(self) -> bool:
        """Whether no objective reads the state of a place that has neither a target nor stands for an example."""
        return not any(objective.reads_everywhere for objective in self.objectives)

    @property
    def token_objective(self) -> TokenPrediction | None:
        """The objective that predicts tokens, None if there is none (in a classifier)."""
        return next((each for each in self.objectives if isinstance(each, TokenPrediction)), None)

    def num_flops(self, batch: Batch) -> float:
        """Return the floating-point operations of matrix products in a forward and backward pass over `batch`."""
        settings = self.backbone.settings
        forward = settings.forward_flops(batch, self.reads_needed_only)
        for objective in self.objectives:
            forward += objective.num_flops(self.heads[objective.name], self.backbone, batch)
        # The backward pass forms the gradient of both factors of every product.
        return 3.0 * forward

    def num_parameters(self) -> int:
        """Return how many distinct numbers are trained."""
        return sum(parameter.numel() for parameter in self.parameters())
