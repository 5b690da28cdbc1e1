"""BART in Hugging Face's layout: BartForConditionalGeneration, BartModel, and its classifier and answerer.

Their classifier reads the decoder at the last </s> of the text, which the decoder reads shifted, as ours does.
"""

from typing import Any

from elision import recipes
from elision.export import bart_layers
from elision.export.bart_layers import TOKEN_TABLE, backbone_names, complete, heads_in, key_map, normalise
from elision.export.config import Config
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.position import LearnedPositions
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

__all__ = ["TOKEN_TABLE", "backbone_names", "complete", "heads_in", "key_map", "normalise"]

MODEL_TYPE = "bart"

ARCHITECTURES = {
    ("seq2seq",): "BartForConditionalGeneration",
    ("classification",): "BartForSequenceClassification",
    ("answering",): "BartForQuestionAnswering",
}


def read_backbone(config: Config, names: frozenset[str]) -> EncoderDecoder:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    for field in ("normalize_before", "add_final_layer_norm", "static_position_embeddings", "add_bias_logits"):
        config.require(field, False)
    positions = LearnedPositions(config.count("max_position_embeddings", 1024), offset=2)
    return bart_layers.read_backbone(config, recipes.get("bart-base").backbone, positions)


def read_recipe(name: str, backbone: EncoderDecoder, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model: BART's."""
    return bart_layers.read_recipe(recipes.get("bart-base"), name, backbone)


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: norms after each layer and on the embeddings."""
    backbone = recipe.backbone
    if (
        not isinstance(backbone, EncoderDecoder)
        or backbone.encoder.norm != "post"
        or not backbone.encoder.embedding_norm
    ):
        return False
    bart_layers.check_objective(recipe)
    return True


def check(backbone: EncoderDecoder) -> None:
    """Raise InputError naming the first setting that Hugging Face's BART has no counterpart for."""
    bart_layers.check(backbone, "BART", {"norm": "post", "embedding_norm": True, "final_norm": False})
    bart_layers.check_positions(backbone, "BART")


def write_config(
    backbone: EncoderDecoder, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json."""
    return bart_layers.write_config(backbone, MODEL_TYPE, ARCHITECTURES[heads], vocab_size, vocabulary)


def write_generation(config: dict[str, Any], backbone: EncoderDecoder) -> dict[str, Any]:
    """Return what generation_config.json says beyond the ids of symbols: BART's texts begin with <s>."""
    return {"forced_bos_token_id": config["bos_token_id"]} if backbone.start == "last" else {}
