"""The Transformer that most systems share: BERT and GPT-2 are two settings of it.

B rows, T tokens, D hidden size, E examples, F feed-forward size, M places that are needed.
"""

import dataclasses
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.data.frame import FrameName
from elision.errors import InputError
from elision.model.attention import Attention, at_places, spread
from elision.model.backbone import Output, OverTokenTable, check_counts, check_dropout
from elision.model.cache import Cache, LayerCache
from elision.model.dropout import Dropout
from elision.model.embeddings import Embeddings
from elision.model.init import Init, NormalInit
from elision.model.position import LearnedPositions, PositionScheme
from elision.model.visibility import CAUSAL, EVERYTHING, Visible, causal_mask, same_document

ACTIVATIONS = {"gelu": F.gelu, "gelu_tanh": lambda hidden: F.gelu(hidden, approximate="tanh"), "relu": F.relu}


@dataclasses.dataclass(frozen=True)
class Transformer:
    """A stack of attention and feed-forward blocks over token, position and segment embeddings."""

    num_layers: int
    """blocks in the stack"""
    hidden_size: int
    """width of the states"""
    num_heads: int
    """attention heads; must divide hidden_size"""
    feedforward_size: int
    """width inside the feed-forward layer"""
    visibility: Literal["bidirectional", "causal"]
    """whether a token sees its whole document or only what precedes it"""
    norm: Literal["post", "pre"]
    """where layer norm sits: after each residual sum (2017, BERT) or before each sublayer (GPT-2)"""
    activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu"
    """exact GELU, its tanh approximation, or ReLU"""
    positions: PositionScheme = LearnedPositions()
    num_types: int = 0
    """segment embeddings (2 in BERT, 0 = none)"""
    num_languages: int = 0
    """language embeddings (XLM); fewer than 2 = none"""
    embedding_size: int | None = None
    """width of the embeddings where a linear layer brings them to hidden_size (ALBERT, ELECTRA); None = hidden_size"""
    sharing: Literal["none", "all", "attention", "feedforward"] = "none"
    """which weights the blocks of a group share, each sublayer with its norm (ALBERT)"""
    num_groups: int = 1
    """groups of successive blocks that share among themselves; only with sharing"""
    embedding_norm: bool = False
    """layer norm on the summed embeddings"""
    final_norm: bool = False
    """layer norm after the last block"""
    pooler: bool = False
    """a dense tanh layer on the summary token, trained with next-sentence prediction"""
    frame: FrameName = "bert"
    """how fine-tuning frames texts and pairs"""
    classifier: Literal["tanh", "gelu", "relu", "none"] = "tanh"
    """activation of the dense layer under a classifier where no pooler was trained; none = no such layer"""
    norm_eps: float = 1e-5
    dropout: float = 0.1
    """dropout on the embeddings and on what each sublayer adds"""
    attention_dropout: float = 0.1
    """dropout on the attention weights"""
    init: Init = NormalInit()

    def __post_init__(self) -> None:
        check_counts(
            self, "num_layers", "hidden_size", "num_heads", "feedforward_size", "num_groups", "embedding_width"
        )
        if self.hidden_size % self.num_heads:
            raise InputError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}: each head takes an "
                f"equal share of the width"
            )
        if self.num_groups > self.num_layers:
            raise InputError(f"num_groups is {self.num_groups}, but there are only {self.num_layers} blocks to group")
        check_dropout(self)

    @property
    def max_length(self) -> int:
        """The longest sequence it can read."""
        return self.positions.num_positions

    @property
    def embedding_width(self) -> int:
        """Width of the embeddings."""
        return self.hidden_size if self.embedding_size is None else self.embedding_size

    def check_length(self, length: int) -> None:
        """Raise InputError when a sequence of `length` tokens has positions without a vector."""
        if length > self.max_length:
            raise InputError(
                f"a sequence of {length} tokens is longer than the position table of {self.max_length}: shorten the "
                f"text or the segmenter's max_length, or raise backbone.positions.num_positions (and pretrain anew)"
            )

    def build(self, vocab_size: int, embeddings: bool = True) -> "TransformerModel":
        """Return the module with initialised weights (PyTorch's global generator)."""
        return TransformerModel(self, vocab_size, embeddings)

    def generator(self, width: float, depth: float) -> "Transformer":
        """Return the settings of a model `width` and `depth` times as large that reads embeddings of the same width.

        Its heads are as wide as these, but fewer.
        """
        num_heads, num_layers = max(1, round(width * self.num_heads)), max(1, round(depth * self.num_layers))
        hidden_size = num_heads * max(1, round(width * self.hidden_size / num_heads))
        return dataclasses.replace(
            self,
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=num_heads,
            feedforward_size=max(1, round(width * self.feedforward_size)),
            embedding_size=None if hidden_size == self.embedding_width else self.embedding_width,
            num_groups=min(self.num_groups, num_layers),
            pooler=False,
        )

    def visible(self, batch: Batch) -> Visible:
        """Return who sees whom in a batch: tokens of their own document, all of them or those before."""
        within = same_document(batch)
        return within & CAUSAL if self.visibility == "causal" or batch.causal else within

    @property
    def skippable_flops(self) -> float:
        """The operations of a forward pass that a place costs in the last block after attention."""
        return 2.0 * (self.hidden_size**2 + 2 * self.hidden_size * self.feedforward_size)

    def flops_per_token(self, row_length: int) -> float:
        """Return the floating-point operations of matrix products in a forward pass, per token of a full row."""
        projections = 4 * self.hidden_size**2 + 2 * self.hidden_size * self.feedforward_size
        attention = 2 * row_length * self.hidden_size * (0.5 if self.visibility == "causal" else 1.0)
        embedding = 0 if self.embedding_size is None else self.embedding_size * self.hidden_size
        return 2.0 * (self.num_layers * (projections + attention) + embedding)


