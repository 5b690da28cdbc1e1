"""Transformer-XL: segment after segment of a text, each attending to what the layers read in those before.

Dai et al. 2019, "Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context". Every layer sees its own input at
the last M tokens before the segment, as it was computed then, without gradient: so what a token can depend on reaches back M
tokens with each layer. As a remembered state has another place than it had, positions are distances (section 3.3).

B rows, T tokens, M tokens in memory, K = M + T keys, P distances, D hidden size, H heads, C = D / H, F feed-forward size,
L layers, V vocabulary.
"""

import dataclasses
import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.data.frame import FrameName
from elision.errors import InputError
from elision.model.adaptive_softmax import ClusteredEmbeddings, check_cutoffs, cluster_sizes, cluster_widths
from elision.model.attention import spread
from elision.model.backbone import Output, OverTokenTable, PerToken, check_counts, check_dropout
from elision.model.dropout import Dropout
from elision.model.embeddings import Embeddings
from elision.model.recurrence import AttentionBiases, Block, RecurrentCache
from elision.model.relative import distance_table
from elision.model.visibility import CAUSAL, Visible, causal_mask, same_document


@dataclasses.dataclass(frozen=True)
class TransformerXLInit:
    """As in the released code: everything normal, also the gains of norms, around 1; biases of layers 0."""

    std: float = 0.02
    """standard deviation of matrices, embeddings, u, v and the gains of norms"""
    projection_std: float = 0.01
    """standard deviation of projections between the widths of embeddings and of states"""

    def apply_(self, module: nn.Module, num_layers: int = 0) -> None:
        """Fill every tensor of `module`, in the order of its parameters, from PyTorch's global generator."""
        with torch.no_grad():
            for name, child in module.named_modules():
                if isinstance(child, nn.Linear):
                    nn.init.normal_(child.weight, std=self.projection_std if "project" in name else self.std)
                    if child.bias is not None:
                        child.bias.zero_()
                elif isinstance(child, nn.Embedding):
                    nn.init.normal_(child.weight, std=self.std)
                elif isinstance(child, nn.LayerNorm):
                    nn.init.normal_(child.weight, mean=1.0, std=self.std)
                    child.bias.zero_()
                elif isinstance(child, AttentionBiases):
                    nn.init.normal_(child.content, std=self.std)
                    nn.init.normal_(child.distance, std=self.std)


@dataclasses.dataclass(frozen=True)
class TransformerXL(PerToken):
    """A causal stack with relative positions and a memory of what each layer read before."""

    num_layers: int
    """blocks in the stack"""
    hidden_size: int
    """width of the states"""
    num_heads: int
    """attention heads; must divide hidden_size"""
    feedforward_size: int
    """width inside the feed-forward layer"""
    memory_length: int = 0
    """how many states before a row each layer remembers; needs contiguous rows (Streams). 0 = no memory. Holds no weights:
    an evaluation may remember more than training did"""
    same_length: bool = False
    """every token sees exactly memory_length tokens, itself included; else those late in a row see more (training)"""
    clamp_distance: int | None = None
    """distances beyond this count as this; None = no limit"""
    share_biases: bool = True
    """one u and one v for all layers (PyTorch code, TensorFlow code on characters), or some for each (TensorFlow code on
    words)"""
    embedding_size: int | None = None
    """width of the embeddings where a linear layer brings them to hidden_size; None = hidden_size"""
    cutoffs: tuple[int, ...] = ()
    """ids at which clusters of rarer words begin, for AdaptiveLM and for embeddings that narrow"""
    embedding_divisor: int = 1
    """embeddings are so many times narrower from cluster to cluster; 1 = all of one width"""
    frame: FrameName = "causal"
    """how fine-tuning frames texts and pairs"""
    norm_eps: float = 1e-5
    dropout: float = 0.1
    """dropout on embeddings, distances, inside the feed-forward layers, on what each sublayer adds and on the output"""
    attention_dropout: float = 0.0
    """dropout on the attention weights"""
    init: TransformerXLInit = TransformerXLInit()

    visibility: ClassVar[str] = "causal"
    activation: ClassVar[str] = "relu"
    classifier: ClassVar[str] = "none"
    num_types: ClassVar[int] = 0
    num_languages: ClassVar[int] = 0
    max_length: ClassVar[None] = None
    # All of a row goes into the memory.
    reuse_length: ClassVar[None] = None

    def __post_init__(self) -> None:
        check_counts(
            self,
            "num_layers", "hidden_size", "num_heads", "feedforward_size", "embedding_width", "embedding_divisor",
        )  # fmt: skip
        if self.hidden_size % self.num_heads or self.hidden_size % 2:
            raise InputError(
                f"hidden_size {self.hidden_size} is not an even multiple of num_heads {self.num_heads}: each head "
                f"takes an equal share of the width, and so do sines and cosines"
            )
        if self.memory_length < 0:
            raise InputError(f"memory_length is {self.memory_length}: it must be 0 or more")
        if self.same_length and not self.memory_length:
            raise InputError("same_length is True, but memory_length is 0: say there how many tokens each one sees")
        if self.clamp_distance is not None and self.clamp_distance < 1:
            raise InputError(f"clamp_distance is {self.clamp_distance}: it must be at least 1, or None")
        check_cutoffs(self.cutoffs)
        if self.embedding_divisor > 1 and not self.cutoffs:
            raise InputError(
                f"embedding_divisor is {self.embedding_divisor}, but cutoffs is empty: say which words have narrower "
                f"embeddings, or set it to 1"
            )
        check_dropout(self)

    @property
    def embedding_width(self) -> int:
        """Width of the embeddings; of the widest of them, where they narrow."""
        return self.hidden_size if self.embedding_size is None else self.embedding_size

    def check_length(self, length: int) -> None:
        """Distances have no end: any length can be read."""

    def build(self, vocab_size: int, embeddings: bool = True) -> "TransformerXLModel":
        """Return the module with initialised weights (PyTorch's global generator)."""
        return TransformerXLModel(self, vocab_size, embeddings)

    def visible(self, batch: Batch) -> Visible:
        """Return who sees whom within a row: tokens of their own document up to themselves."""
        return same_document(batch) & CAUSAL

    def generator(self, width: float, depth: float) -> "TransformerXL":
        """Raises: InputError, since a generator fills in what was left out from both sides."""
        raise InputError(
            "a TransformerXL sees only what precedes a token, and no generator of that kind can fill one in"
        )

    @property
    def skippable_flops(self) -> float:
        """The operations of a forward pass that a place costs in the last block besides its key and value."""
        return 2.0 * (2 * self.hidden_size**2 + 2 * self.hidden_size * self.feedforward_size)

    def flops_per_token(self, row_length: int) -> float:
        """Return the floating-point operations of matrix products in a forward pass, per token of a full row."""
        width = self.hidden_size
        keys = 2 * width**2 * (row_length + self.memory_length) / row_length
        projections = 2 * width**2 + 2 * width * self.feedforward_size
        # Content, distance, values; the keys of distances, which all rows share, are left out.
        attention = 3 * (self.memory_length + row_length / 2) * width
        widened = self.embedding_width * width if self.embedding_width != width or self.embedding_divisor > 1 else 0
        return 2.0 * (self.num_layers * (keys + projections + attention) + widened)


