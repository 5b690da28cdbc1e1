"""ALBERT in Hugging Face's layout: AlbertForPreTraining, AlbertForMaskedLM and the classes for fine-tuning.

One set of tensors for each group of layers. Their module always has the linear layer from the embeddings to the states;
the decoder over the vocabulary is the token table (tied), its bias is `predictions.bias`.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from elision import recipes
from elision.data.segment import FullSentences, SwappedPairs
from elision.errors import InputError
from elision.export import bert_layers
from elision.export.config import Config
from elision.export.keymap import Entry, KeyMap, module, tensor
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.objectives import MaskedLM, SentenceOrder
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

MODEL_TYPE = "albert"

TOKEN_TABLE = "albert.embeddings.word_embeddings.weight"
_MAPPING = "albert.encoder.embedding_hidden_mapping_in"
_TYPES = "albert.embeddings.token_type_embeddings.weight"

ARCHITECTURES = {
    ("mlm", "sop"): "AlbertForPreTraining",
    ("mlm",): "AlbertForMaskedLM",
    ("classification",): "AlbertForSequenceClassification",
    ("tagging",): "AlbertForTokenClassification",
    ("answering",): "AlbertForQuestionAnswering",
}

_HEADS: dict[str, list[Entry]] = {
    "mlm": [
        *module("heads.mlm.dense", "predictions.dense"),
        *module("heads.mlm.norm", "predictions.LayerNorm"),
        *tensor("heads.mlm.bias", "predictions.bias"),
    ],
    "sop": module("heads.sop", "sop_classifier.classifier"),
    "classification": module("heads.classification.output", "classifier"),
    "tagging": module("heads.tagging.output", "classifier"),
    "answering": module("heads.answering.output", "qa_outputs"),
}


def key_map(backbone: Transformer, heads: tuple[str, ...]) -> KeyMap:
    """Return the table for these settings and these heads."""
    return KeyMap(
        [
            *tensor("backbone.embeddings.tokens.weight", TOKEN_TABLE),
            *tensor("backbone.embeddings.positions.table.weight", "albert.embeddings.position_embeddings.weight"),
            *(tensor("backbone.embeddings.types.weight", _TYPES) if backbone.num_types else []),
            *module("backbone.embeddings.norm", "albert.embeddings.LayerNorm"),
            *(module("backbone.project", _MAPPING) if backbone.embedding_size is not None else []),
            *(entry for group, first in enumerate(_owners(backbone)) for entry in _layer(group, first)),
            *(module("backbone.pooler", "albert.pooler") if backbone.pooler else []),
            # Their pooler is where a classifier over a model that was trained without one has its dense layer.
            *(
                module("heads.classification.dense", "albert.pooler")
                if "classification" in heads and not backbone.pooler
                else []
            ),
            *(entry for head in heads for entry in _HEADS[head]),
        ]
    )


def _owners(backbone: Transformer) -> list[int]:
    """Return the blocks that hold weights, one for each of their groups; without sharing each is a group of its own."""
    if backbone.sharing == "none":
        return list(range(backbone.num_layers))
    return [-(-group * backbone.num_layers // backbone.num_groups) for group in range(backbone.num_groups)]


def _layer(group: int, block: int) -> list[Entry]:
    ours, theirs = f"backbone.blocks.{block}", f"albert.encoder.albert_layer_groups.{group}.albert_layers.0"
    return [
        *module(
            f"{ours}.attention.query_key_value",
            f"{theirs}.attention.query",
            f"{theirs}.attention.key",
            f"{theirs}.attention.value",
        ),
        *module(f"{ours}.attention.output", f"{theirs}.attention.dense"),
        *module(f"{ours}.norm_after_attention", f"{theirs}.attention.LayerNorm"),
        *module(f"{ours}.feedforward.inner", f"{theirs}.ffn"),
        *module(f"{ours}.feedforward.output", f"{theirs}.ffn_output"),
        *module(f"{ours}.norm_after_feedforward", f"{theirs}.full_layer_layer_norm"),
    ]


def normalise(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give tensors of old, headless or redundant files their names of today.

    Raises: InputError when the output table is not the input table (untied).
    """
    named = bert_layers.names_of_today(tensors, "albert.")
    bert_layers.untie(named, TOKEN_TABLE, "predictions.decoder", "predictions.bias", source)
    return named


