"""BERT in Hugging Face's layout: BertForPreTraining, BertForMaskedLM, BertModel and their relatives.

The decoder over the vocabulary is the token table (tied); its bias is `cls.predictions.bias`.
"""

import dataclasses
import re
from typing import Any

import torch
from torch import Tensor

from elision import recipes
from elision.data.segment import Chunks, SentencePairs
from elision.errors import InputError
from elision.export.config import Config
from elision.export.keymap import Entry, KeyMap, each_layer, module, tensor
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.objectives import MaskedLM, NextSentence
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

MODEL_TYPE = "bert"

TOKEN_TABLE = "bert.embeddings.word_embeddings.weight"

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}

ARCHITECTURES = {
    ("mlm", "nsp"): "BertForPreTraining",
    ("mlm",): "BertForMaskedLM",
    ("nsp",): "BertForNextSentencePrediction",
    ("classification",): "BertForSequenceClassification",
}

_LAYER = [
    *module(
        "backbone.blocks.{n}.attention.query_key_value",
        "bert.encoder.layer.{n}.attention.self.query",
        "bert.encoder.layer.{n}.attention.self.key",
        "bert.encoder.layer.{n}.attention.self.value",
    ),
    *module("backbone.blocks.{n}.attention.output", "bert.encoder.layer.{n}.attention.output.dense"),
    *module("backbone.blocks.{n}.norm_after_attention", "bert.encoder.layer.{n}.attention.output.LayerNorm"),
    *module("backbone.blocks.{n}.feedforward.inner", "bert.encoder.layer.{n}.intermediate.dense"),
    *module("backbone.blocks.{n}.feedforward.output", "bert.encoder.layer.{n}.output.dense"),
    *module("backbone.blocks.{n}.norm_after_feedforward", "bert.encoder.layer.{n}.output.LayerNorm"),
]

_TYPES = tensor("backbone.embeddings.types.weight", "bert.embeddings.token_type_embeddings.weight")

_POOLER = module("backbone.pooler", "bert.pooler.dense")

_CLASSIFIER_DENSE = module("heads.classification.dense", "bert.pooler.dense")

_HEADS: dict[str, list[Entry]] = {
    "mlm": [
        *module("heads.mlm.dense", "cls.predictions.transform.dense"),
        *module("heads.mlm.norm", "cls.predictions.transform.LayerNorm"),
        *tensor("heads.mlm.bias", "cls.predictions.bias"),
    ],
    "nsp": module("heads.nsp", "cls.seq_relationship"),
    "classification": module("heads.classification.output", "classifier"),
}


def key_map(backbone: Transformer, heads: tuple[str, ...]) -> KeyMap:
    """Return the table for these settings and these heads."""
    return KeyMap(
        [
            *tensor("backbone.embeddings.tokens.weight", TOKEN_TABLE),
            *tensor("backbone.embeddings.positions.table.weight", "bert.embeddings.position_embeddings.weight"),
            *(_TYPES if backbone.num_types else []),
            *module("backbone.embeddings.norm", "bert.embeddings.LayerNorm"),
            *each_layer(backbone.num_layers, _LAYER),
            *(_POOLER if backbone.pooler else []),
            # Their pooler is where a classifier over a model that was trained without one has its dense layer.
            *(_CLASSIFIER_DENSE if "classification" in heads and not backbone.pooler else []),
            *(entry for head in heads for entry in _HEADS[head]),
        ]
    )