class TransformerXLModel(OverTokenTable):
    """The module of `TransformerXL`. Its embeddings also serve the output heads."""

    def __init__(self, settings: TransformerXL, vocab_size: int, embeddings: bool = True):
        super().__init__()
        self.settings, self.vocab_size = settings, vocab_size
        width = settings.hidden_size
        self.embeddings: Embeddings | ClusteredEmbeddings | None = None
        if embeddings and settings.embedding_divisor > 1:
            sizes = cluster_sizes(settings.cutoffs, vocab_size)
            widths = cluster_widths(settings.embedding_width, settings.embedding_divisor, len(sizes))
            self.embeddings = ClusteredEmbeddings(sizes, widths, width)
        elif embeddings:
            self.embeddings = Embeddings(vocab_size, settings.embedding_width)
        widened = settings.embedding_width != width and settings.embedding_divisor == 1
        self.project = nn.Linear(settings.embedding_width, width, bias=False) if widened else None
        channels = width // settings.num_heads
        self.biases = nn.ModuleList(
            AttentionBiases(settings.num_heads, channels)
            for _ in range(1 if settings.share_biases else settings.num_layers)
        )
        self.blocks = nn.ModuleList(
            Block(
                width,
                settings.num_heads,
                settings.feedforward_size,
                norm_eps=settings.norm_eps,
                dropout=settings.dropout,
                attention_dropout=settings.attention_dropout,
            )
            for _ in range(settings.num_layers)
        )
        self.dropout = Dropout(settings.dropout)
        self.pooler = None
        settings.init.apply_(self, settings.num_layers)

    def forward(
        self,
        batch: Batch,
        carry: dict[str, Tensor] | None = None,
        visible: Tensor | None = None,
        needed_only: bool = False,
        embedded: Tensor | None = None,
    ) -> Output:
        """Return the states of every place of the batch; places without a token hold values that mean nothing.

        carry: {"memory": [B, L, M, D]}, what each layer read of what came before, visible to all (but see `same_length`)
        and without gradient. visible: bool [B, T, T] or None; narrows further whom a token sees. needed_only: the states
        at places that are not in `batch.needed_at` are left out (zeros). embedded: read instead of the model's own
        embeddings.
        """
        settings = self.settings
        hidden_BTD = self._embedded(self.embeddings(batch) if embedded is None else embedded)
        memory_BLMD = None if carry is None or not settings.memory_length else carry["memory"]
        if memory_BLMD is not None:
            memory_BLMD = memory_BLMD[:, :, -settings.memory_length :]
        past = 0 if memory_BLMD is None else memory_BLMD.shape[2]
        length = hidden_BTD.shape[1]
        distances_PD = self.dropout(
            distance_table(length, past + length, settings.hidden_size, settings.clamp_distance, hidden_BTD)
        )
        sees = self._sees(batch, past, visible)
        needed_at = batch.needed_at if needed_only else None
        remembered = []
        for layer, block in enumerate(self.blocks):
            memory_BMD = None if memory_BLMD is None else memory_BLMD[:, layer].to(hidden_BTD.dtype)
            if settings.memory_length and batch.contiguous:
                remembered.append(self._remember(hidden_BTD, memory_BMD))
            last = layer == settings.num_layers - 1
            hidden_BTD = block(
                hidden_BTD, memory_BMD, distances_PD, self._biases(layer), sees, needed_at if last else None
            )
        hidden = hidden_BTD if needed_at is None else spread(hidden_BTD, needed_at, batch.inputs.shape)
        return Output(hidden, self.dropout(hidden), {"memory": torch.stack(remembered, 1)} if remembered else None)

    def cache(self, padding_B: Tensor | None = None) -> RecurrentCache:
        """Return an empty cache. padding: how many places of padding each row will begin with."""
        settings = self.settings
        return RecurrentCache(settings.num_layers, settings.memory_length if settings.same_length else None, padding_B)

    def continue_with(self, inputs_BT: Tensor, cache: RecurrentCache) -> Tensor:
        """Return the states [B, T, D] of T tokens that follow those in the cache, which takes them in.

        The same as if all were read at once, in one row. With `same_length` each sees memory_length tokens, else all.
        """
        length = inputs_BT.shape[1]
        num_keys = cache.layers[0].num_held + length
        hidden_BTD = self._embedded(self._vectors(inputs_BT))
        self._know_distances(cache, num_keys, hidden_BTD)
        sees = cache.seen(length, num_keys)
        if sees is not None:
            sees = sees[:, 0]
        if length > 1:
            causal = self._within(length, num_keys, inputs_BT.device)
            sees = causal if sees is None else sees & causal
        for layer, (block, held) in enumerate(zip(self.blocks, cache.layers, strict=True)):
            # Nothing to the right is ever seen: what stands for the keys of such distances does not matter.
            distance = F.pad(cache.distances[layer], (0, 0, 0, length - 1))
            hidden_BTD = block.continue_with(hidden_BTD, held, distance, self._biases(layer), sees)
        cache.length += length
        return hidden_BTD

    @property
    def table(self) -> Tensor:
        """The token table [V, E] that output heads are tied to. Raises: InputError when vectors are of several widths."""
        if isinstance(self.embeddings, ClusteredEmbeddings):
            raise InputError(
                f"with backbone.embedding_divisor {self.settings.embedding_divisor} words have vectors of several widths, "
                f"which only AdaptiveLM scores words by: use that objective, or set embedding_divisor to 1"
            )
        return super().table

    def standalone_state(self) -> dict[str, Tensor]:
        """Return the state by name."""
        return dict(self.state_dict())

    def _vectors(self, inputs_BT: Tensor) -> Tensor:
        if isinstance(self.embeddings, ClusteredEmbeddings):
            return self.embeddings.embed(inputs_BT)
        return F.embedding(inputs_BT, self.table)

    def _embedded(self, vectors_BTE: Tensor) -> Tensor:
        if self.project is not None:
            vectors_BTE = self.project(vectors_BTE)
        return self.dropout(vectors_BTE * math.sqrt(self.settings.hidden_size))

    def _biases(self, layer: int) -> AttentionBiases:
        return self.biases[0 if self.settings.share_biases else layer]

    def _remember(self, hidden_BTD: Tensor, memory_BMD: Tensor | None) -> Tensor:
        kept = hidden_BTD.detach()[:, -self.settings.memory_length :]
        if memory_BMD is not None and kept.shape[1] < self.settings.memory_length:
            kept = torch.cat([memory_BMD, kept], 1)[:, -self.settings.memory_length :]
        return kept

    def _sees(self, batch: Batch, past: int, visible: Tensor | None) -> Tensor:
        """Return bool [B or 1, T, T or past + T]: whom each token sees."""
        length = batch.inputs.shape[1]
        within = self.settings.visible(batch)
        if visible is not None:
            within = within & Visible(visible[:, None])
        seen = causal_mask(length, length, batch.inputs.device)[0] if within.mask is None else within.mask[:, 0]
        if not self.settings.same_length or past + length <= self.settings.memory_length:
            return seen
        return F.pad(seen, (past, 0), value=True) & self._within(length, past + length, seen.device)

    def _within(self, num_queries: int, num_keys: int, device: torch.device) -> Tensor:
        """Return bool [1, Q, K]: the keys up to each query, with `same_length` those of its memory_length alone."""
        seen = causal_mask(num_queries, num_keys, device)[0]
        if self.settings.same_length:
            seen = seen.triu(num_keys - num_queries - self.settings.memory_length + 1)
        return seen

    @torch.no_grad()
    def _know_distances(self, cache: RecurrentCache, num_keys: int, like: Tensor) -> None:
        """Have the cache know the keys of the distances 0 to num_keys - 1: of twice as many, so that it is seldom asked."""
        if cache.num_distances >= num_keys:
            return
        table = distance_table(1, max(64, 2 * num_keys), self.settings.hidden_size, self.settings.clamp_distance, like)
        cache.distances = [block.attention.distance_keys(table) for block in self.blocks]