def heads_in(names: frozenset[str]) -> tuple[str, ...]:
    """Return the heads whose tensors are all there."""
    return tuple(head for head, entries in _HEADS.items() if {name for e in entries for name in e.theirs} <= names)


def backbone_names(name: str) -> bool:
    """Tell whether a tensor of this name belongs to the backbone, where nothing may be left out."""
    return name.startswith("albert.")


def read_backbone(config: Config, names: frozenset[str]) -> Transformer:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    config.require("inner_group_num", 1)
    settings = bert_layers.read_settings(config) | {
        # What they assume where config.json is silent is not what BERT's classes assume.
        "activation": config.choice("hidden_act", bert_layers.ACTIVATIONS, "gelu_new"),
        "dropout": config.number("hidden_dropout_prob", 0.0),
        "attention_dropout": config.number("attention_probs_dropout_prob", 0.0),
        "init": NormalInit(std=config.number("initializer_range", 0.02), truncated=True),
    }
    return dataclasses.replace(
        recipes.get("albert-base").backbone,
        **settings,
        positions=LearnedPositions(config.count("max_position_embeddings", 512)),
        embedding_size=config.count("embedding_size", 128),
        sharing="all",
        num_groups=config.count("num_hidden_groups", 1),
        num_types=config.count("type_vocab_size", 2),
        pooler="albert.pooler.weight" in names,
    )


def read_recipe(name: str, backbone: Transformer, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model: ALBERT's, with the heads that it has.

    Without a head for masked tokens it gets a new one, and one for sentence order too where there is a pooler.
    """
    pretrained = [head for head in heads if head in ("mlm", "sop")]
    wants_pairs = "sop" in pretrained or (not pretrained and backbone.pooler)
    base = recipes.get("albert-base")
    length = min(base.segmenter.max_length, backbone.max_length)
    if backbone.num_types >= SwappedPairs.num_types:
        segmenter = dataclasses.replace(base.segmenter, max_length=length)
    else:
        segmenter, wants_pairs = FullSentences(max_length=length, cross_documents=False), False
    objectives = (MaskedLM(), SentenceOrder()) if wants_pairs else (MaskedLM(),)
    return dataclasses.replace(base, name=name, segmenter=segmenter, backbone=backbone, objectives=objectives)


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: layers that share weights, or sentence order."""
    backbone = recipe.backbone
    return (
        isinstance(backbone, Transformer)
        and backbone.visibility == "bidirectional"
        and (backbone.sharing != "none" or "sop" in heads)
    )


def check(backbone: Transformer) -> None:
    """Raise InputError naming the first setting that Hugging Face's ALBERT has no counterpart for."""
    if backbone.sharing not in ("all", "none"):
        raise InputError(
            f"backbone.sharing is {backbone.sharing!r}: Hugging Face's ALBERT shares whole layers or none, and cannot "
            f"hold a model that shares only a part of each. Use the model through elision.load"
        )
    bert_layers.check_settings(dataclasses.replace(backbone, sharing="none", embedding_size=None), "ALBERT")


def write_config(
    backbone: Transformer, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json."""
    settings = bert_layers.write_settings(backbone, vocab_size, vocabulary)
    return {
        "architectures": [ARCHITECTURES[heads]],
        "model_type": MODEL_TYPE,
        **{name: value for name, value in settings.items() if name != "use_cache"},
        "embedding_size": backbone.embedding_width,
        "num_hidden_groups": len(_owners(backbone)),
        "inner_group_num": 1,
        "max_position_embeddings": backbone.max_length,
        # Their module always adds a segment vector: without segments it is two rows of zeros.
        "type_vocab_size": backbone.num_types or 2,
        "bos_token_id": vocabulary.cls,
        "eos_token_id": vocabulary.sep,
    }


def complete(tensors: dict[str, Tensor], backbone: Transformer) -> None:
    """Add, in place, the tensors that their module has even where ours has none."""
    table = tensors[TOKEN_TABLE]
    if not backbone.num_types:
        tensors[_TYPES] = table.new_zeros(2, backbone.embedding_width)
    if backbone.embedding_size is None:
        tensors[f"{_MAPPING}.weight"] = torch.eye(backbone.hidden_size, dtype=table.dtype)
        tensors[f"{_MAPPING}.bias"] = table.new_zeros(backbone.hidden_size)
