"""mT5 in Hugging Face's layout: MT5ForConditionalGeneration and its relatives, which are T5 v1.1 by another name.

Models of text in several languages are written as this, others as T5. Theirs never makes states smaller before the output
layer, whatever `tie_word_embeddings` says.
"""

import dataclasses
from typing import Any

from elision import recipes
from elision.errors import InputError
from elision.export import t5
from elision.export.config import Config
from elision.export.t5 import backbone_names, check, complete, heads_in, key_map, normalise
from elision.model.encoder_decoder import EncoderDecoder
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

__all__ = ["backbone_names", "check", "complete", "heads_in", "key_map", "normalise"]

MODEL_TYPE = "mt5"

TOKEN_TABLE = t5.TOKEN_TABLE

ARCHITECTURES = {heads: f"M{name}" for heads, name in t5.ARCHITECTURES.items()}


def read_backbone(config: Config, names: frozenset[str]) -> EncoderDecoder:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    backbone = t5.read_settings(config, "gated-gelu")
    if not backbone.decoder.gated:
        raise InputError(
            f"{config.path}: feed_forward_proj is {config.values['feed_forward_proj']!r}; in mT5 only gated layers are supported"
        )
    return backbone


def read_recipe(name: str, backbone: EncoderDecoder, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model: mT5's."""
    return dataclasses.replace(recipes.get("mt5-base"), name=name, backbone=backbone)


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: T5 v1.1 for several languages."""
    return t5.is_t5(recipe) and recipe.backbone.decoder.gated and recipe.mixing is not None


def write_config(
    backbone: EncoderDecoder, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json."""
    return {
        "architectures": [ARCHITECTURES[heads]],
        "model_type": MODEL_TYPE,
        **t5.write_settings(backbone, vocab_size, vocabulary),
        "tie_word_embeddings": False,
    }