class FeedForward(nn.Module):
    """Two linear layers with an activation between them (Vaswani et al. 2017, section 3.3)."""

    def __init__(self, settings: Transformer):
        super().__init__()
        self.inner = nn.Linear(settings.hidden_size, settings.feedforward_size)
        self.output = nn.Linear(settings.feedforward_size, settings.hidden_size)
        self.activation = ACTIVATIONS[settings.activation]

    def forward(self, hidden: Tensor) -> Tensor:
        """Return [..., D] for [..., D]."""
        return self.output(self.activation(self.inner(hidden)))


class Block(nn.Module):
    """Attention, then feed-forward, each added to what it read. The four norm slots are where papers differ.

    A block that shares holds no weights for that sublayer but uses those of the `lender`.
    """

    def __init__(self, settings: Transformer, lender: "Block | None" = None):
        super().__init__()
        sharing = settings.sharing if lender is not None else "none"
        # In tuples, so that borrowed weights are counted and saved once.
        self._attends = (lender if sharing in ("all", "attention") else self,)
        self._feeds = (lender if sharing in ("all", "feedforward") else self,)

        def norm(where: str) -> nn.Module:
            filled = settings.norm == where
            return nn.LayerNorm(settings.hidden_size, eps=settings.norm_eps) if filled else nn.Identity()

        if self._attends[0] is self:
            self.norm_before_attention = norm("pre")
            self.attention = Attention(settings.hidden_size, settings.num_heads, settings.attention_dropout)
            self.norm_after_attention = norm("post")
        if self._feeds[0] is self:
            self.norm_before_feedforward = norm("pre")
            self.feedforward = FeedForward(settings)
            self.norm_after_feedforward = norm("post")
        self.dropout = Dropout(settings.dropout)

    def forward(
        self, hidden: Tensor, visible: Visible, cache: LayerCache | None = None, needed_at: Tensor | None = None
    ) -> Tensor:
        """Return [B, T, D] for [B, T, D]; or, for the places at `needed_at` alone, [M, D].

        Keys and values need every place, but all that follows attention is done place by place.
        """
        (attends,), (feeds,) = self._attends, self._feeds
        added = attends.attention(attends.norm_before_attention(hidden), visible, cache, needed_at)
        if needed_at is not None:
            hidden = at_places(hidden, needed_at)
        hidden = attends.norm_after_attention(hidden + self.dropout(added))
        added = feeds.feedforward(feeds.norm_before_feedforward(hidden))
        return feeds.norm_after_feedforward(hidden + self.dropout(added))