def normalise(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give tensors of old, headless or redundant files their names of today.

    Raises: InputError when the output table is not the input table (untied).
    """
    named: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if re.match(r"(embeddings|encoder|pooler)\.", name):
            name = f"bert.{name}"
        # Files converted from TensorFlow call the scale and shift of layer norm so.
        name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
        name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
        if name not in ("bert.embeddings.position_ids", "bert.embeddings.token_type_ids"):
            named[name] = value
    table = named.get(TOKEN_TABLE)
    output = named.pop("cls.predictions.decoder.weight", None)
    if output is not None and (table is None or not torch.equal(output, table)):
        raise InputError(
            f"cls.predictions.decoder.weight in {source} is not the token table "
            f"({TOKEN_TABLE}): output tables of their own are not supported"
        )
    bias = named.pop("cls.predictions.decoder.bias", None)
    if bias is not None and not torch.equal(named.setdefault("cls.predictions.bias", bias), bias):
        raise InputError(f"cls.predictions.bias and cls.predictions.decoder.bias in {source} differ: they are one bias")
    return named


def heads_in(names: frozenset[str]) -> tuple[str, ...]:
    """Return the heads whose tensors are all there."""
    return tuple(head for head, entries in _HEADS.items() if {name for e in entries for name in e.theirs} <= names)


def backbone_names(name: str) -> bool:
    """Tell whether a tensor of this name belongs to the backbone, where nothing may be left out."""
    return name.startswith("bert.")


def read_backbone(config: Config, names: frozenset[str]) -> Transformer:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    config.require("position_embedding_type", "absolute")
    config.require("is_decoder", False)
    config.require("add_cross_attention", False)
    return dataclasses.replace(
        recipes.get("bert-base").backbone,
        num_layers=config.count("num_hidden_layers"),
        hidden_size=config.count("hidden_size"),
        num_heads=config.count("num_attention_heads"),
        feedforward_size=config.count("intermediate_size"),
        activation=config.choice("hidden_act", ACTIVATIONS, "gelu"),
        positions=LearnedPositions(config.count("max_position_embeddings", 512)),
        num_types=config.count("type_vocab_size", 2),
        pooler="bert.pooler.dense.weight" in names,
        norm_eps=config.number("layer_norm_eps", 1e-12),
        dropout=config.number("hidden_dropout_prob", 0.1),
        attention_dropout=config.number("attention_probs_dropout_prob", 0.1),
        init=NormalInit(std=config.number("initializer_range", 0.02), truncated=True),
    )


def read_recipe(name: str, backbone: Transformer, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model: BERT's, with the heads that it has.

    Without a head for masked tokens it gets a new one, and one for next sentences too where there is a pooler.
    """
    pretrained = [head for head in heads if head in ("mlm", "nsp")]
    wants_pairs = "nsp" in pretrained or (not pretrained and backbone.pooler)
    base = recipes.get("bert-base")
    length = min(base.segmenter.max_length, backbone.max_length)
    if backbone.num_types >= SentencePairs.num_types:
        segmenter = dataclasses.replace(base.segmenter, max_length=length)
    else:
        segmenter, wants_pairs = Chunks(max_length=length, cross_documents=False), False
    objectives = (MaskedLM(), NextSentence()) if wants_pairs else (MaskedLM(),)
    return dataclasses.replace(base, name=name, segmenter=segmenter, backbone=backbone, objectives=objectives)


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: every bidirectional one that has none of its own."""
    return recipe.backbone.visibility == "bidirectional"


def check(backbone: Transformer) -> None:
    """Raise InputError naming the first setting that Hugging Face's BERT has no counterpart for."""
    for field, wanted in (("norm", "post"), ("embedding_norm", True), ("final_norm", False)):
        value = getattr(backbone, field)
        if value != wanted:
            raise InputError(
                f"backbone.{field} is {value!r}: Hugging Face's BERT, which bidirectional models are exported as, only "
                f"knows {wanted!r}. Train with that setting, or use the model through elision.load"
            )


def write_config(
    backbone: Transformer, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json."""
    return {
        "architectures": [ARCHITECTURES[heads]],
        "model_type": MODEL_TYPE,
        "vocab_size": vocab_size,
        "hidden_size": backbone.hidden_size,
        "num_hidden_layers": backbone.num_layers,
        "num_attention_heads": backbone.num_heads,
        "intermediate_size": backbone.feedforward_size,
        "hidden_act": {"gelu": "gelu", "gelu_tanh": "gelu_new"}[backbone.activation],
        "hidden_dropout_prob": backbone.dropout,
        "attention_probs_dropout_prob": backbone.attention_dropout,
        "max_position_embeddings": backbone.max_length,
        # Their module always adds a segment vector: without segments it is two rows of zeros.
        "type_vocab_size": backbone.num_types or 2,
        "initializer_range": backbone.init.std,
        "layer_norm_eps": backbone.norm_eps,
        "pad_token_id": vocabulary.pad,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "use_cache": True,
    }


def complete(tensors: dict[str, Tensor], backbone: Transformer) -> None:
    """Add, in place, the tensors that their module has even where ours has none."""
    if not backbone.num_types:
        tensors["bert.embeddings.token_type_embeddings.weight"] = tensors[TOKEN_TABLE].new_zeros(
            2, backbone.hidden_size
        )
