"""The Transformer that most systems share: BERT, GPT-2 and LLaMA are settings of it, and either half of BART or T5.

B rows, T tokens, S places of a source, D hidden size, M places that are needed.
"""

import dataclasses
import math
from typing import Literal

import torch
from torch import Tensor, nn

from elision.data.answers import Answers
from elision.data.batch import Batch
from elision.data.frame import FrameName
from elision.errors import InputError
from elision.model.attention import spread
from elision.model.backbone import Output, OverTokenTable, PerToken, check_counts, check_dropout
from elision.model.block import Block, Reading, norm_of
from elision.model.cache import Cache
from elision.model.dropout import Dropout
from elision.model.embeddings import Embeddings
from elision.model.init import Init, NormalInit
from elision.model.position import LearnedPositions, PositionScheme
from elision.model.visibility import CAUSAL, EVERYTHING, Visible, same_document
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Transformer(PerToken):
    """A stack of attention and feed-forward blocks over token, position and segment embeddings."""

    num_layers: int
    """blocks in the stack"""
    hidden_size: int
    """width of the states"""
    num_heads: int
    """attention heads; must divide hidden_size"""
    feedforward_size: int
    """width inside the feed-forward layer"""
    visibility: Literal["bidirectional", "causal", "prefix"]
    """whether a token sees its whole document, only what precedes it, or that and all of a prefix (T5's prefix LM)"""
    norm: Literal["post", "pre"]
    """where layer norm sits: after each residual sum (2017, BERT) or before each sublayer (GPT-2)"""
    norm_kind: Literal["layer", "rms"] = "layer"
    """layer norm, or the root mean square alone without mean and bias (T5, LLaMA)"""
    parallel: bool = False
    """both sublayers read what the block read, and both are added to it (GPT-NeoX); only with norm pre"""
    activation: Literal["gelu", "gelu_tanh", "relu", "silu"] = "gelu"
    """exact GELU, its tanh approximation, ReLU, or SiLU (swish)"""
    gated: bool = False
    """the activation is that of a layer of its own and multiplies the inner one (T5 v1.1's GEGLU, LLaMA's SwiGLU)"""
    biases: Literal["all", "none", "output"] = "all"
    """which linear layers have biases; output = all but queries, keys and values (GPT-Neo)"""
    num_key_value_heads: int | None = None
    """heads of keys and values, each of which serves several of the queries' (LLaMA 2, Mistral); None = num_heads"""
    head_size: int | None = None
    """width of a head; None = hidden_size / num_heads"""
    scale_attention: bool = True
    """divide scores by the root of the head's width; T5 and GPT-Neo do not"""
    windows: tuple[int | None, ...] = ()
    """how many tokens each layer sees, itself and those before it, None = all; repeats over the layers, () = all"""
    scale_embeddings: bool = False
    """multiply token embeddings by the root of their width (2017, CTRL, mBART, Marian)"""
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
    activation_dropout: float = 0.0
    """dropout inside the feed-forward layer (T5)"""
    final_dropout: bool = False
    """dropout on the last states, too (T5)"""
    init: Init = NormalInit()

    def __post_init__(self) -> None:
        check_counts(
            self, "num_layers", "hidden_size", "num_heads", "feedforward_size", "num_groups", "embedding_width"
        )
        if self.head_size is None and self.hidden_size % self.num_heads:
            raise InputError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}: each head takes an "
                f"equal share of the width, or as much as head_size says"
            )
        if self.num_heads % self.kv_heads:
            raise InputError(
                f"num_heads {self.num_heads} is not a multiple of num_key_value_heads {self.num_key_value_heads}: each head "
                f"of keys and values serves equally many of the queries"
            )
        if self.parallel and self.norm != "pre":
            raise InputError("parallel is set, but norm is 'post', which has no place there: set norm to 'pre'")
        if any(window is not None and window < 1 for window in self.windows):
            raise InputError(f"windows is {self.windows}: a layer sees at least 1 token, itself; None = all")
        if self.visibility != "causal" and any(window is not None for window in self.windows):
            raise InputError(
                f"windows is {self.windows}, but visibility is {self.visibility!r}: a window is of what precedes a token, so set "
                f"visibility to 'causal', or windows to ()"
            )
        if self.num_groups > self.num_layers:
            raise InputError(f"num_groups is {self.num_groups}, but there are only {self.num_layers} blocks to group")
        check_dropout(self)

    @property
    def max_length(self) -> int | None:
        """The longest sequence it can read; None = no limit."""
        return self.positions.num_positions

    @property
    def kv_heads(self) -> int:
        """How many heads keys and values have."""
        return self.num_heads if self.num_key_value_heads is None else self.num_key_value_heads

    @property
    def head_width(self) -> int:
        """Width of a head."""
        return self.hidden_size // self.num_heads if self.head_size is None else self.head_size

    @property
    def embedding_width(self) -> int:
        """Width of the embeddings."""
        return self.hidden_size if self.embedding_size is None else self.embedding_size

    def check_length(self, length: int) -> None:
        """Raise InputError when a sequence of `length` tokens has positions without a vector."""
        if self.max_length is not None and length > self.max_length:
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

    def window_of(self, layer: int) -> int | None:
        """Return how many tokens block `layer` sees; None = all."""
        return self.windows[layer % len(self.windows)] if self.windows else None

    def answers(self, vocabulary: Vocabulary) -> Answers:
        """Return how it reads examples with an answer: as one text, begun with what begins or else ends a text."""
        start = next((i for i in (vocabulary.bos, vocabulary.eos, vocabulary.pad) if i is not None), None)
        return Answers(start=start, joined=True)

    def visible(self, batch: Batch) -> Visible:
        """Return who sees whom in a batch: tokens of their own document, all of them or those before."""
        within = same_document(batch)
        if self.visibility == "prefix" and batch.prefix is not None:
            length = batch.inputs.shape[1]
            before = CAUSAL.matrix(length, length, batch.inputs.device)
            return within & Visible(batch.prefix[:, None, None, :] | before)
        return within & CAUSAL if self.visibility != "bidirectional" or batch.causal else within

    @property
    def skippable_flops(self) -> float:
        """The operations of a forward pass that a place costs in the last block after attention."""
        return 2.0 * (self.num_heads * self.head_width * self.hidden_size + self._feedforward_products)

    @property
    def _feedforward_products(self) -> int:
        return (3 if self.gated else 2) * self.hidden_size * self.feedforward_size

    def flops_per_token(self, row_length: int) -> float:
        """Return the floating-point operations of matrix products in a forward pass, per token of a full row."""
        width = self.num_heads * self.head_width
        projections = (2 * width + 2 * self.kv_heads * self.head_width) * self.hidden_size
        attention = 0.0
        for layer in range(self.num_layers):
            seen = row_length * (1.0 if self.visibility == "bidirectional" else 0.5)
            attention += 2 * width * min(seen, self.window_of(layer) or seen)
        embedding = 0 if self.embedding_size is None else self.embedding_size * self.hidden_size
        return 2.0 * (self.num_layers * (projections + self._feedforward_products) + attention + embedding)


