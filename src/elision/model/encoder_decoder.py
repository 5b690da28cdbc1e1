"""An encoder that reads a text and a decoder that writes one: BART, T5, MASS, Marian.

B rows, S places of the encoder's side, T places of the decoder's, D hidden size, E examples.
"""

import dataclasses
from typing import Literal, Self

import torch
from torch import Tensor, nn

from elision.data.answers import Answers
from elision.data.batch import Batch
from elision.data.frame import FrameName
from elision.errors import InputError
from elision.model.backbone import Output, OverTokenTable
from elision.model.cache import Cache
from elision.model.embeddings import Embeddings
from elision.model.init import Init
from elision.model.transformer import Transformer, TransformerModel
from elision.model.visibility import EVERYTHING, Visible
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class EncoderDecoder:
    """Two stacks over one token table; every block of the second also attends to what the first made of its text."""

    encoder: Transformer
    """the stack that reads; bidirectional"""
    decoder: Transformer
    """the stack that writes; causal"""
    start: Literal["last", "pad", "bos", "zero"] = "last"
    """what the decoder reads first: the last token of what it is to write (BART's </s>, mBART's language), or a symbol; zero =
    the padding, the last symbol of the vocabulary, whose vector is and stays 0 (Marian)"""
    frame: FrameName = "roberta"
    """how fine-tuning frames what is read and what is written"""
    classifier: Literal["tanh", "gelu", "relu", "none"] = "tanh"
    """activation of the dense layer under a classifier; none = no such layer"""

    def __post_init__(self) -> None:
        for side, wanted in (("encoder", "bidirectional"), ("decoder", "causal")):
            if getattr(self, side).visibility != wanted:
                raise InputError(f"{side}.visibility is {getattr(self, side).visibility!r}: it must be {wanted!r}")
        for name in ("hidden_size", "embedding_width", "num_languages"):
            ours, theirs = getattr(self.encoder, name), getattr(self.decoder, name)
            if ours != theirs:
                raise InputError(
                    f"encoder.{name} is {ours}, but decoder.{name} is {theirs}: both sides share their token table and what "
                    f"languages are, so set both to the same"
                )
        if self.decoder.parallel:
            raise InputError("decoder.parallel is set, which has no place for attention to what was read: set it off")
        for side in (self.encoder, self.decoder):
            if side.pooler or side.num_types:
                raise InputError(
                    "an encoder and its decoder have neither pooler nor segments: set pooler and num_types off"
                )

    @property
    def visibility(self) -> Literal["encoder-decoder"]:
        """Neither bidirectional nor causal alone."""
        return "encoder-decoder"

    @property
    def num_layers(self) -> int:
        """Blocks of the decoder, whose states are what heads read."""
        return self.decoder.num_layers

    @property
    def hidden_size(self) -> int:
        """Width of the states."""
        return self.decoder.hidden_size

    @property
    def embedding_width(self) -> int:
        """Width of the token table."""
        return self.decoder.embedding_width

    @property
    def activation(self) -> str:
        """Activation of the decoder."""
        return self.decoder.activation

    @property
    def norm_eps(self) -> float:
        """What the decoder's norms add to the variance."""
        return self.decoder.norm_eps

    @property
    def init(self) -> Init:
        """How heads start: as the decoder does."""
        return self.decoder.init

    @property
    def dropout(self) -> float:
        """Dropout of the decoder."""
        return self.decoder.dropout

    @property
    def attention_dropout(self) -> float:
        """Dropout on the attention weights of the decoder."""
        return self.decoder.attention_dropout

    @property
    def num_types(self) -> int:
        """There are no segments."""
        return 0

    @property
    def num_languages(self) -> int:
        """Language embeddings, the same number on both sides."""
        return self.encoder.num_languages

    @property
    def max_length(self) -> int | None:
        """The longest text that it can read; None = no limit."""
        return self.encoder.max_length

    def check_length(self, length: int) -> None:
        """Raise InputError when a text of `length` tokens has positions without a vector."""
        self.encoder.check_length(length)

    def build(self, vocab_size: int, embeddings: bool = True) -> "EncoderDecoderModel":
        """Return the module with initialised weights (PyTorch's global generator)."""
        assert embeddings, "an encoder-decoder reads tokens"
        return EncoderDecoderModel(self, vocab_size)

    def generator(self, width: float, depth: float) -> "EncoderDecoder":
        """Refuse: a generator fills in tokens at their places. Raises: InputError."""
        raise InputError(
            "EncoderDecoder writes a text of its own, so it cannot fill in tokens that are left out at their places, which a "
            "generator of replaced tokens does: use a bidirectional Transformer"
        )

    def answers(self, vocabulary: Vocabulary) -> Answers:
        """Return how it reads examples with an answer. Raises: InputError when the symbol that starts one is missing."""
        if self.start == "last":
            return Answers()
        start = vocabulary.require("pad" if self.start == "zero" else self.start)
        if self.start == "zero" and start != vocabulary.size - 1:
            raise InputError(
                f"backbone.start is 'zero', which makes the vector of the last symbol ({vocabulary.size - 1}) zero, but the "
                f"tokenizer's padding is symbol {start}: train one with `elision prepare --tokenizer unigram --layout marian`, "
                f"or set backbone.start to 'pad'"
            )
        return Answers(start=start)

    def visible(self, batch: Batch) -> Visible:
        """Return who sees whom on the decoder's side."""
        return self.decoder.visible(batch.decoder_side)

    def source_visible(self, batch: Batch) -> Visible:
        """Return what of the encoder's side each place of the decoder's sees: the same example, without what is unseen."""
        if batch.whole_rows and batch.unseen is None:
            return EVERYTHING
        # Empty places see everything: the softmax over nothing is no number.
        same = batch.decoder_doc_ids[:, :, None] == batch.doc_ids[:, None, :]
        if batch.unseen is not None:
            same = same & ~batch.unseen[:, None, :]
        return Visible((same | (batch.decoder_doc_ids == 0)[:, :, None])[:, None])

    def forward_flops(self, batch: Batch, needed_only: bool) -> float:
        """Return the floating-point operations of matrix products in a forward pass over `batch`."""
        num_decoded = batch.num_decoder_tokens
        num_read = batch.num_tokens - num_decoded
        flops = self.encoder.flops_per_token(batch.inputs.shape[1]) * num_read
        flops += self.decoder.flops_per_token(batch.decoder_inputs.shape[1]) * num_decoded
        width = self.decoder.num_heads * self.decoder.head_width
        products = 2 * width * self.hidden_size
        # Queries and what is mixed of the values are formed for each place written, keys and values for each one read.
        flops += 2.0 * self.num_layers * products * (num_decoded + num_read)
        flops += 2.0 * self.num_layers * 2 * width * batch.inputs.shape[1] * num_decoded
        if needed_only and batch.needed_at is not None:
            flops -= self.decoder.skippable_flops * (num_decoded - len(batch.needed_at))
        return flops


