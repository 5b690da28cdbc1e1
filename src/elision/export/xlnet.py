"""XLNet in Hugging Face's layout: XLNetLMHeadModel, XLNetModel and the classes for tasks.

The decoder over the vocabulary is the token table (tied); its bias is `lm_loss.bias`. Their projections lie as
[hidden, heads, channels], those onto queries, keys, values and distances with inputs first.
"""

import dataclasses
import re
from typing import Any

import torch
from torch import Tensor

from elision import recipes
from elision.data.noise import PermutationMask
from elision.data.segment import Chunks, MemoryStreams
from elision.errors import InputError
from elision.export.config import Config
from elision.export.keymap import Entry, KeyMap, each_layer, module, tensor
from elision.model.init import NormalInit
from elision.model.xlnet import XLNet
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

MODEL_TYPE = "xlnet"

TOKEN_TABLE = "transformer.word_embedding.weight"

# Their classifiers read the last token.
PADDING_SIDE = "left"

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}

ARCHITECTURES = {
    ("plm",): "XLNetLMHeadModel",
    ("classification",): "XLNetForSequenceClassification",
    ("tagging",): "XLNetForTokenClassification",
    ("answering",): "XLNetForQuestionAnsweringSimple",
}

_HEADS: dict[str, list[Entry]] = {
    "plm": tensor("heads.plm.bias", "lm_loss.bias"),
    "classification": [
        *module("heads.classification.dense", "sequence_summary.summary"),
        *module("heads.classification.output", "logits_proj"),
    ],
    "tagging": module("heads.tagging.output", "classifier"),
    "answering": module("heads.answering.output", "qa_outputs"),
}


def key_map(backbone: XLNet, heads: tuple[str, ...]) -> KeyMap:
    """Return the table for these settings and these heads."""
    return KeyMap(
        [
            *tensor("backbone.embeddings.tokens.weight", TOKEN_TABLE),
            Entry("backbone.unknown", ("transformer.mask_emb",), shape=(1, 1, backbone.hidden_size)),
            *each_layer(backbone.num_layers, _layer(backbone)),
            *(entry for head in heads for entry in _HEADS[head]),
        ]
    )