class TransformerModel(OverTokenTable):
    """The module of `Transformer`. Its token table also serves the output heads."""

    def __init__(self, settings: Transformer, vocab_size: int, embeddings: bool = True):
        super().__init__()
        self.settings, self.vocab_size = settings, vocab_size
        width = settings.hidden_size
        self.embeddings = None
        if embeddings:
            self.embeddings = Embeddings(
                vocab_size,
                settings.embedding_width,
                positions=settings.positions,
                num_types=settings.num_types,
                num_languages=settings.num_languages,
                norm=nn.LayerNorm(settings.embedding_width, eps=settings.norm_eps) if settings.embedding_norm else None,
                dropout=settings.dropout,
            )
        self.project = None if settings.embedding_size is None else nn.Linear(settings.embedding_size, width)
        self.blocks = nn.ModuleList()
        for layer in range(settings.num_layers):
            first = self._group_start(layer)
            self.blocks.append(Block(settings, None if first == layer else self.blocks[first]))
        self.final_norm = nn.LayerNorm(width, eps=settings.norm_eps) if settings.final_norm else nn.Identity()
        self.pooler = nn.Linear(width, width) if settings.pooler else None
        settings.init.apply_(self, settings.num_layers)

    def _group_start(self, layer: int) -> int:
        """Return the first block of the group of block `layer`; block n is in group int(n / num_layers * num_groups)."""
        num_layers, num_groups = self.settings.num_layers, self.settings.num_groups
        return -(-(layer * num_groups // num_layers) * num_layers // num_groups)

    def forward(
        self,
        batch: Batch,
        carry: dict[str, Tensor] | None = None,
        visible: Tensor | None = None,
        needed_only: bool = False,
        embedded: Tensor | None = None,
    ) -> Output:
        """Return the states of every place of the batch; places without a token hold values that mean nothing.

        visible: bool [B, T, T] or None; narrows further whom a token sees, and must leave every token something to see.
        needed_only: the states at places that are not in `batch.needed_at` are left out (zeros).
        embedded: [B, T, E] or None, read instead of the model's own embeddings.
        """
        hidden_BTD = self.embeddings(batch) if embedded is None else embedded
        if self.project is not None:
            hidden_BTD = self.project(hidden_BTD)
        sees = self.settings.visible(batch)
        if visible is not None:
            sees = sees & Visible(visible[:, None])
        for block in self.blocks[:-1]:
            hidden_BTD = block(hidden_BTD, sees)
        needed_at = batch.needed_at if needed_only else None
        hidden = self.final_norm(self.blocks[-1](hidden_BTD, sees, needed_at=needed_at))
        if needed_at is not None:
            hidden = spread(hidden, needed_at, batch.inputs.shape)
        return Output(hidden, hidden)

    def continue_with(self, inputs_BT: Tensor, cache: Cache) -> Tensor:
        """Return the states [B, T, D] of T tokens that follow those in the cache, which takes them in (causal only)."""
        assert self.settings.visibility == "causal"
        length = inputs_BT.shape[1]
        positions = torch.arange(cache.length, cache.length + length, device=inputs_BT.device)
        hidden_BTD = self.embeddings.embed(inputs_BT, positions.expand_as(inputs_BT))
        if self.project is not None:
            hidden_BTD = self.project(hidden_BTD)
        if length == 1:
            visible = EVERYTHING
        elif cache.length == 0:
            visible = CAUSAL
        else:
            visible = Visible(causal_mask(length, cache.length + length, inputs_BT.device))
        for block, layer_cache in zip(self.blocks, cache.layers, strict=True):
            hidden_BTD = block(hidden_BTD, visible, layer_cache)
        return self.final_norm(hidden_BTD)
