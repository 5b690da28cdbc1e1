"""Texts as vectors: of every token in every layer, or one for the whole text.

L layers, T tokens, D hidden size.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from elision.data.batch import Batch
from elision.errors import InputError
from elision.model.encoder_decoder import EncoderDecoderModel

if TYPE_CHECKING:
    from elision.loaded import Loaded

# Texts in a forward pass.
EMBED_ROWS = 32

Layers = Literal["mix", "all"] | int


@dataclasses.dataclass(frozen=True, slots=True)
class EmbeddedText:
    """One text: its tokens as the vocabulary writes them, special symbols left out, and their states [L, T, D]."""

    tokens: list[str]
    states: Tensor

    @property
    def vector(self) -> Tensor:
        """The mean over the tokens, [L, D]."""
        return self.states.mean(1)


def embedded_texts(loaded: "Loaded", texts: Iterable[str], layers: Layers = "mix") -> Iterator[EmbeddedText]:
    """Yield every text with the states of its tokens, on the CPU, in constant memory.

    layers: "mix" is what fine-tuning reads (the last layer; ELMo's mix of all), so L is 1. "all", or the number of one,
    for models that show their layers (ELMo: 0 is the word without context).

    Raises: InputError for an empty text, one that is longer than the model reads, or a layer that there is not.
    """
    check_layers(loaded, layers)
    held: list[str] = []
    number = 0
    for text in texts:
        held.append(text)
        if len(held) == EMBED_ROWS:
            yield from _embedded(loaded, held, layers, number)
            number += len(held)
            held = []
    if held:
        yield from _embedded(loaded, held, layers, number)


def check_layers(loaded: "Loaded", layers: Layers) -> None:
    """Raise InputError when the model does not show such layers."""
    if layers == "mix":
        return
    if not hasattr(loaded.model.backbone, "layer_states"):
        raise InputError(f"layers is {layers!r}, but {loaded.path} gives its last layer only: use 'mix'")
    last = loaded.model.backbone.settings.num_layers
    if layers != "all" and not 0 <= layers <= last:
        raise InputError(f"layers is {layers}: this model has layers 0 to {last}; 'all' and 'mix' are possible, too")


@torch.no_grad()
def _embedded(loaded: "Loaded", texts: list[str], layers: Layers, first: int) -> Iterator[EmbeddedText]:
    loaded.read_words(texts)
    encodings = loaded.tokenizer.raw.encode_batch(texts)
    empty = [number for number, encoding in enumerate(encodings, first) if not encoding.ids]
    if empty:
        raise InputError(f"text {empty[0]} is empty: there is nothing to embed")
    width = max(len(encoding.ids) for encoding in encodings)
    ids = torch.tensor([encoding.ids + [0] * (width - len(encoding.ids)) for encoding in encodings])
    types = torch.tensor([encoding.type_ids + [0] * (width - len(encoding.ids)) for encoding in encodings])
    real = torch.tensor([[n < len(encoding.ids) for n in range(width)] for encoding in encodings])
    batch = loaded.batch_of(ids, real, types if loaded.recipe.backbone.num_types else None)
    states_LBTD = _states(loaded, batch, layers).cpu()
    special = torch.from_numpy(loaded.tokenizer.vocabulary.special.copy())
    for row in range(len(texts)):
        counted = real[row] & ~special[ids[row]]
        # A text of nothing but special symbols is all of them.
        counted = counted if counted.any() else real[row]
        at = counted.nonzero()[:, 0]
        names = loaded.tokenizer.tokens(ids[row, at].tolist())
        yield EmbeddedText(names, states_LBTD[:, row, at])


def _states(loaded: "Loaded", batch: Batch, layers: Layers) -> Tensor:
    backbone = loaded.model.backbone
    if layers == "mix":
        # An encoder alone reads; a decoder has written nothing yet.
        reads = backbone.encoder if isinstance(backbone, EncoderDecoderModel) else backbone
        return reads(batch).hidden[None]
    states = backbone.layer_states(batch)
    return torch.stack(states if layers == "all" else [states[layers]])