class TransformerModel(OverTokenTable):
    """The module of `Transformer`. Its token table also serves the output heads. `crosses`: its blocks read a source."""

    def __init__(self, settings: Transformer, vocab_size: int, embeddings: bool = True, crosses: bool = False):
        super().__init__()
        self.settings, self.vocab_size = settings, vocab_size
        width, scheme = settings.hidden_size, settings.positions
        self.embeddings = None
        if embeddings:
            self.embeddings = Embeddings(
                vocab_size,
                settings.embedding_width,
                positions=scheme if scheme.hook == "embed" else None,
                num_types=settings.num_types,
                num_languages=settings.num_languages,
                norm=norm_of(settings, settings.embedding_width) if settings.embedding_norm else None,
                dropout=settings.dropout,
                scale=math.sqrt(settings.embedding_width) if settings.scale_embeddings else 1.0,
            )
        self.rotary = scheme.build(settings.head_width) if scheme.hook == "rotate" else None
        self.bias = scheme.build(settings.num_heads) if scheme.hook == "bias" else None
        self.project = None if settings.embedding_size is None else nn.Linear(settings.embedding_size, width)
        self.blocks = nn.ModuleList()
        for layer in range(settings.num_layers):
            first = self._group_start(layer)
            self.blocks.append(Block(settings, None if first == layer else self.blocks[first], crosses))
        self.final_norm = norm_of(settings, width) if settings.final_norm else nn.Identity()
        self.final_dropout = Dropout(settings.dropout) if settings.final_dropout else nn.Identity()
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
        source: Tensor | None = None,
        source_visible: Visible | None = None,
    ) -> Output:
        """Return the states of every place of the batch; places without a token hold values that mean nothing.

        visible: bool [B, T, T] or None; narrows further whom a token sees, and must leave every token something to see.
        needed_only: the states at places that are not in `batch.needed_at` are left out (zeros).
        embedded: [B, T, E] or None, read instead of the model's own embeddings. source: [B, S, D], what an encoder made, of
        which each place sees what `source_visible` says.
        """
        hidden_BTD = self.embeddings(batch) if embedded is None else embedded
        if self.project is not None:
            hidden_BTD = self.project(hidden_BTD)
        sees = self.settings.visible(batch)
        if visible is not None:
            sees = sees & Visible(visible[:, None])
        reads = Reading(sees, source=source, source_visible=source_visible)
        if self.rotary is not None:
            reads.angles = self.rotary.angles(batch.positions, hidden_BTD.dtype)
        if self.bias is not None:
            places = torch.arange(hidden_BTD.shape[1], device=hidden_BTD.device)
            reads.bias = self.bias.bias(places, places, self.settings.visibility != "causal")
        within_window = self._windowed(sees)
        needed_at = batch.needed_at if needed_only else None
        last = len(self.blocks) - 1
        for layer, block in enumerate(self.blocks):
            reads.visible = within_window[self.settings.window_of(layer)]
            hidden_BTD = block(hidden_BTD, reads, needed_at=needed_at if layer == last else None)
        hidden = self.final_dropout(self.final_norm(hidden_BTD))
        if needed_at is not None:
            hidden = spread(hidden, needed_at, batch.inputs.shape)
        return Output(hidden, hidden)

    def _windowed(self, sees: Visible) -> dict[int | None, Visible]:
        """Return who sees whom in the layers of each window."""
        windows = {self.settings.window_of(layer) for layer in range(self.settings.num_layers)}
        return {window: sees if window is None else sees & Visible(window=window) for window in windows}

    def cache(self, padding_B: Tensor | None = None) -> Cache:
        """Return an empty cache for decoding; padding: how many places of padding each row begins with, None = none."""
        return Cache([self.settings.window_of(layer) for layer in range(self.settings.num_layers)], padding_B)

    def continue_with(self, inputs_BT: Tensor, cache: Cache) -> Tensor:
        """Return the states [B, T, D] of T tokens that follow those in the cache, which takes them in.

        What a prefix model reads first is its prefix.
        """
        settings = self.settings
        assert settings.visibility != "bidirectional"
        length = inputs_BT.shape[1]
        begin, end = cache.length, cache.length + length
        places = torch.arange(begin, end, device=inputs_BT.device)
        positions_BT = places.expand_as(inputs_BT)
        if cache.padding is not None:
            positions_BT = (positions_BT - cache.padding[:, None]).clamp(min=0)
        hidden_BTD = self.embeddings.embed(inputs_BT, positions_BT)
        if self.project is not None:
            hidden_BTD = self.project(hidden_BTD)
        whole = length == 1 or (begin == 0 and settings.visibility == "prefix")
        reads = Reading(EVERYTHING, source=cache.source, source_visible=EVERYTHING)
        if cache.source_seen is not None:
            reads.source_visible = Visible(cache.source_seen[:, None, None, :])
        if self.rotary is not None:
            reads.angles = self.rotary.angles(positions_BT, hidden_BTD.dtype)
        bias = None
        if self.bias is not None:
            everywhere = torch.arange(end, device=places.device)
            bias = self.bias.bias(places, everywhere, settings.visibility != "causal")
        for layer, (block, layer_cache) in enumerate(zip(self.blocks, cache.layers, strict=True)):
            window = settings.window_of(layer)
            num_keys = end if window is None else min(end, layer_cache.num_held + length)
            reads.bias = None if bias is None else bias[:, :, -num_keys:]
            seen = cache.seen(length, num_keys)
            sees = Visible(seen) if whole else Visible(seen) & CAUSAL
            # One token's cache holds no more than its window already.
            reads.visible = sees if window is None or length == 1 else sees & Visible(window=window)
            hidden_BTD = block(hidden_BTD, reads, layer_cache)
        cache.length = end
        cache.source = None
        return self.final_norm(hidden_BTD)
