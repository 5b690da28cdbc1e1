"""Marian in Hugging Face's layout: MarianMTModel and MarianModel (OPUS-MT).

`final_logits_bias` is our bias of the output layer, [1, V] there. Positions are sines and cosines that both sides compute. The
decoder begins with the padding, whose vector is 0 and which generation is forbidden to write.
"""

import dataclasses
from typing import Any

from torch import Tensor

from elision import recipes
from elision.errors import InputError
from elision.export import bart_layers
from elision.export.bart_layers import TOKEN_TABLE, backbone_names
from elision.export.config import Config
from elision.export.keymap import Entry, KeyMap, tensor
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.position import SinusoidalPositions, sinusoids
from elision.objectives import SequenceLM
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

__all__ = ["TOKEN_TABLE", "backbone_names"]

MODEL_TYPE = "marian"

ARCHITECTURES = {("seq2seq",): "MarianMTModel"}

_BIAS = "final_logits_bias"
# Beams of the published models.
_NUM_BEAMS = 4


def key_map(backbone: EncoderDecoder, heads: tuple[str, ...]) -> KeyMap:
    """Return the table for these settings and these heads."""
    entries = [
        Entry(entry.ours, (), value=_positions(backbone)) if entry.ours.endswith("positions.table") else entry
        for entry in bart_layers.key_map(backbone, ()).entries
    ]
    return KeyMap([*entries, *(tensor("heads.seq2seq.bias", _BIAS) if "seq2seq" in heads else [])])


def _positions(backbone: EncoderDecoder) -> Tensor:
    return sinusoids(backbone.max_length, backbone.hidden_size, layout="halves", divisor="half")


def normalise(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give tensors of headless or redundant files their names with a head, and leave out what is computed.

    Raises: InputError when one of the tables is another one (untied, or one for each language).
    """
    named = {name: value for name, value in tensors.items() if not name.endswith("embed_positions.weight")}
    bias = named.pop(_BIAS, None)
    named = bart_layers.normalise(named, source)
    table = named.get(TOKEN_TABLE)
    if bias is None and table is not None:
        # Files without a head, and those of before it had one.
        bias = table.new_zeros(len(table))
    return named if bias is None else named | {_BIAS: bias.reshape(-1)}


def heads_in(names: frozenset[str]) -> tuple[str, ...]:
    """Return the heads whose tensors are there: there is only one."""
    return ("seq2seq",)


def read_backbone(config: Config, names: frozenset[str]) -> EncoderDecoder:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    for field in ("normalize_before", "add_final_layer_norm", "normalize_embedding"):
        config.require(field, False)
    for field in ("static_position_embeddings", "share_encoder_decoder_embeddings", "tie_word_embeddings"):
        config.require(field, True)
    decoder_size = config.values.get("decoder_vocab_size")
    if decoder_size not in (None, config.values.get("vocab_size")):
        raise InputError(
            f"{config.path}: decoder_vocab_size is {decoder_size!r}, but vocab_size is {config.values.get('vocab_size')!r}: a "
            f"vocabulary for each side is not supported"
        )
    positions = SinusoidalPositions(config.count("max_position_embeddings", 1024), layout="halves", divisor="half")
    backbone = bart_layers.read_backbone(config, recipes.get("marian-base").backbone, positions)
    if backbone.start != "pad":
        return backbone
    is_last = config.values.get("pad_token_id") == config.values.get("vocab_size", 0) - 1
    return dataclasses.replace(backbone, start="zero" if is_last else "pad")


def read_recipe(name: str, backbone: EncoderDecoder, heads: tuple[str, ...]) -> Recipe:
    """Return the recipe for going on with the training of such a model: Marian's."""
    return bart_layers.read_recipe(recipes.get("marian-base"), name, backbone)


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: norms after each layer alone, positions of sines and cosines."""
    backbone = recipe.backbone
    if not isinstance(backbone, EncoderDecoder) or backbone.encoder.norm != "post" or backbone.encoder.embedding_norm:
        return False
    if not isinstance(backbone.encoder.positions, SinusoidalPositions):
        return False
    for objective in recipe.objectives:
        if isinstance(objective, SequenceLM):
            for field, wanted in (("bias", True), ("tied", True), ("scale_hidden", False)):
                if getattr(objective, field) != wanted:
                    raise InputError(
                        f"SequenceLM.{field} is {not wanted}: Hugging Face's Marian scores words by the token table and a bias. "
                        f"Train with {field} {wanted}, or use the model through elision.load"
                    )
    return True


def check(backbone: EncoderDecoder) -> None:
    """Raise InputError naming the first setting that Hugging Face's Marian has no counterpart for."""
    bart_layers.check(backbone, "Marian", {"norm": "post", "embedding_norm": False, "final_norm": False})
    positions = backbone.encoder.positions
    if (positions.layout, positions.divisor) != ("halves", "half"):
        raise InputError(
            f"backbone.encoder.positions has layout {positions.layout!r} and divisor {positions.divisor!r}: Hugging Face's "
            f"Marian, which this model is exported as, only knows 'halves' and 'half'. Train with these, or use the model "
            f"through elision.load"
        )
    if backbone.start not in ("pad", "zero"):
        raise InputError(
            f"backbone.start is {backbone.start!r}: Hugging Face's Marian begins with the padding. Train with 'zero' (or 'pad'), "
            f"or use the model through elision.load"
        )


def write_config(
    backbone: EncoderDecoder, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json."""
    padded = dataclasses.replace(backbone, start="pad")
    return bart_layers.write_config(padded, MODEL_TYPE, ARCHITECTURES[heads], vocab_size, vocabulary) | {
        "decoder_vocab_size": vocab_size,
        "share_encoder_decoder_embeddings": True,
        "static_position_embeddings": True,
        "normalize_before": False,
        "normalize_embedding": False,
        "add_final_layer_norm": False,
    }


def write_generation(config: dict[str, Any], backbone: EncoderDecoder) -> dict[str, Any]:
    """Return what generation_config.json says beyond the ids of symbols: never the padding, and texts of any length."""
    return {"bad_words_ids": [[config["pad_token_id"]]], "num_beams": _NUM_BEAMS, "max_length": backbone.max_length}


def complete(tensors: dict[str, Tensor], backbone: EncoderDecoder) -> None:
    """Give the bias, in place, its shape there."""
    tensors[_BIAS] = tensors[_BIAS][None]
