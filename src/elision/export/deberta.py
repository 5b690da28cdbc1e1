"""DeBERTa in Hugging Face's layout: DebertaForMaskedLM, DebertaModel and their relatives.

Their module has no mask decoder. Its position table goes along as `deberta.embeddings.position_embeddings`, the name that
the authors' files have it under: transformers passes over it, and an import finds it again. So the states of the encoder
agree, while their `fill-mask` reads the plain last layer, as it does with the authors' own models.
"""

import dataclasses
import re
from typing import Any

from torch import Tensor

from elision import recipes
from elision.errors import InputError
from elision.export import bert_layers
from elision.export.config import Config
from elision.export.keymap import Entry, KeyMap, each_layer, module, tensor
from elision.model.deberta import Deberta
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

MODEL_TYPE = "deberta"

TOKEN_TABLE = "deberta.embeddings.word_embeddings.weight"
POSITION_TABLE = "deberta.embeddings.position_embeddings.weight"

ARCHITECTURES = {
    ("mlm",): "DebertaForMaskedLM",
    (): "DebertaModel",
    ("classification",): "DebertaForSequenceClassification",
    ("tagging",): "DebertaForTokenClassification",
    ("answering",): "DebertaForQuestionAnswering",
}

HEADS: dict[str, list[Entry]] = {
    # The layout of the authors' files; transformers reads it where config.json says legacy = False.
    "mlm": [
        *module("heads.mlm.dense", "lm_predictions.lm_head.dense"),
        *module("heads.mlm.norm", "lm_predictions.lm_head.LayerNorm"),
        *tensor("heads.mlm.bias", "lm_predictions.lm_head.bias"),
    ],
    "classification": [
        *module("heads.classification.dense", "pooler.dense"),
        *module("heads.classification.output", "classifier"),
    ],
    "tagging": module("heads.tagging.output", "classifier"),
    "answering": module("heads.answering.output", "qa_outputs"),
}

_THEIRS = "deberta.encoder.layer.{n}.attention.self"
_OURS = "backbone.blocks.{n}.attention"


def key_map(backbone: Deberta, heads: tuple[str, ...]) -> KeyMap:
    """Return the table for these settings and these heads."""
    in_proj = Entry(f"{_OURS}.query_key_value.weight", (f"{_THEIRS}.in_proj.weight",), num_heads=backbone.num_heads)
    attention = [in_proj, *tensor(f"{_OURS}.query_bias", f"{_THEIRS}.q_bias")]
    attention += tensor(f"{_OURS}.value_bias", f"{_THEIRS}.v_bias")
    if backbone.content_to_position:
        attention += tensor(f"{_OURS}.position_key.weight", f"{_THEIRS}.pos_proj.weight")
    if backbone.position_to_content:
        attention += module(f"{_OURS}.position_query", f"{_THEIRS}.pos_q_proj")
    return KeyMap([*encoder(backbone, attention), *(entry for head in heads for entry in HEADS[head])])


def encoder(backbone: Deberta, attention: list[Entry]) -> list[Entry]:
    """Return the entries of everything but the heads; `attention`: those of a layer's projections, which versions differ in."""
    layer = "deberta.encoder.layer.{n}"
    types = tensor("backbone.embeddings.types.weight", "deberta.embeddings.token_type_embeddings.weight")
    return [
        *tensor("backbone.embeddings.tokens.weight", TOKEN_TABLE),
        *(types if backbone.num_types else []),
        *module("backbone.embeddings.norm", "deberta.embeddings.LayerNorm"),
        *(tensor("backbone.mask_positions.table.weight", POSITION_TABLE) if backbone.mask_decoder else []),
        *(tensor("backbone.distances.weight", "deberta.encoder.rel_embeddings.weight") if backbone.num_terms else []),
        *each_layer(
            backbone.num_layers,
            [
                *attention,
                *module("backbone.blocks.{n}.attention.output", f"{layer}.attention.output.dense"),
                *module("backbone.blocks.{n}.norm_after_attention", f"{layer}.attention.output.LayerNorm"),
                *module("backbone.blocks.{n}.feedforward.inner", f"{layer}.intermediate.dense"),
                *module("backbone.blocks.{n}.feedforward.output", f"{layer}.output.dense"),
                *module("backbone.blocks.{n}.norm_after_feedforward", f"{layer}.output.LayerNorm"),
            ],
        ),
    ]