def _layer(backbone: XLNet) -> list[Entry]:
    ours, theirs = "backbone.blocks.{n}", "transformer.layer.{n}"
    split = (backbone.hidden_size, backbone.num_heads, backbone.hidden_size // backbone.num_heads)

    def projection(name: str, *names: str, transposed: bool = True) -> Entry:
        there = tuple(f"{theirs}.rel_attn.{part}" for part in names)
        return Entry(f"{ours}.attention.{name}.weight", there, transposed, split)

    return [
        projection("query", "q"),
        projection("key_value", "k", "v"),
        projection("distance", "r"),
        projection("output", "o", transposed=False),
        *tensor(f"{ours}.attention.content_bias", f"{theirs}.rel_attn.r_w_bias"),
        *tensor(f"{ours}.attention.distance_bias", f"{theirs}.rel_attn.r_r_bias"),
        *tensor(f"{ours}.attention.segment_bias", f"{theirs}.rel_attn.r_s_bias"),
        *tensor(f"{ours}.attention.segments", f"{theirs}.rel_attn.seg_embed"),
        *module(f"{ours}.norm_after_attention", f"{theirs}.rel_attn.layer_norm"),
        *module(f"{ours}.feedforward.inner", f"{theirs}.ff.layer_1"),
        *module(f"{ours}.feedforward.output", f"{theirs}.ff.layer_2"),
        *module(f"{ours}.norm_after_feedforward", f"{theirs}.ff.layer_norm"),
    ]


def normalise(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give tensors of headless or redundant files their names with a head.

    Raises: InputError when the output table is not the input table (untied).
    """
    named = {
        f"transformer.{name}" if re.match(r"(word_embedding|mask_emb|layer)\b", name) else name: value
        for name, value in tensors.items()
    }
    output = named.pop("lm_loss.weight", None)
    if output is not None and (TOKEN_TABLE not in named or not torch.equal(output, named[TOKEN_TABLE])):
        raise InputError(
            f"lm_loss.weight in {source} is not the token table ({TOKEN_TABLE}): output tables of their own are not "
            f"supported"
        )
    return named


def heads_in(names: frozenset[str]) -> tuple[str, ...]:
    """Return the heads whose tensors are all there."""
    return tuple(head for head, entries in _HEADS.items() if {name for e in entries for name in e.theirs} <= names)


def backbone_names(name: str) -> bool:
    """Tell whether a tensor of this name belongs to the backbone, where nothing may be left out."""
    return name.startswith("transformer.")


def read_backbone(config: Config, names: frozenset[str]) -> XLNet:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    config.require("attn_type", "bi")
    config.require("bi_data", False)
    config.require("same_length", False)
    config.require("summary_type", "last")
    config.require("summary_use_proj", True)
    clamp = config.values.get("clamp_len") or -1
    return dataclasses.replace(
        recipes.get("xlnet-base").backbone,
        num_layers=config.count("n_layer", also="num_hidden_layers"),
        hidden_size=config.count("d_model", also="hidden_size"),
        num_heads=config.count("n_head", also="num_attention_heads"),
        feedforward_size=config.count("d_inner"),
        memory_length=config.values.get("mem_len") or 0,
        reuse_length=config.values.get("reuse_len") or None,
        clamp_distance=clamp if clamp > 0 else None,
        activation=config.choice("ff_activation", ACTIVATIONS, "gelu"),
        classifier="tanh" if config.values.get("summary_activation", "tanh") == "tanh" else "none",
        norm_eps=config.number("layer_norm_eps", 1e-12),
        dropout=config.number("dropout", 0.1),
        attention_dropout=config.number("dropout", 0.1),
        init=NormalInit(std=config.number("initializer_range", 0.02)),
    )


def read_recipe(name: str, backbone: XLNet, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model: XLNet's, with the memory that it has."""
    base = recipes.get("xlnet-base")
    segmenter, noise = base.segmenter, base.noise
    if backbone.memory_length:
        length = backbone.reuse_length or segmenter.reuse_length
        backbone = dataclasses.replace(backbone, reuse_length=length)
        segmenter = MemoryStreams(max_length=max(segmenter.max_length, length + 5), reuse_length=length)
        noise = PermutationMask(permute_length=length)
    else:
        segmenter = Chunks(max_length=segmenter.max_length, cross_documents=False)
    return dataclasses.replace(base, name=name, segmenter=segmenter, noise=noise, backbone=backbone)


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model."""
    return isinstance(recipe.backbone, XLNet)


def check(backbone: XLNet) -> None:
    """Raise InputError naming the first setting that Hugging Face's XLNet has no counterpart for."""
    if not backbone.num_types:
        raise InputError(
            "backbone.num_types is 0: Hugging Face's XLNet always tells segments apart. Train with 3, or use the model "
            "through elision.load"
        )


def write_config(backbone: XLNet, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the content of config.json."""
    return {
        "architectures": [ARCHITECTURES[heads]],
        "model_type": MODEL_TYPE,
        "vocab_size": vocab_size,
        "d_model": backbone.hidden_size,
        "n_layer": backbone.num_layers,
        "n_head": backbone.num_heads,
        "d_head": backbone.hidden_size // backbone.num_heads,
        "d_inner": backbone.feedforward_size,
        "ff_activation": {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}[backbone.activation],
        "attn_type": "bi",
        "dropout": backbone.dropout,
        # Of these their default is a memory of 512, kept in evaluation even by models that were trained without one.
        "mem_len": backbone.memory_length or None,
        "reuse_len": backbone.reuse_length,
        "use_mems_eval": backbone.memory_length > 0,
        "use_mems_train": False,
        "bi_data": False,
        "clamp_len": -1 if backbone.clamp_distance is None else backbone.clamp_distance,
        "same_length": False,
        "summary_type": "last",
        "summary_use_proj": True,
        "summary_activation": "tanh",
        "summary_last_dropout": backbone.dropout,
        "initializer_range": backbone.init.std,
        "layer_norm_eps": backbone.norm_eps,
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
        "tie_word_embeddings": True,
    }


def complete(tensors: dict[str, Tensor], backbone: XLNet) -> None:
    """Their module has nothing that ours lacks."""
