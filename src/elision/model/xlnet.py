"""XLNet: one stack of relative attention that reads a text in two streams, and carries a memory of what came before.

Yang et al. 2019, section 2. The content stream holds what each token is, as in any encoder; the query stream stands at
the places to be restored, knows where it is but not what is there, and looks at the content of what comes earlier in the
order of the batch. Both run through the same weights.

B rows, T tokens, M tokens in memory, K = M + T keys, P distances, N places to restore, G most of these in a row,
D hidden size, F feed-forward size, L layers, S segments, V vocabulary.
"""

import dataclasses
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.data.frame import FrameName
from elision.errors import InputError
from elision.model.attention import at_places, spread
from elision.model.backbone import Output, OverTokenTable, PerToken, check_counts, check_dropout
from elision.model.block import ACTIVATIONS
from elision.model.dropout import Dropout
from elision.model.embeddings import Embeddings
from elision.model.init import NormalInit
from elision.model.relative import RelativeAttention, distance_table
from elision.model.visibility import Visible, permuted, same_document


@dataclasses.dataclass(frozen=True)
class XLNet(PerToken):
    """A bidirectional stack with relative positions, relative segments, a query stream and a memory."""

    num_layers: int
    """blocks in the stack"""
    hidden_size: int
    """width of the states and of the embeddings"""
    num_heads: int
    """attention heads; must divide hidden_size"""
    feedforward_size: int
    """width inside the feed-forward layer"""
    memory_length: int = 0
    """how many states before a row each layer remembers; needs contiguous rows (MemoryStreams). 0 = no memory"""
    reuse_length: int | None = None
    """how many tokens of a row go into the memory, from its start; the next row begins after them. None = all"""
    clamp_distance: int | None = None
    """distances beyond this count as this; None = no limit"""
    activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu_tanh"
    """exact GELU, its tanh approximation (the released code), or ReLU"""
    num_types: int = 3
    """how many segments are told apart; only whether two tokens are of the same one enters"""
    frame: FrameName = "xlnet"
    """how fine-tuning frames texts and pairs"""
    classifier: Literal["tanh", "gelu", "relu", "none"] = "tanh"
    """activation of the dense layer under a classifier; none = no such layer"""
    norm_eps: float = 1e-12
    dropout: float = 0.1
    """dropout on the embeddings, inside the feed-forward layers, on what each sublayer adds and on the output"""
    attention_dropout: float = 0.1
    """dropout on the attention weights"""
    init: NormalInit = NormalInit()

    visibility: ClassVar[str] = "bidirectional"
    num_languages: ClassVar[int] = 0
    max_length: ClassVar[None] = None
    permutes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_counts(self, "num_layers", "hidden_size", "num_heads", "feedforward_size")
        if self.hidden_size % self.num_heads or self.hidden_size % 2:
            raise InputError(
                f"hidden_size {self.hidden_size} is not an even multiple of num_heads {self.num_heads}: each head "
                f"takes an equal share of the width, and so do sines and cosines"
            )
        for name in ("memory_length", "num_types"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 0 or more")
        for name in ("reuse_length", "clamp_distance"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: it must be at least 1, or None")
        check_dropout(self)

    @property
    def embedding_width(self) -> int:
        """Width of the token table."""
        return self.hidden_size

    def check_length(self, length: int) -> None:
        """Distances have no end: any length can be read."""

    def build(self, vocab_size: int, embeddings: bool = True) -> "XLNetModel":
        """Return the module with initialised weights (PyTorch's global generator)."""
        return XLNetModel(self, vocab_size, embeddings)

    def visible(self, batch: Batch) -> Visible:
        """Return who sees whom in the content stream: the whole document, or what its order allows."""
        return same_document(batch) if batch.order is None else permuted(batch)

    @property
    def skippable_flops(self) -> float:
        """The operations of a forward pass that a place costs in the last block besides its key and value."""
        return 2.0 * (2 * self.hidden_size**2 + 2 * self.hidden_size * self.feedforward_size)

    def generator(self, width: float, depth: float) -> "XLNet":
        """Return the settings of a shallower model. Raises: InputError for a narrower one: nothing here brings embeddings
        of one width to another."""
        if width != 1:
            raise InputError(f"an XLNet has no linear layer under its blocks for a generator of width {width}: give 1")
        return dataclasses.replace(self, num_layers=max(1, round(depth * self.num_layers)), memory_length=0)

    def flops_per_token(self, row_length: int) -> float:
        """Return the floating-point operations of matrix products in the content stream, per token of a full row."""
        num_keys = row_length + self.memory_length
        keys = 2 * self.hidden_size**2 * num_keys / row_length
        projections = 2 * self.hidden_size**2 + 2 * self.hidden_size * self.feedforward_size
        # Content, distance, values; and the keys of distances, which all rows share, are left out.
        attention = 3 * num_keys * self.hidden_size
        return 2.0 * self.num_layers * (keys + projections + attention)

    def flops_per_query(self, row_length: int) -> float:
        """Return the floating-point operations of the query stream for one place to restore."""
        num_keys = row_length + self.memory_length
        projections = 2 * self.hidden_size**2 + 2 * self.hidden_size * self.feedforward_size
        attention = (2 * num_keys + num_keys + row_length) * self.hidden_size
        return 2.0 * self.num_layers * (projections + attention)


@dataclasses.dataclass(frozen=True, eq=False)
class Surroundings:
    """What all layers share: distances [P, D], and for either stream whom it sees and of which segment it is.

    content bool [B or 1, T, T] or None (everything; the memory is seen by all); segments of all keys [B, K, S] and of the
    tokens [B, T, S], each a one among zeros, or None. Of the queries, which lie in a grid of G places a row: `queries`
    bool [B, G, T], their segments [B, G, S], where in the row they stand (at [B, G]), and which of the B * G places each of
    the N is (slot).
    """

    distances: Tensor
    content: Tensor | None
    key_segments: Tensor | None
    segments: Tensor | None
    queries: Tensor | None = None
    query_segments: Tensor | None = None
    at: Tensor | None = None
    slot: Tensor | None = None


class FeedForward(nn.Module):
    """Two linear layers with an activation between them, and dropout after both."""

    def __init__(self, settings: XLNet):
        super().__init__()
        self.inner = nn.Linear(settings.hidden_size, settings.feedforward_size)
        self.output = nn.Linear(settings.feedforward_size, settings.hidden_size)
        self.activation = ACTIVATIONS[settings.activation]
        self.dropout = Dropout(settings.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return [..., D] for [..., D]."""
        return self.dropout(self.output(self.dropout(self.activation(self.inner(hidden)))))


class Block(nn.Module):
    """Attention, then feed-forward, each added to what it read and normalised; for either stream."""

    def __init__(self, settings: XLNet):
        super().__init__()
        width = settings.hidden_size
        self.attention = RelativeAttention(width, settings.num_heads, settings.attention_dropout, settings.num_types)
        self.norm_after_attention = nn.LayerNorm(width, eps=settings.norm_eps)
        self.feedforward = FeedForward(settings)
        self.norm_after_feedforward = nn.LayerNorm(width, eps=settings.norm_eps)
        self.dropout = Dropout(settings.dropout)

    def forward(
        self,
        hidden_BTD: Tensor,
        query_ND: Tensor | None,
        memory_BMD: Tensor | None,
        around: Surroundings,
        content: bool = True,
        needed_at: Tensor | None = None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return both streams one layer on: the content [B, T, D] and the queries [N, D] (None as they came in).

        content: whether anybody reads the content stream above; needed_at: if so, at which places (then [., D]).
        """
        states = hidden_BTD if memory_BMD is None else torch.cat([memory_BMD, hidden_BTD], 1)
        keys = self.attention.keys(states, around.distances, around.key_segments)
        read = None
        if content:
            asked = self.attention.query(hidden_BTD)
            mixed = self.attention(asked, keys, around.content, around.segments)
            if needed_at is not None:
                hidden_BTD, mixed = at_places(hidden_BTD, needed_at), at_places(mixed, needed_at)
            read = self._finish(hidden_BTD, mixed)
        if query_ND is not None:
            rows, most = around.at.shape
            asked = self.attention.query(query_ND)
            grid = asked.new_zeros(rows * most, asked.shape[1]).index_copy(0, around.slot, asked)
            grid = grid.view(rows, most, -1)
            mixed = self.attention(grid, keys, around.queries, around.query_segments, around.at)
            # Who sees nothing takes nothing in: the first of an order in which everything is to be restored.
            if memory_BMD is None:
                mixed = mixed * around.queries.any(-1, keepdim=True)
            query_ND = self._finish(query_ND, mixed.flatten(0, 1).index_select(0, around.slot))
        return read, query_ND

    def _finish(self, hidden: Tensor, mixed: Tensor) -> Tensor:
        hidden = self.norm_after_attention(hidden + self.dropout(self.attention.output(mixed)))
        return self.norm_after_feedforward(hidden + self.feedforward(hidden))


class XLNetModel(OverTokenTable):
    """The module of `XLNet`. Its token table also serves the output heads."""

    def __init__(self, settings: XLNet, vocab_size: int, embeddings: bool = True):
        super().__init__()
        self.settings, self.vocab_size = settings, vocab_size
        self.embeddings = None
        if embeddings:
            self.embeddings = Embeddings(vocab_size, settings.hidden_size, dropout=settings.dropout)
        # What stands at a place that is to be restored, before anything is known of it.
        self.unknown = nn.Parameter(torch.zeros(1, settings.hidden_size))
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.num_layers))
        self.dropout = Dropout(settings.dropout)
        self.pooler = None
        settings.init.apply_(self, settings.num_layers)
        with torch.no_grad():
            settings.init.weight_(self.unknown, settings.init.std)
            for block in self.blocks:
                for parameter in block.attention.parameters(recurse=False):
                    settings.init.weight_(parameter, settings.init.std)

    def forward(
        self,
        batch: Batch,
        carry: dict[str, Tensor] | None = None,
        visible: Tensor | None = None,
        needed_only: bool = False,
        embedded: Tensor | None = None,
    ) -> Output:
        """Return the states of every place of the batch; places without a token hold values that mean nothing.

        Where the batch has an order, `prediction` is the query stream, filled at places with a target; where it has
        none, both outputs are the content stream. carry: {"memory": [B, L, M, D]}, what each layer read of what came
        before, visible to all and without gradient. visible: bool [B, T, T] or None; narrows further whom a token sees.
        needed_only: with an order, the last content layer only works for summaries, if there are labels; without one, at
        `batch.needed_at`.
        """
        settings = self.settings
        hidden_BTD = self.embeddings(batch) if embedded is None else embedded
        memory_BLMD = None if carry is None else carry["memory"]
        around = self._surroundings(batch, hidden_BTD, memory_BLMD, visible)
        query_ND = None
        if around.slot is not None:
            query_ND = self.dropout(self.unknown.expand(len(batch.target_at), -1))
        needed_at = batch.needed_at if needed_only else None
        if needed_only and query_ND is not None:
            needed_at = batch.summary_at if batch.labels is not None else batch.target_at[:0]
        remembered = []
        for layer, block in enumerate(self.blocks):
            memory_BMD = None if memory_BLMD is None else memory_BLMD[:, layer]
            if settings.memory_length and batch.contiguous:
                remembered.append(self._remember(hidden_BTD, memory_BMD))
            if layer < settings.num_layers - 1:
                hidden_BTD, query_ND = block(hidden_BTD, query_ND, memory_BMD, around)
            else:
                wanted = needed_at is None or len(needed_at) > 0
                hidden, query_ND = block(hidden_BTD, query_ND, memory_BMD, around, wanted, needed_at)
        if needed_at is not None:
            hidden = hidden_BTD.new_zeros(0, settings.hidden_size) if hidden is None else hidden
            hidden = spread(hidden, needed_at, batch.inputs.shape)
        if query_ND is None:
            prediction = self.dropout(hidden)
        else:
            prediction = spread(self.dropout(query_ND), batch.target_at, batch.inputs.shape)
        return Output(hidden, prediction, {"memory": torch.stack(remembered, 1)} if remembered else None)

    def _remember(self, hidden_BTD: Tensor, memory_BMD: Tensor | None) -> Tensor:
        kept = hidden_BTD[:, : self.settings.reuse_length].detach()
        kept = kept if memory_BMD is None else torch.cat([memory_BMD.to(kept.dtype), kept], 1)
        return kept[:, -self.settings.memory_length :]

    def _surroundings(
        self, batch: Batch, hidden_BTD: Tensor, memory_BLMD: Tensor | None, visible: Tensor | None
    ) -> Surroundings:
        settings = self.settings
        length = hidden_BTD.shape[1]
        past = 0 if memory_BLMD is None else memory_BLMD.shape[2]

        def narrowed(seen: Visible) -> Tensor | None:
            if visible is not None:
                seen = seen & Visible(visible[:, None])
            return None if seen.mask is None else seen.mask[:, 0]

        distances_PD = distance_table(length, past + length, settings.hidden_size, settings.clamp_distance, hidden_BTD)
        segments = keys = None
        if settings.num_types and batch.type_ids is not None:
            # The memory counts as of the first segment. Without types, all is of one: that adds nothing to compare.
            types_BK = F.pad(batch.type_ids, (past, 0))
            keys = F.one_hot(types_BK, settings.num_types).to(hidden_BTD.dtype)
            segments = keys[:, past:]
        around = Surroundings(self.dropout(distances_PD), narrowed(settings.visible(batch)), keys, segments)
        if batch.order is None or not batch.num_targets:
            return around
        slot, at_BG = grid(batch)
        index = at_BG[:, :, None]
        earlier = narrowed(permuted(batch, itself=False))
        return dataclasses.replace(
            around,
            queries=earlier.gather(1, index.expand(-1, -1, length)),
            query_segments=None if segments is None else segments.gather(1, index.expand(-1, -1, segments.shape[2])),
            at=at_BG,
            slot=slot,
        )


def grid(batch: Batch) -> tuple[Tensor, Tensor]:
    """Lay the places with a target into a grid of G a row: returns which of B * G each is [N], and the reverse.

    The reverse, [B, G], is where in its row each stands; 0 where a row has fewer.
    """
    rows, length = batch.inputs.shape
    row_N, column_N = batch.target_at // length, batch.target_at % length
    counts_B = torch.zeros(rows, dtype=torch.long, device=row_N.device).index_add(0, row_N, torch.ones_like(row_N))
    # The count is known on the host where a loader made the batch; asking the device would wait for it.
    most = batch.most_targets or int(counts_B.max())
    before_N = (counts_B.cumsum(0) - counts_B).index_select(0, row_N)
    slot_N = row_N * most + torch.arange(len(row_N), device=row_N.device) - before_N
    at_BG = torch.zeros(rows * most, dtype=torch.long, device=row_N.device).index_copy(0, slot_N, column_N)
    return slot_N, at_BG.view(rows, most)
