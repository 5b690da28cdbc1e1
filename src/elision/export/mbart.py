"""mBART in Hugging Face's layout: MBartForConditionalGeneration, MBartModel, and its classifier and answerer.

Their decoder begins with the last symbol of what it is to write, the language, which generation has to be told:
`model.generate(..., decoder_start_token_id=tokenizer.convert_tokens_to_ids("ne_NP"))`.
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

MODEL_TYPE = "mbart"

ARCHITECTURES = {
    ("seq2seq",): "MBartForConditionalGeneration",
    ("classification",): "MBartForSequenceClassification",
    ("answering",): "MBartForQuestionAnswering",
}


def read_backbone(config: Config, names: frozenset[str]) -> EncoderDecoder:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    for field in ("normalize_before", "add_final_layer_norm"):
        config.require(field, True)
    for field in ("static_position_embeddings", "add_bias_logits"):
        config.require(field, False)
    positions = LearnedPositions(config.count("max_position_embeddings", 1024), offset=2)
    return bart_layers.read_backbone(config, recipes.get("mbart-large").backbone, positions)


def read_recipe(name: str, backbone: EncoderDecoder, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model: mBART's."""
    return bart_layers.read_recipe(recipes.get("mbart-large"), name, backbone)


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: norms before each layer and on the embeddings."""
    backbone = recipe.backbone
    if (
        not isinstance(backbone, EncoderDecoder)
        or backbone.encoder.norm != "pre"
        or not backbone.encoder.embedding_norm
    ):
        return False
    bart_layers.check_objective(recipe)
    return True


def check(backbone: EncoderDecoder) -> None:
    """Raise InputError naming the first setting that Hugging Face's mBART has no counterpart for."""
    bart_layers.check(backbone, "mBART", {"norm": "pre", "embedding_norm": True, "final_norm": True})
    bart_layers.check_positions(backbone, "mBART")


def write_config(
    backbone: EncoderDecoder, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json."""
    config = bart_layers.write_config(backbone, MODEL_TYPE, ARCHITECTURES[heads], vocab_size, vocabulary)
    if backbone.start == "last":
        # The language, which is another one for each text.
        config["decoder_start_token_id"] = None
    return config