class EncoderDecoderModel(OverTokenTable):
    """The module of `EncoderDecoder`. The encoder holds the token table, which the decoder and the output head share."""

    def __init__(self, settings: EncoderDecoder, vocab_size: int):
        super().__init__()
        self.settings, self.vocab_size, self.pooler = settings, vocab_size, None
        self.encoder = TransformerModel(settings.encoder, vocab_size)
        self.decoder = TransformerModel(settings.decoder, vocab_size, crosses=True)
        self.decoder.embeddings.tie_to(self.encoder.embeddings)
        if settings.start == "zero":
            with torch.no_grad():
                self.embeddings.tokens.weight[-1].zero_()
            _hold_last_row(self.embeddings.tokens.weight)

    def train(self, mode: bool = True) -> Self:
        """Set the module to training or evaluation."""
        if mode and self.settings.start == "zero":
            _hold_last_row(self.embeddings.tokens.weight)
        return super().train(mode)

    @property
    def embeddings(self) -> Embeddings:
        """The embeddings of what is read, which hold the token table."""
        return self.encoder.embeddings

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks of both stacks."""
        return [*self.encoder.blocks, *self.decoder.blocks]

    def standalone_state(self) -> dict[str, Tensor]:
        """Return the state by name: the token table is already there once."""
        return dict(self.state_dict())

    def speak(self, language: int) -> None:
        """Have texts that do not say their language be of this one, on both sides."""
        self.encoder.speak(language)
        self.decoder.speak(language)

    def forward(
        self,
        batch: Batch,
        carry: dict[str, Tensor] | None = None,
        visible: Tensor | None = None,
        needed_only: bool = False,
        embedded: Tensor | None = None,
    ) -> Output:
        """Return the decoder's states [B, T, D]; places without a token hold values that mean nothing.

        visible: bool [B, S, S] or None, narrows further whom a place of the encoder's side sees. embedded [B, S, E]: read by
        the encoder in place of its own embeddings.
        """
        source = self.encoder(batch, visible=visible, embedded=embedded).hidden
        return self.decoder(
            batch.decoder_side,
            needed_only=needed_only,
            source=source,
            source_visible=self.settings.source_visible(batch),
        )

    def cache(self, padding_B: Tensor | None = None) -> Cache:
        """Return an empty cache for the decoder alone; `read` returns one that knows the source."""
        return self.decoder.cache(padding_B)

    def read(self, batch: Batch) -> Cache:
        """Read sources, one to a row of the encoder's side; returns a cache from which their answers are decoded.

        The decoder's rows may be a multiple K of these: row e * K + k is of source e.
        """
        cache = self.decoder.cache()
        cache.source = self.encoder(batch).hidden
        seen = batch.doc_ids != 0
        if batch.unseen is not None:
            seen = seen & ~batch.unseen
        cache.source_seen = None if batch.whole_rows and batch.unseen is None else seen
        return cache

    def continue_with(self, inputs_BT: Tensor, cache: Cache) -> Tensor:
        """Return the decoder's states [B, T, D] of T tokens that follow those in the cache, which takes them in."""
        return self.decoder.continue_with(inputs_BT, cache)


def _hold_last_row(table: nn.Parameter) -> None:
    """Have no gradient reach the last row of a table, neither as an input nor as an output."""
    # A copy of a parameter, or one on another device, has neither the hook nor the mark.
    if not getattr(table, "holds_last_row", False):
        table.register_post_accumulate_grad_hook(_forget_last_row)
        table.holds_last_row = True


def _forget_last_row(table: Tensor) -> None:
    table.grad[-1].zero_()
