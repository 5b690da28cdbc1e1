"""BERT in Hugging Face's layout: BertForPreTraining, BertForMaskedLM, BertModel and their relatives.

The decoder over the vocabulary is the token table (tied); its bias is `cls.predictions.bias`.
"""

import dataclasses
from typing import Any

from torch import Tensor

from elision import recipes
from elision.data.segment import Chunks, SentencePairs
from elision.export import bert_layers
from elision.export.config import Config
from elision.export.keymap import Entry, KeyMap, module, tensor
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.objectives import MaskedLM, NextSentence
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

MODEL_TYPE = "bert"

TOKEN_TABLE = "bert.embeddings.word_embeddings.weight"

ARCHITECTURES = {
    ("mlm", "nsp"): "BertForPreTraining",
    ("mlm",): "BertForMaskedLM",
    ("nsp",): "BertForNextSentencePrediction",
    ("classification",): "BertForSequenceClassification",
    ("tagging",): "BertForTokenClassification",
    ("answering",): "BertForQuestionAnswering",
}

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
    "tagging": module("heads.tagging.output", "classifier"),
    "answering": module("heads.answering.output", "qa_outputs"),
}


def key_map(backbone: Transformer, heads: tuple[str, ...]) -> KeyMap:
    """Return the table for these settings and these heads."""
    return KeyMap(
        [
            *bert_layers.encoder(backbone, "bert."),
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
    named = bert_layers.names_of_today(tensors, "bert.")
    bert_layers.untie(named, TOKEN_TABLE, "cls.predictions.decoder", "cls.predictions.bias", source)
    return named


def heads_in(names: frozenset[str]) -> tuple[str, ...]:
    """Return the heads whose tensors are all there."""
    return tuple(head for head, entries in _HEADS.items() if {name for e in entries for name in e.theirs} <= names)


def backbone_names(name: str) -> bool:
    """Tell whether a tensor of this name belongs to the backbone, where nothing may be left out."""
    return name.startswith("bert.")


def read_backbone(config: Config, names: frozenset[str]) -> Transformer:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    return dataclasses.replace(
        recipes.get("bert-base").backbone,
        **bert_layers.read_settings(config),
        positions=LearnedPositions(config.count("max_position_embeddings", 512)),
        num_types=config.count("type_vocab_size", 2),
        pooler="bert.pooler.dense.weight" in names,
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
    bert_layers.check_settings(backbone, "BERT")


def write_config(
    backbone: Transformer, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json."""
    return {
        "architectures": [ARCHITECTURES[heads]],
        "model_type": MODEL_TYPE,
        **bert_layers.write_settings(backbone, vocab_size, vocabulary),
        "max_position_embeddings": backbone.max_length,
        # Their module always adds a segment vector: without segments it is two rows of zeros.
        "type_vocab_size": backbone.num_types or 2,
    }


def complete(tensors: dict[str, Tensor], backbone: Transformer) -> None:
    """Add, in place, the tensors that their module has even where ours has none."""
    if not backbone.num_types:
        tensors["bert.embeddings.token_type_embeddings.weight"] = tensors[TOKEN_TABLE].new_zeros(
            2, backbone.hidden_size
        )
