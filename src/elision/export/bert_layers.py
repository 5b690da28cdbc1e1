"""What BERT and its relatives (RoBERTa, ELECTRA ...) share in Hugging Face's layout: embeddings, layers and settings.

The names are the same but for the prefix, "bert." or "roberta." or another.
"""

import re
from typing import Any

import torch
from torch import Tensor

from elision.errors import InputError
from elision.export.config import Config
from elision.export.keymap import Entry, each_layer, module, tensor
from elision.model.init import NormalInit
from elision.model.transformer import Transformer
from elision.text.vocabulary import Vocabulary

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}


def encoder(backbone: Transformer, prefix: str) -> list[Entry]:
    """Return the entries of embeddings (with their norm) and layers; no pooler."""
    layer = f"{prefix}encoder.layer.{{n}}"
    return [
        *tensor("backbone.embeddings.tokens.weight", f"{prefix}embeddings.word_embeddings.weight"),
        *tensor("backbone.embeddings.positions.table.weight", f"{prefix}embeddings.position_embeddings.weight"),
        *(
            tensor("backbone.embeddings.types.weight", f"{prefix}embeddings.token_type_embeddings.weight")
            if backbone.num_types
            else []
        ),
        *module("backbone.embeddings.norm", f"{prefix}embeddings.LayerNorm"),
        *each_layer(
            backbone.num_layers,
            [
                *module(
                    "backbone.blocks.{n}.attention.query_key_value",
                    f"{layer}.attention.self.query",
                    f"{layer}.attention.self.key",
                    f"{layer}.attention.self.value",
                ),
                *module("backbone.blocks.{n}.attention.output", f"{layer}.attention.output.dense"),
                *module("backbone.blocks.{n}.norm_after_attention", f"{layer}.attention.output.LayerNorm"),
                *module("backbone.blocks.{n}.feedforward.inner", f"{layer}.intermediate.dense"),
                *module("backbone.blocks.{n}.feedforward.output", f"{layer}.output.dense"),
                *module("backbone.blocks.{n}.norm_after_feedforward", f"{layer}.output.LayerNorm"),
            ],
        ),
    ]


def names_of_today(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors of an old or headless file with the names that files have today; buffers are left out."""
    named: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if re.match(r"(embeddings|embeddings_project|encoder|pooler)\.", name):
            name = f"{prefix}{name}"
        # Files converted from TensorFlow call the scale and shift of layer norm so.
        name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
        name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
        if name not in (f"{prefix}embeddings.position_ids", f"{prefix}embeddings.token_type_ids"):
            named[name] = value
    return named


def untie(named: dict[str, Tensor], table: str, decoder: str, bias: str, source: str) -> None:
    """Drop, in place, the decoder's own names for the token table and for the output bias.

    Raises: InputError when the output table is not the input table, or the two biases differ.
    """
    output = named.pop(f"{decoder}.weight", None)
    if output is not None and (table not in named or not torch.equal(output, named[table])):
        raise InputError(
            f"{decoder}.weight in {source} is not the token table ({table}): output tables of their own are not supported"
        )
    repeated = named.pop(f"{decoder}.bias", None)
    if repeated is not None and not torch.equal(named.setdefault(bias, repeated), repeated):
        raise InputError(f"{bias} and {decoder}.bias in {source} differ: they are one bias")


def read_settings(config: Config) -> dict[str, Any]:
    """Return the fields of a `Transformer` that all of them keep in config.json under the same names.

    Raises: InputError for what cannot be expressed here. Positions, segments and pooler are left to the family.
    """
    config.require("position_embedding_type", "absolute")
    config.require("is_decoder", False)
    config.require("add_cross_attention", False)
    return {
        "num_layers": config.count("num_hidden_layers"),
        "hidden_size": config.count("hidden_size"),
        "num_heads": config.count("num_attention_heads"),
        "feedforward_size": config.count("intermediate_size"),
        "activation": config.choice("hidden_act", ACTIVATIONS, "gelu"),
        "norm_eps": config.number("layer_norm_eps", 1e-12),
        "dropout": config.number("hidden_dropout_prob", 0.1),
        "attention_dropout": config.number("attention_probs_dropout_prob", 0.1),
        "init": NormalInit(std=config.number("initializer_range", 0.02), truncated=True),
    }


def check_settings(backbone: Transformer, theirs: str) -> None:
    """Raise InputError naming the first setting that the class has no counterpart for; `theirs` names the class."""
    for field, wanted in (
        ("norm", "post"),
        ("embedding_norm", True),
        ("final_norm", False),
        ("sharing", "none"),
        ("embedding_size", None),
    ):
        value = getattr(backbone, field)
        if value != wanted:
            raise InputError(
                f"backbone.{field} is {value!r}: Hugging Face's {theirs}, which this model is exported as, only "
                f"knows {wanted!r}. Train with that setting, or use the model through elision.load"
            )
    if backbone.num_languages > 1:
        raise InputError(
            f"backbone.num_languages is {backbone.num_languages}: Hugging Face's {theirs} has no language embeddings. "
            f"Use the model through elision.load"
        )


def write_settings(backbone: Transformer, vocab_size: int, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return what `read_settings` reads, and what else all of them have in config.json."""
    return {
        "vocab_size": vocab_size,
        "hidden_size": backbone.hidden_size,
        "num_hidden_layers": backbone.num_layers,
        "num_attention_heads": backbone.num_heads,
        "intermediate_size": backbone.feedforward_size,
        "hidden_act": {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}[backbone.activation],
        "hidden_dropout_prob": backbone.dropout,
        "attention_probs_dropout_prob": backbone.attention_dropout,
        "initializer_range": backbone.init.std,
        "layer_norm_eps": backbone.norm_eps,
        "pad_token_id": vocabulary.pad,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "use_cache": True,
    }
