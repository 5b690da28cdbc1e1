"""The generator of ELECTRA: a small masked language model that fills in what the noise left out.

Clark et al. 2020, sections 2 and 3.2. Its samples stand at every place that has a target, also where the noise left the
token as it was; the main model reads those. Nothing of the main model's loss reaches it through the samples.

B rows, T tokens, E embedding width, V vocabulary, N targets.
"""

import dataclasses
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.errors import InputError
from elision.model.backbone import BackboneModel, BackboneSettings
from elision.model.block import ACTIVATIONS
from elision.model.heads import MaskedHead
from elision.objectives.objective import Term, Terms
from elision.objectives.token_prediction import TokenPrediction

GENERATOR_TERM = "generator"


@dataclasses.dataclass(frozen=True)
class Generator:
    """A smaller model of the backbone's kind, and which embeddings the two share."""

    width: float = 0.25
    """width of its states and heads, as a share of the backbone's; heads keep their size"""
    depth: float = 1.0
    """number of its layers, as a share of the backbone's"""
    sharing: Literal["all", "tokens", "none", "disentangled"] = "all"
    """all: one set of embeddings, norm included (ELECTRA's); tokens: one token table; none; disentangled: the backbone's
    token table is the generator's plus a difference, and the backbone's loss trains the difference alone (DeBERTa-v3)"""
    temperature: float = 1.0
    """what its scores are divided by before it samples"""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "temperature"):
            if getattr(self, name) <= 0:
                raise InputError(f"generator.{name} is {getattr(self, name)}: it must be more than 0")

    def settings(self, backbone: BackboneSettings) -> BackboneSettings:
        """Return the settings of the model. Raises: InputError for a backbone that has no smaller model of its kind."""
        if not hasattr(backbone, "generator"):
            raise InputError(
                f"{type(backbone).__name__} has no smaller model of its kind to serve as a generator: use a Transformer "
                f"or another encoder that restores masked tokens"
            )
        return backbone.generator(self.width, self.depth)

    def build(self, backbone: BackboneModel) -> "GeneratorModel":
        """Return the module, with initialised weights."""
        return GeneratorModel(self, backbone)


class GeneratorModel(nn.Module):
    """A small model and its head over the vocabulary. Embeddings that it shares stay the backbone's."""

    def __init__(self, settings: Generator, backbone: BackboneModel):
        super().__init__()
        self.settings = settings
        smaller = settings.settings(backbone.settings)
        self.model = smaller.build(backbone.vocab_size, embeddings=settings.sharing != "all")
        if settings.sharing == "tokens":
            self.model.embeddings.tie_to(backbone.embeddings)
        if settings.sharing == "disentangled":
            backbone.embeddings.rest_on(self.model.embeddings)
            # The difference starts at nothing, so at first the two tables are one.
            nn.init.zeros_(backbone.embeddings.tokens.weight)
        self.head = MaskedHead(
            backbone.vocab_size,
            smaller.hidden_size,
            smaller.embedding_width,
            ACTIVATIONS[smaller.activation],
            smaller.norm_eps,
        )
        smaller.init.apply_(self.head)

    def prediction(
        self, backbone: BackboneModel, batch: Batch, visible: Tensor | None = None, needed_only: bool = False
    ) -> Tensor:
        """Return the states [B, T, D] that its head reads."""
        embedded_BTE = backbone.embeddings(batch) if self.settings.sharing == "all" else None
        return self.model(batch, visible=visible, needed_only=needed_only, embedded=embedded_BTE).prediction

    def table(self, backbone: BackboneModel) -> Tensor:
        """Return the token table [V, E] that its head is tied to."""
        return backbone.table if self.settings.sharing in ("all", "tokens") else self.model.table

    def logits(self, backbone: BackboneModel, hidden: Tensor) -> Tensor:
        """Return the scores [..., V] of every token for states [..., D]."""
        return self.head.logits(hidden, self.table(backbone))

    def forward(self, backbone: BackboneModel, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed cross-entropy at the places that have a target, and int64 [N]: a sample for each."""
        hidden_ND = self.prediction(backbone, batch, needed_only=True).flatten(0, 1).index_select(0, batch.target_at)
        targets_N = batch.targets.flatten().index_select(0, batch.target_at)
        draws_N = batch.draws
        if draws_N is None:
            draws_N = torch.rand(batch.num_targets, dtype=torch.float64, device=targets_N.device)
        return self.head.loss_and_draws(hidden_ND, self.table(backbone), targets_N, draws_N, self.settings.temperature)

    def num_flops(self, batch: Batch) -> float:
        """Return the floating-point operations of a forward pass."""
        smaller = self.model.settings
        return smaller.forward_flops(batch, needed_only=True) + self.head.num_flops(
            batch.num_targets, smaller.hidden_size, self.model.vocab_size
        )


class Replacing(TokenPrediction):
    """An objective over a text in which a generator has filled in what the noise left out.

    Its head is a module with the generator as `generator`. The generator's own loss is the term "generator", with weight
    1; what the model predicts at a mask (`fill`, bits per byte) is what the generator says.
    """

    generator: Generator
    needs: ClassVar[str] = "masked"
    visibility: ClassVar[str] = "bidirectional"

    @property
    def token_term(self) -> str:
        """The term of the generator, which alone reads masks."""
        return GENERATOR_TERM

    def check(self, backbone: BackboneSettings) -> None:
        """Raise InputError for a backbone that this objective cannot work over."""
        self.generator.settings(backbone)

    def before(self, head: nn.Module, backbone: BackboneModel, batch: Batch) -> tuple[Batch, Terms]:
        """Return the batch with the generator's samples at every place that has a target, and the generator's term.

        What is sampled follows from `batch.draws`; without them, from PyTorch's global generator.
        """
        total, samples_N = head.generator(backbone, batch)
        inputs_BT = batch.inputs.flatten().index_copy(0, batch.target_at, samples_N).view_as(batch.inputs)
        return dataclasses.replace(batch, inputs=inputs_BT), {GENERATOR_TERM: Term(total, batch.num_targets)}

    def predict(self, head: nn.Module, backbone: BackboneModel, batch: Batch, visible: Tensor | None = None) -> Tensor:
        """Return the generator's scores [B, T, V] of every token at every place."""
        return head.generator.logits(backbone, head.generator.prediction(backbone, batch, visible))

    def logits(self, head: nn.Module, backbone: BackboneModel, hidden: Tensor) -> Tensor:
        """Return the generator's scores [..., V] of every token for states [..., D] of the generator."""
        return head.generator.logits(backbone, hidden)


def tokens_at(batch: Batch) -> Tensor:
    """Return int64 [num_tokens]: the places of the flattened rows that hold a token, in order.

    Sorted, since how many there are is known here, while counting them on the device would mean waiting for it.
    """
    if batch.whole_rows:
        return torch.arange(batch.num_tokens, device=batch.doc_ids.device)
    return torch.argsort((batch.doc_ids.flatten() == 0).byte(), stable=True)[: batch.num_tokens]