def normalise(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give tensors of old, headless or redundant files their names of today.

    Raises: InputError when the output table is not the input table (untied).
    """
    named = bert_layers.names_of_today(tensors, "deberta.")
    # A pooler belongs to a classifier here, and has no prefix.
    named = {re.sub(r"^deberta\.pooler\.", "pooler.", name): value for name, value in named.items()}
    # What transformers calls legacy is the same head under other names.
    named = {
        re.sub(r"^cls\.predictions\.(transform\.)?(?!decoder)", "lm_predictions.lm_head.", name): value
        for name, value in named.items()
    }
    bert_layers.untie(named, TOKEN_TABLE, "cls.predictions.decoder", "lm_predictions.lm_head.bias", source)
    return named


def heads_in(names: frozenset[str]) -> tuple[str, ...]:
    """Return the heads whose tensors are all there."""
    return tuple(head for head, entries in HEADS.items() if {name for e in entries for name in e.theirs} <= names)


def backbone_names(name: str) -> bool:
    """Tell whether a tensor of this name belongs to the backbone, where nothing may be left out."""
    return name.startswith("deberta.")


def read_backbone(config: Config, names: frozenset[str]) -> Deberta:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    config.require("talking_head", False)
    return dataclasses.replace(recipes.get("deberta-base").backbone, **read_settings(config, names))


def read_settings(config: Config, names: frozenset[str]) -> dict[str, Any]:
    """Return the fields that all versions keep in config.json. Raises: InputError for what cannot be expressed here."""
    # Where config.json is silent, their module adds positions to the embeddings and scores none.
    if config.values.get("position_biased_input", True):
        raise InputError(f"{config.path}: position_biased_input is on; only embeddings without positions are supported")
    width = config.count("hidden_size")
    config.require("embedding_size", width)
    config.require("pooler_hidden_size", width)
    config.require("attention_head_size", width // config.count("num_attention_heads"))
    relative = bool(config.values.get("relative_attention", False))
    terms = config.values.get("pos_att_type") or []
    if isinstance(terms, str):
        terms = [term.strip() for term in terms.lower().split("|")]
    unknown = sorted(set(terms) - {"c2p", "p2c"})
    if unknown or (terms and not relative):
        what = f"has {unknown[0]!r}" if unknown else "is set while relative_attention is off"
        raise InputError(
            f"{config.path}: pos_att_type {what}; supported are 'c2p' and 'p2c', with relative_attention on"
        )
    num_positions = config.count("max_position_embeddings", 512)
    max_distance = config.values.get("max_relative_positions", -1)
    # Whoever made a byte-level vocabulary here has <s> and </s>, which frame pairs as RoBERTa's do.
    begins = config.values.get("bos_token_id")
    return {
        "num_layers": config.count("num_hidden_layers"),
        "hidden_size": width,
        "num_heads": config.count("num_attention_heads"),
        "feedforward_size": config.count("intermediate_size"),
        "activation": config.choice("hidden_act", bert_layers.ACTIVATIONS, "gelu"),
        "content_to_position": "c2p" in terms,
        "position_to_content": "p2c" in terms,
        "max_distance": max_distance if isinstance(max_distance, int) and max_distance > 0 else num_positions,
        "mask_decoder": POSITION_TABLE in names,
        "positions": LearnedPositions(num_positions),
        "num_types": config.values.get("type_vocab_size", 0),
        "frame": "bert" if begins is None else "roberta",
        "classifier": config.choice("pooler_hidden_act", {"gelu": "gelu", "tanh": "tanh", "relu": "relu"}, "gelu"),
        "norm_eps": config.number("layer_norm_eps", 1e-7),
        "dropout": config.number("hidden_dropout_prob", 0.1),
        "attention_dropout": config.number("attention_probs_dropout_prob", 0.1),
        "init": NormalInit(std=config.number("initializer_range", 0.02)),
    }


def read_recipe(name: str, backbone: Deberta, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model: DeBERTa's."""
    return recipe_like("deberta-base", name, backbone)


def recipe_like(like: str, name: str, backbone: Deberta) -> Recipe:
    """Return the named recipe over this backbone."""
    base = recipes.get(like)
    length = min(base.segmenter.max_length, backbone.max_length or base.segmenter.max_length)
    segmenter = dataclasses.replace(base.segmenter, max_length=length)
    return dataclasses.replace(base, name=name, segmenter=segmenter, backbone=backbone)


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: disentangled attention whose keys have no bias."""
    return isinstance(recipe.backbone, Deberta) and not recipe.backbone.key_bias


def check(backbone: Deberta) -> None:
    """Raise InputError naming the first setting that Hugging Face's DeBERTa has no counterpart for."""
    check_settings(
        backbone,
        "DeBERTa without a bias on keys",
        {"num_buckets": None, "share_projections": False, "distance_norm": False, "convolution": 0},
    )


def check_settings(backbone: Deberta, theirs: str, wanted: dict[str, Any]) -> None:
    """Raise InputError naming the first setting that is not as wanted; `theirs` names the class."""
    for field, value in {"position_to_position": False, **wanted}.items():
        given = getattr(backbone, field)
        if given != value:
            raise InputError(
                f"backbone.{field} is {given!r}: Hugging Face's {theirs}, which this model is exported as, only knows "
                f"{value!r}. Train with that setting, or use the model through elision.load"
            )


def write_config(backbone: Deberta, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the content of config.json."""
    return {
        "architectures": [ARCHITECTURES[heads]],
        "model_type": MODEL_TYPE,
        **write_settings(backbone, vocab_size, vocabulary),
    }


def write_settings(backbone: Deberta, vocab_size: int, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return what `read_settings` reads."""
    terms = {"p2c": backbone.position_to_content, "c2p": backbone.content_to_position}
    framed = {"bos_token_id": vocabulary.cls, "eos_token_id": vocabulary.sep} if backbone.frame == "roberta" else {}
    return {
        "vocab_size": vocab_size,
        "hidden_size": backbone.hidden_size,
        "num_hidden_layers": backbone.num_layers,
        "num_attention_heads": backbone.num_heads,
        "intermediate_size": backbone.feedforward_size,
        "hidden_act": {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}[backbone.activation],
        "hidden_dropout_prob": backbone.dropout,
        "attention_probs_dropout_prob": backbone.attention_dropout,
        "max_position_embeddings": backbone.positions.num_positions,
        "max_relative_positions": backbone.max_distance,
        "relative_attention": backbone.num_terms > 0,
        "pos_att_type": [term for term, wanted in terms.items() if wanted],
        "position_biased_input": False,
        "type_vocab_size": backbone.num_types,
        "initializer_range": backbone.init.std,
        "layer_norm_eps": backbone.norm_eps,
        "pad_token_id": vocabulary.pad,
        **framed,
        # Their classifier drops out what its dense layer reads, as ours does.
        "pooler_dropout": backbone.dropout,
        "pooler_hidden_act": backbone.classifier,
        "pooler_hidden_size": backbone.hidden_size,
        "legacy": False,
        "tie_word_embeddings": True,
    }


def complete(tensors: dict[str, Tensor], backbone: Deberta) -> None:
    """Their module has no tensor that ours lacks."""
