"""Mistral in Hugging Face's layout: LLaMA's, weight for weight, with a window over the keys."""

import dataclasses
from typing import Any

from elision import recipes
from elision.errors import InputError
from elision.export import llama
from elision.export.config import Config
from elision.export.keymap import KeyMap
from elision.export.llama import TOKEN_TABLE, backbone_names, complete, heads_in, normalise
from elision.model.transformer import Transformer
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

MODEL_TYPE = "mistral"

ARCHITECTURES = {heads: name.replace("Llama", "Mistral") for heads, name in llama.ARCHITECTURES.items()}

# What an absent field means.
_WINDOW = 4096
_POSITIONS = 4096 * 32


def key_map(backbone: Transformer, heads: tuple[str, ...]) -> KeyMap:
    """Return the table for these settings and these heads."""
    return llama.table_of(backbone, heads, "model")


def read_backbone(config: Config, names: frozenset[str]) -> Transformer:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    if config.values.get("layer_types"):
        raise InputError(f"{config.path}: layer_types is set; only one window for all layers is supported")
    backbone = llama.read_gated(config, _POSITIONS, 1e-6)
    if "num_key_value_heads" not in config.values:
        backbone = dataclasses.replace(backbone, num_key_value_heads=8)
    window = None if config.values.get("sliding_window", _WINDOW) is None else config.count("sliding_window", _WINDOW)
    return dataclasses.replace(backbone, windows=() if window is None else (window,))


def read_recipe(name: str, backbone: Transformer, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model: Mistral's."""
    return llama.going_on(recipes.get("mistral-7b"), name, backbone)


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: LLaMA's kind with a window."""
    return llama.is_gated(recipe) and any(recipe.backbone.windows)


def check(backbone: Transformer) -> None:
    """Raise InputError naming the first setting that Hugging Face's Mistral has no counterpart for."""
    llama.check_gated(backbone, "Mistral")
    if len({backbone.window_of(layer) for layer in range(backbone.num_layers)}) > 1:
        raise InputError(
            f"backbone.windows is {backbone.windows}: Hugging Face's Mistral has one window for all layers"
        )


def write_config(
    backbone: Transformer, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json."""
    return {
        "architectures": [ARCHITECTURES[heads]],
        "model_type": MODEL_TYPE,
        **llama.write_gated(backbone, vocab_size, vocabulary),
        "sliding_window": backbone.window_of(0),
    }
