"""CTRL in Hugging Face's layout: CTRLLMHeadModel, CTRLModel and its classifier.

Queries, keys and values lie apart. The head is the token table with a bias for each token. Positions are not in the file.
"""

import dataclasses
import re
from typing import Any

import torch
from torch import Tensor

from elision import recipes
from elision.errors import InputError
from elision.export.config import Config
from elision.export.keymap import Entry, KeyMap, each_layer, module, tensor
from elision.export.plain_decoder import check_settings, check_windows, is_decoder
from elision.model.position import SinusoidalPositions, sinusoids
from elision.model.transformer import Transformer
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

MODEL_TYPE = "ctrl"

TOKEN_TABLE = "transformer.w.weight"

# The norms of its blocks know no other, whatever config.json says.
NORM_EPS = 1e-6

ARCHITECTURES = {("clm",): "CTRLLMHeadModel", ("classification",): "CTRLForSequenceClassification"}

_ATTENTION = "transformer.h.{n}.multi_head_attention"
_LAYER = [
    *module("backbone.blocks.{n}.norm_before_attention", "transformer.h.{n}.layernorm1"),
    *module("backbone.blocks.{n}.attention.query_key_value", *(f"{_ATTENTION}.{name}" for name in ("Wq", "Wk", "Wv"))),
    *module("backbone.blocks.{n}.attention.output", f"{_ATTENTION}.dense"),
    *module("backbone.blocks.{n}.norm_before_feedforward", "transformer.h.{n}.layernorm2"),
    *module("backbone.blocks.{n}.feedforward.inner", "transformer.h.{n}.ffn.0"),
    *module("backbone.blocks.{n}.feedforward.output", "transformer.h.{n}.ffn.2"),
]

_HEADS: dict[str, list[Entry]] = {
    "clm": tensor("heads.clm.bias", "lm_head.bias"),
    "classification": tensor("heads.classification.output.weight", "classifier.weight"),
}


def key_map(backbone: Transformer, heads: tuple[str, ...]) -> KeyMap:
    """Return the table for these settings and these heads."""
    return KeyMap(
        [
            *tensor("backbone.embeddings.tokens.weight", TOKEN_TABLE),
            Entry("backbone.embeddings.positions.table", (), value=_positions(backbone)),
            *each_layer(backbone.num_layers, _LAYER),
            *module("backbone.final_norm", "transformer.layernorm"),
            *(entry for head in heads for entry in _HEADS[head]),
        ]
    )


def _positions(backbone: Transformer) -> Tensor:
    return sinusoids(
        backbone.max_length, backbone.embedding_width, backbone.positions.layout, backbone.positions.divisor
    )


def normalise(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give tensors of headless or redundant files their names of today.

    Raises: InputError when the output table is not the input table (untied).
    """
    named = {
        f"transformer.{name}" if re.match(r"(w|h|layernorm)\.", name) else name: value
        for name, value in tensors.items()
        if not name.endswith("pos_encoding")
    }
    table, output = named.get(TOKEN_TABLE), named.pop("lm_head.weight", None)
    if output is not None and (table is None or not torch.equal(output, table)):
        raise InputError(
            f"lm_head.weight in {source} is not the token table ({TOKEN_TABLE}): CTRL's output table of its own is not "
            f"supported"
        )
    return named


def heads_in(names: frozenset[str]) -> tuple[str, ...]:
    """Return the heads whose tensors are all there."""
    return tuple(head for head, (entry,) in _HEADS.items() if set(entry.theirs) <= names)


def backbone_names(name: str) -> bool:
    """Tell whether a tensor of this name belongs to the backbone, where nothing may be left out."""
    return name.startswith("transformer.")


def read_backbone(config: Config, names: frozenset[str]) -> Transformer:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    config.require("layer_norm_epsilon", NORM_EPS)
    base = recipes.get("ctrl-seqlen256").backbone
    dropout = config.number("resid_pdrop", 0.1)
    if config.number("embd_pdrop", 0.1) != dropout:
        config.note(f"embd_pdrop differs from resid_pdrop: further training will use {dropout} for both")
    num_positions = config.count("n_positions", also="max_position_embeddings")
    return dataclasses.replace(
        base,
        num_layers=config.count("n_layer", also="num_hidden_layers"),
        hidden_size=config.count("n_embd", also="hidden_size"),
        num_heads=config.count("n_head", also="num_attention_heads"),
        feedforward_size=config.count("dff"),
        positions=dataclasses.replace(base.positions, num_positions=num_positions),
        dropout=dropout,
        init=dataclasses.replace(base.init, std=config.number("initializer_range", 0.02)),
    )


def read_recipe(name: str, backbone: Transformer, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model: CTRL's."""
    base = recipes.get("ctrl-seqlen256")
    segmenter = dataclasses.replace(base.segmenter, max_length=min(512, backbone.max_length))
    return dataclasses.replace(base, name=name, segmenter=segmenter, backbone=backbone)


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: causal, norms first, sines and cosines for positions, and a head
    with a bias for each token."""
    biased = heads != ("clm",) or recipe.objectives[0].bias
    return is_decoder(recipe.backbone, "pre", SinusoidalPositions) and biased


def check(backbone: Transformer) -> None:
    """Raise InputError naming the first setting that Hugging Face's CTRL has no counterpart for."""
    wanted = {"activation": "relu", "biases": "all", "final_norm": True, "norm_eps": NORM_EPS}
    check_settings(backbone, "CTRL", wanted | {"scale_attention": True, "scale_embeddings": True})
    check_windows(backbone, "CTRL")
    positions = backbone.positions
    if (positions.layout, positions.divisor) != ("halves", "half"):
        raise InputError(
            f"backbone.positions has layout {positions.layout!r} and divisor {positions.divisor!r}: Hugging Face's CTRL, which "
            f"this model is exported as, only knows 'halves' and 'half'. Use the model through elision.load"
        )


def write_config(
    backbone: Transformer, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json."""
    return {
        "architectures": [ARCHITECTURES[heads]],
        "model_type": MODEL_TYPE,
        "vocab_size": vocab_size,
        "n_embd": backbone.hidden_size,
        "n_layer": backbone.num_layers,
        "n_head": backbone.num_heads,
        "dff": backbone.feedforward_size,
        "n_positions": backbone.max_length,
        "embd_pdrop": backbone.dropout,
        "resid_pdrop": backbone.dropout,
        "layer_norm_epsilon": backbone.norm_eps,
        "initializer_range": getattr(backbone.init, "std", 0.02),
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
        "tie_word_embeddings": True,
        "use_cache": True,
    }


def complete(tensors: dict[str, Tensor], backbone: Transformer) -> None:
    """Add, in place, the tensors that their module has even where ours has none: nothing here."""
