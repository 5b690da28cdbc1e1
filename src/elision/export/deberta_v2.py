"""DeBERTa-v2 and v3 in Hugging Face's layout: DebertaV2ForMaskedLM, DebertaV2Model and their relatives.

As with DeBERTa, their module has no mask decoder.
"""

import dataclasses
from typing import Any

from elision import recipes
from elision.export import deberta
from elision.export.config import Config
from elision.export.deberta import TOKEN_TABLE, backbone_names, complete, heads_in, normalise
from elision.export.keymap import KeyMap, module
from elision.model.deberta import Deberta
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

__all__ = [
    "ARCHITECTURES",
    "MODEL_TYPE",
    "TOKEN_TABLE",
    "backbone_names",
    "check",
    "complete",
    "fits",
    "heads_in",
    "key_map",
    "normalise",
    "read_backbone",
    "read_recipe",
    "write_config",
]

MODEL_TYPE = "deberta-v2"

ARCHITECTURES = {heads: name.replace("Deberta", "DebertaV2") for heads, name in deberta.ARCHITECTURES.items()}

_THEIRS = "deberta.encoder.layer.{n}.attention.self"
_OURS = "backbone.blocks.{n}.attention"


def key_map(backbone: Deberta, heads: tuple[str, ...]) -> KeyMap:
    """Return the table for these settings and these heads."""
    projections = (f"{_THEIRS}.query_proj", f"{_THEIRS}.key_proj", f"{_THEIRS}.value_proj")
    attention = module(f"{_OURS}.query_key_value", *projections)
    if not backbone.share_projections and backbone.content_to_position:
        attention += module(f"{_OURS}.position_key", f"{_THEIRS}.pos_key_proj")
    if not backbone.share_projections and backbone.position_to_content:
        attention += module(f"{_OURS}.position_query", f"{_THEIRS}.pos_query_proj")
    entries = deberta.encoder(backbone, attention)
    if backbone.distance_norm and backbone.num_terms:
        entries += module("backbone.distance_norm", "deberta.encoder.LayerNorm")
    if backbone.convolution:
        entries += module("backbone.convolution", "deberta.encoder.conv.conv")
        entries += module("backbone.convolution.norm", "deberta.encoder.conv.LayerNorm")
    return KeyMap([*entries, *(entry for head in heads for entry in deberta.HEADS[head])])


def read_backbone(config: Config, names: frozenset[str]) -> Deberta:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    config.require("conv_groups", 1)
    norms = [norm.strip() for norm in str(config.values.get("norm_rel_ebd") or "none").lower().split("|")]
    buckets = config.values.get("position_buckets", -1)
    convolution = config.values.get("conv_kernel_size") or 0
    settings = deberta.read_settings(config, names) | {
        "num_buckets": buckets if isinstance(buckets, int) and buckets > 0 else None,
        "share_projections": bool(config.values.get("share_att_key", False)),
        "distance_norm": "layer_norm" in norms,
        "convolution": convolution if isinstance(convolution, int) else 0,
        "convolution_activation": config.choice("conv_act", {"gelu": "gelu", "tanh": "tanh"}, "tanh"),
    }
    return dataclasses.replace(recipes.get("deberta-v3-base").backbone, **settings)


def read_recipe(name: str, backbone: Deberta, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model: that of DeBERTa-v2, which restores tokens."""
    return deberta.recipe_like("deberta-v2-xlarge", name, backbone)


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: disentangled attention whose keys have a bias."""
    return isinstance(recipe.backbone, Deberta) and recipe.backbone.key_bias


def check(backbone: Deberta) -> None:
    """Raise InputError naming the first setting that Hugging Face's DeBERTa-v2 has no counterpart for."""
    deberta.check_settings(backbone, "DeBERTa-v2", {})


def write_config(backbone: Deberta, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the content of config.json."""
    convolution = {"conv_kernel_size": backbone.convolution, "conv_act": backbone.convolution_activation}
    return {
        "architectures": [ARCHITECTURES[heads]],
        "model_type": MODEL_TYPE,
        **deberta.write_settings(backbone, vocab_size, vocabulary),
        "position_buckets": backbone.num_buckets or -1,
        "share_att_key": backbone.share_projections,
        "norm_rel_ebd": "layer_norm" if backbone.distance_norm else "none",
        **(convolution if backbone.convolution else {}),
    }
