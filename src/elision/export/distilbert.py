"""DistilBERT in Hugging Face's layout: DistilBertForMaskedLM, DistilBertModel and the classes for fine-tuning.

No segments and no pooler; a classifier reads the first token through a dense layer with a ReLU. The decoder over the
vocabulary is the token table (tied); its bias is `vocab_projector.bias`.
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
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.objectives import MaskedLM
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

MODEL_TYPE = "distilbert"

TOKEN_TABLE = "distilbert.embeddings.word_embeddings.weight"

NORM_EPS = 1e-12

ARCHITECTURES = {
    ("mlm",): "DistilBertForMaskedLM",
    ("classification",): "DistilBertForSequenceClassification",
    ("tagging",): "DistilBertForTokenClassification",
    ("answering",): "DistilBertForQuestionAnswering",
}

_ENCODER = "distilbert.transformer.layer.{n}"
_LAYER = [
    *module(
        "backbone.blocks.{n}.attention.query_key_value",
        f"{_ENCODER}.attention.q_lin",
        f"{_ENCODER}.attention.k_lin",
        f"{_ENCODER}.attention.v_lin",
    ),
    *module("backbone.blocks.{n}.attention.output", f"{_ENCODER}.attention.out_lin"),
    *module("backbone.blocks.{n}.norm_after_attention", f"{_ENCODER}.sa_layer_norm"),
    *module("backbone.blocks.{n}.feedforward.inner", f"{_ENCODER}.ffn.lin1"),
    *module("backbone.blocks.{n}.feedforward.output", f"{_ENCODER}.ffn.lin2"),
    *module("backbone.blocks.{n}.norm_after_feedforward", f"{_ENCODER}.output_layer_norm"),
]

_HEADS: dict[str, list[Entry]] = {
    "mlm": [
        *module("heads.mlm.dense", "vocab_transform"),
        *module("heads.mlm.norm", "vocab_layer_norm"),
        *tensor("heads.mlm.bias", "vocab_projector.bias"),
    ],
    "classification": [
        *module("heads.classification.dense", "pre_classifier"),
        *module("heads.classification.output", "classifier"),
    ],
    "tagging": module("heads.tagging.output", "classifier"),
    "answering": module("heads.answering.output", "qa_outputs"),
}


def key_map(backbone: Transformer, heads: tuple[str, ...]) -> KeyMap:
    """Return the table for these settings and these heads."""
    return KeyMap(
        [
            *tensor("backbone.embeddings.tokens.weight", TOKEN_TABLE),
            *tensor("backbone.embeddings.positions.table.weight", "distilbert.embeddings.position_embeddings.weight"),
            *module("backbone.embeddings.norm", "distilbert.embeddings.LayerNorm"),
            *each_layer(backbone.num_layers, _LAYER),
            *(entry for head in heads for entry in _HEADS[head]),
        ]
    )


def normalise(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give tensors of old, headless or redundant files their names of today.

    Raises: InputError when the output table is not the input table (untied).
    """
    named = {
        f"distilbert.{name}" if re.match(r"(embeddings|transformer)\.", name) else name: value
        for name, value in tensors.items()
    }
    named.pop("distilbert.embeddings.position_ids", None)
    bert_layers.untie(named, TOKEN_TABLE, "vocab_projector", "vocab_projector.bias", source)
    return named


def heads_in(names: frozenset[str]) -> tuple[str, ...]:
    """Return the heads whose tensors are all there."""
    return tuple(head for head, entries in _HEADS.items() if {name for e in entries for name in e.theirs} <= names)


def backbone_names(name: str) -> bool:
    """Tell whether a tensor of this name belongs to the backbone, where nothing may be left out."""
    return name.startswith("distilbert.")


def read_backbone(config: Config, names: frozenset[str]) -> Transformer:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    return dataclasses.replace(
        recipes.get("distilbert-base").backbone,
        num_layers=config.count("n_layers", 6),
        hidden_size=config.count("dim", 768),
        num_heads=config.count("n_heads", 12),
        feedforward_size=config.count("hidden_dim", 3072),
        activation=config.choice("activation", bert_layers.ACTIVATIONS, "gelu"),
        positions=LearnedPositions(config.count("max_position_embeddings", 512)),
        norm_eps=NORM_EPS,
        dropout=config.number("dropout", 0.1),
        attention_dropout=config.number("attention_dropout", 0.1),
        init=NormalInit(std=config.number("initializer_range", 0.02)),
    )


def read_recipe(name: str, backbone: Transformer, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model: DistilBERT's, without a teacher."""
    base = recipes.get("distilbert-base")
    segmenter = dataclasses.replace(base.segmenter, max_length=min(base.segmenter.max_length, backbone.max_length))
    return dataclasses.replace(base, name=name, segmenter=segmenter, backbone=backbone, objectives=(MaskedLM(),))


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: no segments, no pooler, a ReLU under its classifiers."""
    backbone = recipe.backbone
    return (
        isinstance(backbone, Transformer)
        and backbone.visibility == "bidirectional"
        and backbone.classifier == "relu"
        and not backbone.num_types
        and not backbone.pooler
    )


def check(backbone: Transformer) -> None:
    """Raise InputError naming the first setting that Hugging Face's DistilBERT has no counterpart for."""
    bert_layers.check_settings(backbone, "DistilBERT")
    if backbone.norm_eps != NORM_EPS:
        raise InputError(
            f"backbone.norm_eps is {backbone.norm_eps}: Hugging Face's DistilBERT only knows {NORM_EPS}. Train with that, "
            f"or use the model through elision.load"
        )


def write_config(
    backbone: Transformer, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json."""
    shared = bert_layers.write_settings(backbone, vocab_size, vocabulary)
    return {
        "architectures": [ARCHITECTURES[heads]],
        "model_type": MODEL_TYPE,
        "vocab_size": vocab_size,
        "n_layers": backbone.num_layers,
        "dim": backbone.hidden_size,
        "n_heads": backbone.num_heads,
        "hidden_dim": backbone.feedforward_size,
        "activation": shared["hidden_act"],
        "max_position_embeddings": backbone.max_length,
        "sinusoidal_pos_embds": False,
        "dropout": backbone.dropout,
        "attention_dropout": backbone.attention_dropout,
        "initializer_range": backbone.init.std,
        "pad_token_id": vocabulary.pad,
        "tie_word_embeddings": True,
    }


def complete(tensors: dict[str, Tensor], backbone: Transformer) -> None:
    """Nothing is missing: their module has what ours has."""
