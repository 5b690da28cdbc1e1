"""XLM-R in Hugging Face's layout: RoBERTa's, weight for weight, with classes of its own name and a Unigram tokenizer."""

import dataclasses
from typing import Any

from elision import recipes
from elision.export import roberta
from elision.export.roberta import (
    TOKEN_TABLE,
    backbone_names,
    check,
    complete,
    heads_in,
    key_map,
    normalise,
    read_backbone,
)
from elision.model.transformer import Transformer
from elision.recipe import Recipe
from elision.text.tokenizer import Unigram
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

MODEL_TYPE = "xlm-roberta"

ARCHITECTURES = {heads: f"XLM{name}" for heads, name in roberta.ARCHITECTURES.items()}


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: RoBERTa's over Unigram pieces."""
    return isinstance(recipe.tokenizer, Unigram) and roberta.fits(recipe, heads)


def read_recipe(name: str, backbone: Transformer, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model: XLM-R's on text as it comes, in any language."""
    recipe = roberta.read_recipe(name, backbone, heads)
    return dataclasses.replace(recipe, tokenizer=recipes.get("xlm-r-base").tokenizer)


def write_config(
    backbone: Transformer, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json."""
    config = roberta.write_config(backbone, heads, vocab_size, vocabulary)
    return config | {"architectures": [ARCHITECTURES[heads]], "model_type": MODEL_TYPE}
