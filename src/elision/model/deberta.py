"""DeBERTa: a Transformer with disentangled attention, and a mask decoder that alone knows absolute positions.

B rows, T tokens, D hidden size, E examples, M places that are needed, R rows of the table of relative positions.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.data.frame import FrameName
from elision.errors import InputError
from elision.model.attention import at_places, spread
from elision.model.backbone import Output, OverTokenTable, PerToken, check_counts, check_dropout
from elision.model.block import FeedForward
from elision.model.disentangled import DisentangledAttention, Distances, Slots, table_rows
from elision.model.dropout import Dropout
from elision.model.embeddings import Embeddings
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions
from elision.model.visibility import CAUSAL, Visible, same_document

# The mask decoder is the last block, run so often over its own answer (z_steps in the released code).
DECODER_STEPS = 2


@dataclasses.dataclass(frozen=True)
class Deberta(PerToken):
    """Post-norm blocks with disentangled attention over token embeddings without positions.

    He et al. 2020 (version 1), and 2021 (version 3; version 2 is in the authors' code). The versions are settings:

    1: a vector for each distance up to 512, with projections of its own; no bias on keys.
    2: buckets of distances, normalised and projected as content is; a convolution beside the first block.
    3: as 2 without the convolution.
    """

    num_layers: int
    """blocks in the stack"""
    hidden_size: int
    """width of the states"""
    num_heads: int
    """attention heads; must divide hidden_size"""
    feedforward_size: int
    """width inside the feed-forward layer"""
    content_to_position: bool = True
    """score a query's content against the key's relative position"""
    position_to_content: bool = True
    """score a key's content against the query's relative position"""
    position_to_position: bool = False
    """score relative positions against one another, which is a bias for each distance (left out by the paper)"""
    max_distance: int = 512
    """distances from here on are one"""
    num_buckets: int | None = None
    """distances to each side that are told apart, near ones each, far ones on a logarithmic scale (256 in versions 2
    and 3); None = all (version 1)"""
    share_projections: bool = False
    """project relative positions by the query and key weights of content (versions 2 and 3)"""
    distance_norm: bool = False
    """layer norm on the table of relative positions (versions 2 and 3)"""
    key_bias: bool = False
    """a bias on keys (versions 2 and 3)"""
    convolution: int = 0
    """width of a convolution over the embeddings that joins the output of the first block (version 2: 3; 0 = none)"""
    convolution_activation: Literal["gelu", "tanh"] = "gelu"
    """activation of the convolution"""
    mask_decoder: bool = True
    """predict masked tokens by the enhanced mask decoder: the last block run twice, first asked by the states below it
    plus absolute positions, and only at places with a target; fine-tuning reads the last block itself"""
    positions: LearnedPositions = LearnedPositions()
    """absolute positions, which only the mask decoder has"""
    activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu"
    """exact GELU, its tanh approximation, or ReLU"""
    num_types: int = 0
    """segment embeddings (0 = none, as in every published size)"""
    frame: FrameName = "bert"
    """how fine-tuning frames texts and pairs"""
    classifier: Literal["tanh", "gelu", "relu", "none"] = "gelu"
    """activation of the dense layer under a classifier; none = no such layer"""
    norm_eps: float = 1e-7
    dropout: float = 0.1
    """dropout on the embeddings, on relative positions and on what each sublayer adds"""
    attention_dropout: float = 0.1
    """dropout on the attention weights"""
    init: NormalInit = NormalInit()

    def __post_init__(self) -> None:
        check_counts(self, "num_layers", "hidden_size", "num_heads", "feedforward_size", "max_distance")
        if self.hidden_size % self.num_heads:
            raise InputError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}: each head takes an "
                f"equal share of the width"
            )
        if self.num_buckets is not None and not 4 <= self.num_buckets < 2 * (self.max_distance - 1):
            raise InputError(
                f"num_buckets is {self.num_buckets}: give a number from 4 to below {2 * (self.max_distance - 1)}, twice "
                f"the largest distance, or None to tell all distances apart"
            )
        if self.convolution < 0 or (self.convolution and self.convolution % 2 == 0):
            raise InputError(f"convolution is {self.convolution}: give an odd width, or 0 for none")
        if self.convolution and self.num_layers < 2:
            raise InputError(f"convolution is {self.convolution}: it joins the first of at least 2 blocks, not of 1")
        check_dropout(self)

    visibility = "bidirectional"
    num_languages = 0

    @property
    def num_terms(self) -> int:
        """How many relative terms a score has."""
        return self.content_to_position + self.position_to_content + self.position_to_position

    @property
    def max_length(self) -> int | None:
        """The longest sequence it can read; without a mask decoder there is no limit."""
        return self.positions.num_positions if self.mask_decoder else None

    @property
    def embedding_width(self) -> int:
        """Width of the embeddings."""
        return self.hidden_size

    @property
    def num_table_rows(self) -> int:
        """Rows of the table of relative positions."""
        return 2 * (self.max_distance if self.num_buckets is None else self.num_buckets)

    def check_length(self, length: int) -> None:
        """Raise InputError when a sequence of `length` tokens has absolute positions without a vector."""
        if self.max_length is not None and length > self.max_length:
            raise InputError(
                f"a sequence of {length} tokens is longer than the position table of {self.max_length}: shorten the "
                f"text or the segmenter's max_length, or raise backbone.positions.num_positions (and pretrain anew)"
            )

    def build(self, vocab_size: int, embeddings: bool = True) -> "DebertaModel":
        """Return the module with initialised weights (PyTorch's global generator)."""
        return DebertaModel(self, vocab_size, embeddings)

    def generator(self, width: float, depth: float) -> "Deberta":
        """Return the settings of the model, `depth` times as deep and with a mask decoder, that restores masked tokens for
        this one to judge. Raises: InputError for another width: embeddings are as wide as the states here.
        """
        if width != 1:
            raise InputError(
                f"generator.width is {width}: the embeddings of Deberta are as wide as its states, so its generator can "
                f"only be shallower. Set generator.width to 1 and lower generator.depth"
            )
        num_layers = max(1, round(depth * self.num_layers))
        convolution = self.convolution if num_layers > 1 else 0
        return dataclasses.replace(self, num_layers=num_layers, convolution=convolution, mask_decoder=True)

    def visible(self, batch: Batch) -> Visible:
        """Return who sees whom in a batch: tokens of their own document."""
        within = same_document(batch)
        return within & CAUSAL if batch.causal else within

    @property
    def skippable_flops(self) -> float:
        """The operations of a forward pass that a place costs in the last block after attention; of the mask decoder,
        in each of its steps, with the query."""
        beside = self.hidden_size**2 + 2 * self.hidden_size * self.feedforward_size
        return 2.0 * (DECODER_STEPS * (beside + self.hidden_size**2) if self.mask_decoder else beside)

    def flops_per_token(self, row_length: int) -> float:
        """Return the floating-point operations of matrix products in a forward pass, per token of a full row.

        Relative terms count once for each pair of tokens. With a mask decoder this is the cost of predicting every
        place, less the attention of its later steps, of which places without a target have none.
        """
        steps = self.num_layers + (DECODER_STEPS - 1 if self.mask_decoder else 0)
        asking = 2 * self.hidden_size**2 + 2 * self.hidden_size * self.feedforward_size
        answering = 2 * self.hidden_size**2
        pairs = 2 + self.content_to_position + self.position_to_content
        attention = pairs * row_length * self.hidden_size
        convolution = self.convolution * self.hidden_size**2
        return 2.0 * (steps * asking + self.num_layers * (answering + attention) + convolution)


class Block(nn.Module):
    """Disentangled attention, then feed-forward, each added to what it read and normalised."""

    def __init__(self, settings: Deberta):
        super().__init__()
        width = settings.hidden_size
        self.attention = DisentangledAttention(
            width,
            settings.num_heads,
            dropout=settings.attention_dropout,
            position_dropout=settings.dropout,
            content_to_position=settings.content_to_position,
            position_to_content=settings.position_to_content,
            position_to_position=settings.position_to_position,
            share_projections=settings.share_projections,
            key_bias=settings.key_bias,
        )
        self.norm_after_attention = nn.LayerNorm(width, eps=settings.norm_eps)
        self.feedforward = FeedForward(settings.hidden_size, settings.feedforward_size, settings.activation)
        self.norm_after_feedforward = nn.LayerNorm(width, eps=settings.norm_eps)
        self.dropout = Dropout(settings.dropout)

    def forward(
        self,
        hidden_BTD: Tensor,
        distances: Distances,
        visible: Visible,
        needed_at: Tensor | None = None,
        asking: Tensor | None = None,
        slots: Slots | None = None,
    ) -> Tensor:
        """Return [B, T, D] for [B, T, D]; or, for the places at `needed_at` alone, [M, D].

        asking: the block decodes. These states, [B, T, D] or [M, D] at the places of `slots`, are what asks and what is
        added to, DECODER_STEPS times; keys and values are of `hidden_BTD` each time.
        """
        if asking is None:
            added = self.attention(hidden_BTD, distances, visible, needed_at)
            return self._add(hidden_BTD if needed_at is None else at_places(hidden_BTD, needed_at), added)
        if slots is not None:
            read: Callable[[Tensor], Tensor] = self.attention.reader(hidden_BTD, distances, visible, slots)
        else:

            def read(asking_BTD: Tensor) -> Tensor:
                return self.attention(hidden_BTD, distances, visible, asking_BTD=asking_BTD)

        for _ in range(DECODER_STEPS):
            asking = self._add(asking, read(asking))
        return asking

    def _add(self, hidden: Tensor, added: Tensor) -> Tensor:
        hidden = self.norm_after_attention(hidden + self.dropout(added))
        return self.norm_after_feedforward(hidden + self.dropout(self.feedforward(hidden)))


class Convolution(nn.Module):
    """A convolution over the embeddings, added to the output of the first block and normalised (version 2).

    It does not reach across documents: beyond the ends of one are zeros.
    """

    def __init__(self, settings: Deberta):
        super().__init__()
        width = settings.hidden_size
        self.size = settings.convolution
        self.weight = nn.Parameter(torch.empty(width, width, self.size))
        self.bias = nn.Parameter(torch.zeros(width))
        self.activation = {"gelu": nn.functional.gelu, "tanh": torch.tanh}[settings.convolution_activation]
        self.dropout = Dropout(settings.dropout)
        self.norm = nn.LayerNorm(width, eps=settings.norm_eps)

    def forward(self, embedded_BTD: Tensor, hidden_BTD: Tensor, doc_ids_BT: Tensor) -> Tensor:
        """Return [B, T, D]."""
        length, reach = embedded_BTD.shape[1], self.size // 2
        padded = nn.functional.pad(embedded_BTD, (0, 0, reach, reach))
        # No document has this number.
        documents = nn.functional.pad(doc_ids_BT, (reach, reach), value=-1)
        parts = []
        for tap in range(self.size):
            part = padded[:, tap : tap + length]
            if tap != reach:
                part = part * (documents[:, tap : tap + length] == doc_ids_BT)[..., None]
            parts.append(part)
        mixed_BTD = nn.functional.linear(torch.cat(parts, -1), self.weight.transpose(1, 2).flatten(1), self.bias)
        return self.norm(hidden_BTD + self.activation(self.dropout(mixed_BTD)))


class DebertaModel(OverTokenTable):
    """The module of `Deberta`. Its token table also serves the output heads."""

    def __init__(self, settings: Deberta, vocab_size: int, embeddings: bool = True):
        super().__init__()
        self.settings, self.vocab_size = settings, vocab_size
        width = settings.hidden_size
        self.embeddings = None
        if embeddings:
            self.embeddings = Embeddings(
                vocab_size,
                width,
                num_types=settings.num_types,
                norm=nn.LayerNorm(width, eps=settings.norm_eps),
                dropout=settings.dropout,
            )
        self.distances = nn.Embedding(settings.num_table_rows, width) if settings.num_terms else None
        self.distance_norm = None
        if settings.distance_norm and settings.num_terms:
            self.distance_norm = nn.LayerNorm(width, eps=settings.norm_eps)
        self.convolution = Convolution(settings) if settings.convolution else None
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.num_layers))
        self.mask_positions = settings.positions.build(width) if settings.mask_decoder else None
        self.pooler = None
        settings.init.apply_(self, settings.num_layers)
        if self.convolution is not None:
            with torch.no_grad():
                settings.init.weight_(self.convolution.weight, settings.init.std)

    def forward(
        self,
        batch: Batch,
        carry: dict[str, Tensor] | None = None,
        visible: Tensor | None = None,
        needed_only: bool = False,
        embedded: Tensor | None = None,
    ) -> Output:
        """Return the states of every place of the batch; places without a token hold values that mean nothing.

        With a mask decoder `hidden` and `prediction` are two outcomes of the last block, and each is computed when it is
        first read: pretraining pays for the one, fine-tuning for the other.

        visible: bool [B, T, T] or None; narrows further whom a token sees, and must leave every token something to see.
        needed_only: `hidden` is left out (zeros) at places that are not in `batch.needed_at`, and the mask decoder's
        `prediction` at places that have no target.
        embedded: [B, T, D] or None, read instead of the model's own embeddings.
        """
        embedded_BTD = self.embeddings(batch) if embedded is None else embedded
        distances = self._distances(batch.inputs.shape[1], embedded_BTD)
        sees = self.settings.visible(batch)
        if visible is not None:
            sees = sees & Visible(visible[:, None])
        hidden_BTD = embedded_BTD
        for number, block in enumerate(self.blocks[:-1]):
            hidden_BTD = block(hidden_BTD, distances, sees)
            if number == 0 and self.convolution is not None:
                hidden_BTD = self.convolution(embedded_BTD, hidden_BTD, batch.doc_ids)
        last = self.blocks[-1]

        def hidden() -> Tensor:
            needed_at = batch.needed_at if needed_only else None
            states = last(hidden_BTD, distances, sees, needed_at)
            return states if needed_at is None else spread(states, needed_at, batch.inputs.shape)

        def prediction() -> Tensor:
            assert self.mask_positions is not None
            asking = hidden_BTD + self.mask_positions.embed(batch.positions)
            if not needed_only or batch.num_targets == 0:
                return last(hidden_BTD, distances, sees, asking=asking)
            slots = Slots.of(batch.target_at, *batch.inputs.shape, batch.most_targets)
            decoded_MD = last(hidden_BTD, distances, sees, asking=at_places(asking, batch.target_at), slots=slots)
            return spread(decoded_MD, batch.target_at, batch.inputs.shape)

        return Outcomes(hidden, prediction if self.mask_positions is not None else None)

    def _distances(self, length: int, like: Tensor) -> Distances | None:
        """Return the rows of the table that rows of `length` tokens need, normalised where the settings say so."""
        if self.distances is None:
            return None
        settings = self.settings
        bounds = table_rows(torch.tensor([1 - length, length - 1]), settings.max_distance, settings.num_buckets)
        first, last = bounds.tolist()
        distance_N = torch.arange(1 - length, length, device=like.device)
        rows_N = table_rows(distance_N, settings.max_distance, settings.num_buckets) - first
        vectors_RD = self.distances.weight[first : last + 1]
        return Distances(vectors_RD if self.distance_norm is None else self.distance_norm(vectors_RD), rows_N)


class Outcomes(Output):
    """An `Output` whose states are computed when they are first read."""

    __slots__ = ("_hidden", "_kept", "_prediction")

    def __init__(self, hidden: Callable[[], Tensor], prediction: Callable[[], Tensor] | None):
        self._hidden, self._prediction, self._kept = hidden, prediction, {}
        self.carry = None

    @property
    def hidden(self) -> Tensor:
        """What fine-tuning reads, [B, T, D]."""
        if "hidden" not in self._kept:
            self._kept["hidden"] = self._hidden()
        return self._kept["hidden"]

    @property
    def prediction(self) -> Tensor:
        """What a pretraining head reads, [B, T, D]."""
        if self._prediction is None:
            return self.hidden
        if "prediction" not in self._kept:
            self._kept["prediction"] = self._prediction()
        return self._kept["prediction"]
