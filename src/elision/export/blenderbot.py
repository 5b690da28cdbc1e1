"""BlenderBot in Hugging Face's layout: BlenderbotForConditionalGeneration and BlenderbotModel.

Their table of positions counts from 0 and is stored, whether it was learned or holds sines and cosines; which of these it
is, config.json does not say: `static_position_embeddings`, which we write, does.
"""

from typing import Any

from elision import recipes
from elision.export import bart_layers
from elision.export.bart_layers import TOKEN_TABLE, backbone_names, complete, heads_in, key_map, normalise
from elision.export.config import Config
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.position import LearnedPositions, SinusoidalPositions
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

__all__ = ["TOKEN_TABLE", "backbone_names", "complete", "heads_in", "key_map", "normalise"]

MODEL_TYPE = "blenderbot"

ARCHITECTURES = {("seq2seq",): "BlenderbotForConditionalGeneration"}


def read_backbone(config: Config, names: frozenset[str]) -> EncoderDecoder:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    for field in ("normalize_before", "add_final_layer_norm"):
        config.require(field, True)
    config.require("normalize_embedding", False)
    num_positions = config.count("max_position_embeddings", 128)
    fixed = config.values.get("static_position_embeddings", False)
    positions = SinusoidalPositions(num_positions) if fixed else LearnedPositions(num_positions)
    return bart_layers.read_backbone(config, recipes.get("blenderbot-large").backbone, positions)


def read_recipe(name: str, backbone: EncoderDecoder, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the training of such a model: BlenderBot's."""
    return bart_layers.read_recipe(recipes.get("blenderbot-large"), name, backbone)


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: norms before each layer, none on the embeddings."""
    backbone = recipe.backbone
    if not isinstance(backbone, EncoderDecoder):
        return False
    encoder = backbone.encoder
    if encoder.norm != "pre" or encoder.embedding_norm or encoder.positions.hook != "embed":
        return False
    bart_layers.check_objective(recipe)
    return True


def check(backbone: EncoderDecoder) -> None:
    """Raise InputError naming the first setting that Hugging Face's BlenderBot has no counterpart for."""
    bart_layers.check(backbone, "BlenderBot", {"norm": "pre", "embedding_norm": False, "final_norm": True})
    bart_layers.check_positions(backbone, "BlenderBot", fixed=True, offset=0)


def write_config(
    backbone: EncoderDecoder, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json."""
    config = bart_layers.write_config(backbone, MODEL_TYPE, ARCHITECTURES[heads], vocab_size, vocabulary)
    fixed = isinstance(backbone.encoder.positions, SinusoidalPositions)
    return config | {"static_position_embeddings": fixed, "encoder_no_repeat_ngram_size": 3}
