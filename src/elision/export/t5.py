"""T5 in Hugging Face's layout: T5ForConditionalGeneration, T5Model, its classifier and its answerer.

Both releases: v1.0, whose output layer is the token table over states made smaller, and v1.1, with gated layers and an
output table of its own. In config.json `tie_word_embeddings` (or `scale_decoder_outputs`) says whether states are made
smaller; what is tied, the weights say. The table of distances lies in the first block of each stack. Their classifier puts
"transformer." before the names of the rest, which it adds to files that lack it, such as ours.
"""

import dataclasses
import json
import re
from typing import Any

import torch
from torch import Tensor

from elision import recipes
from elision.errors import InputError
from elision.export.config import Config
from elision.export.keymap import Entry, KeyMap, each_layer, module, tensor
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.position import RelativePositions
from elision.model.transformer import Transformer
from elision.objectives import SequenceLM
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

MODEL_TYPE = "t5"

TOKEN_TABLE = "shared.weight"

OUTPUT_TABLE = "lm_head.weight"

ARCHITECTURES = {
    ("seq2seq",): "T5ForConditionalGeneration",
    ("classification",): "T5ForSequenceClassification",
    ("answering",): "T5ForQuestionAnswering",
}

# In config.json: (activation, gated).
FEEDFORWARDS = {
    "relu": ("relu", False),
    "gelu": ("gelu", False),
    "gelu_new": ("gelu_tanh", False),
    "silu": ("silu", False),
    "gated-gelu": ("gelu_tanh", True),
    "gated-gelu_new": ("gelu_tanh", True),
    "gated-relu": ("relu", True),
    "gated-silu": ("silu", True),
}

_HEADS: dict[str, list[Entry]] = {
    "seq2seq": [],
    "classification": [
        *module("heads.classification.dense", "classification_head.dense"),
        *module("heads.classification.output", "classification_head.out_proj"),
    ],
    "answering": module("heads.answering.output", "qa_outputs"),
}


def key_map(backbone: EncoderDecoder, heads: tuple[str, ...]) -> KeyMap:
    """Return the table for these settings and these heads."""
    entries = tensor("backbone.encoder.embeddings.tokens.weight", TOKEN_TABLE)
    for side, stack in (("encoder", backbone.encoder), ("decoder", backbone.decoder)):
        entries += each_layer(stack.num_layers, _layer(side, stack.gated))
        entries += tensor(
            f"backbone.{side}.bias.table.weight", f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        )
        entries += tensor(f"backbone.{side}.final_norm.weight", f"{side}.final_layer_norm.weight")
    if "seq2seq" in heads and backbone.decoder.gated:
        entries += tensor("heads.seq2seq.table.weight", OUTPUT_TABLE)
    return KeyMap([*entries, *(entry for head in heads for entry in _HEADS[head])])


def _layer(side: str, gated: bool) -> list[Entry]:
    """The entries of a block; the feed-forward layer is the last of its layers there."""
    ours, theirs = f"backbone.{side}.blocks.{{n}}", f"{side}.block.{{n}}.layer"
    own, crosses, last = f"{theirs}.0", side == "decoder", 2 if side == "decoder" else 1
    entries = [
        *tensor(f"{ours}.norm_before_attention.weight", f"{own}.layer_norm.weight"),
        *tensor(f"{ours}.attention.query_key_value.weight", *(f"{own}.SelfAttention.{part}.weight" for part in "qkv")),
        *tensor(f"{ours}.attention.output.weight", f"{own}.SelfAttention.o.weight"),
        *tensor(f"{ours}.norm_before_feedforward.weight", f"{theirs}.{last}.layer_norm.weight"),
        *tensor(f"{ours}.feedforward.output.weight", f"{theirs}.{last}.DenseReluDense.wo.weight"),
    ]
    parts = {"gate": "wi_0", "inner": "wi_1"} if gated else {"inner": "wi"}
    for name, there in parts.items():
        entries += tensor(f"{ours}.feedforward.{name}.weight", f"{theirs}.{last}.DenseReluDense.{there}.weight")
    if crosses:
        cross, attention = f"{theirs}.1", f"{theirs}.1.EncDecAttention"
        entries += tensor(f"{ours}.norm_before_cross_attention.weight", f"{cross}.layer_norm.weight")
        entries += tensor(f"{ours}.cross_attention.query.weight", f"{attention}.q.weight")
        entries += tensor(f"{ours}.cross_attention.key_value.weight", f"{attention}.k.weight", f"{attention}.v.weight")
        entries += tensor(f"{ours}.cross_attention.output.weight", f"{attention}.o.weight")
    return entries


def normalise(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give tensors of old or redundant files their names of today; a gated model that shares its tables gets two.

    Raises: InputError when a model without gates has an output table of its own.
    """
    # The table of distances of attention to the source, which old files have, was never used.
    named = {
        name.removeprefix("transformer."): value
        for name, value in tensors.items()
        if "EncDecAttention.relative_attention_bias" not in name
    }
    copies = [named.pop(f"{side}.embed_tokens.weight", None) for side in ("encoder", "decoder")]
    if TOKEN_TABLE not in named and copies[0] is not None:
        named[TOKEN_TABLE] = copies[0]
    table, output = named.get(TOKEN_TABLE), named.get(OUTPUT_TABLE)
    if any(copy is not None and not torch.equal(copy, table) for copy in copies):
        raise InputError(f"the encoder and the decoder in {source} have token tables of their own: not supported")
    gated = any(name.endswith(".wi_0.weight") for name in named)
    if gated and output is None and table is not None and not any("class" in name or "qa_" in name for name in named):
        named[OUTPUT_TABLE] = table.clone()
    elif not gated and output is not None:
        if table is None or not torch.equal(output, table):
            raise InputError(
                f"{OUTPUT_TABLE} in {source} is not the token table ({TOKEN_TABLE}), in a model without gated layers (T5 v1.0): "
                f"output tables of their own are only supported in v1.1"
            )
        del named[OUTPUT_TABLE]
    return named


def heads_in(names: frozenset[str]) -> tuple[str, ...]:
    """Return the heads whose tensors are all there; the tied head over the vocabulary has none of its own."""
    theirs = {head: {name for entry in entries for name in entry.theirs} for head, entries in _HEADS.items()}
    return tuple(head for head, wanted in theirs.items() if wanted and wanted <= names) or ("seq2seq",)


def backbone_names(name: str) -> bool:
    """Tell whether a tensor of this name belongs to the backbone, where nothing may be left out."""
    return re.match(r"(shared|encoder|decoder)\.", name) is not None


def read_backbone(config: Config, names: frozenset[str]) -> EncoderDecoder:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    backbone = read_settings(config, "relu")
    tied = config.values.get("tie_word_embeddings") is not False
    if config.values.get("scale_decoder_outputs", tied) is backbone.decoder.gated:
        raise InputError(
            f"{config.path}: feed_forward_proj is {config.values.get('feed_forward_proj', 'relu')!r} and tie_word_embeddings "
            f"{json.dumps(tied)}: supported are T5 v1.0 (not gated, true) and v1.1 (gated, false)"
        )
    return backbone


def read_settings(config: Config, feedforward: str) -> EncoderDecoder:
    """Return the settings of config.json; `feedforward` is what it means when it does not say feed_forward_proj."""
    config.require("is_encoder_decoder", True)
    known = {name: name for name in FEEDFORWARDS}
    activation, gated = FEEDFORWARDS[config.choice("feed_forward_proj", known, feedforward)]
    base = recipes.get("t5-v1-1-base" if gated else "t5-base").backbone
    assert isinstance(base, EncoderDecoder)
    num_layers, dropout = config.count("num_layers", also="num_hidden_layers"), config.number("dropout_rate", 0.1)
    num_decoder_layers = config.count("num_decoder_layers", num_layers)
    settings = {
        "hidden_size": config.count("d_model", also="hidden_size"),
        "num_heads": config.count("num_heads", also="num_attention_heads"),
        "head_size": config.count("d_kv"),
        "feedforward_size": config.count("d_ff"),
        "activation": activation,
        "gated": gated,
        "positions": RelativePositions(
            config.count("relative_attention_num_buckets", 32), config.count("relative_attention_max_distance", 128)
        ),
        "norm_eps": config.number("layer_norm_epsilon", 1e-6),
        "dropout": dropout,
        "attention_dropout": dropout,
        "activation_dropout": dropout,
    }
    encoder = dataclasses.replace(base.encoder, num_layers=num_layers, **settings)
    decoder = dataclasses.replace(base.decoder, num_layers=num_decoder_layers, **settings)
    return dataclasses.replace(base, encoder=encoder, decoder=decoder)


def read_recipe(name: str, backbone: EncoderDecoder, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model: T5's, v1.0 or v1.1."""
    base = recipes.get("t5-v1-1-base" if backbone.decoder.gated else "t5-base")
    return dataclasses.replace(base, name=name, backbone=backbone)


def is_t5(recipe: Recipe) -> bool:
    """Tell whether a model has T5's positions, and an output layer like either of its releases."""
    backbone = recipe.backbone
    if not isinstance(backbone, EncoderDecoder) or not isinstance(backbone.decoder.positions, RelativePositions):
        return False
    gated = backbone.decoder.gated
    return all(
        objective.tied != gated and objective.scale_hidden != gated and not objective.bias
        for objective in recipe.objectives
        if isinstance(objective, SequenceLM)
    )


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: T5's, in whatever languages."""
    return is_t5(recipe)


def check(backbone: EncoderDecoder) -> None:
    """Raise InputError naming the first setting that Hugging Face's T5 has no counterpart for."""
    for side, stack in (("encoder", backbone.encoder), ("decoder", backbone.decoder)):
        for field, only in _SETTLED.items():
            if getattr(stack, field) != only:
                raise _refusal(f"{side}.{field}", getattr(stack, field), repr(only))
        if any(window is not None for window in stack.windows):
            raise _refusal(f"{side}.windows", stack.windows, "layers that see everything")
        if stack.num_languages > 1:
            raise _refusal(f"{side}.num_languages", stack.num_languages, "models without language embeddings")
    for field in _SHARED:
        ours, theirs = getattr(backbone.encoder, field), getattr(backbone.decoder, field)
        if ours != theirs:
            raise _refusal(f"decoder.{field}", theirs, f"one for both sides, and the encoder's is {ours!r}")
    if backbone.encoder.kv_heads != backbone.encoder.num_heads:
        raise _refusal("encoder.num_key_value_heads", backbone.encoder.num_key_value_heads, "as many as num_heads")
    if backbone.start != "pad":
        raise _refusal("start", backbone.start, "'pad'")
    if (backbone.decoder.activation, backbone.decoder.gated) not in FEEDFORWARDS.values():
        raise _refusal("decoder.activation", backbone.decoder.activation, "gelu_tanh, relu and silu with gates")


_SETTLED: dict[str, Any] = {
    "norm": "pre", "norm_kind": "rms", "parallel": False, "biases": "none", "scale_attention": False,
    "scale_embeddings": False, "embedding_size": None, "sharing": "none", "embedding_norm": False, "final_norm": True,
}  # fmt: skip
_SHARED = (
    "num_heads", "head_width", "num_key_value_heads", "feedforward_size", "activation", "gated", "positions", "norm_eps",
)  # fmt: skip


def _refusal(field: str, value: Any, known: str) -> InputError:
    return InputError(
        f"backbone.{field} is {value!r}: Hugging Face's T5, which this model is exported as, only knows {known}. Train with "
        f"that setting, or use the model through elision.load"
    )


def write_config(
    backbone: EncoderDecoder, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json."""
    return {
        "architectures": [ARCHITECTURES[heads]],
        "model_type": MODEL_TYPE,
        **write_settings(backbone, vocab_size, vocabulary),
        # Means that states are not made smaller before the output layer; tied is what the weights say is tied.
        "tie_word_embeddings": not backbone.decoder.gated,
    }


def write_settings(backbone: EncoderDecoder, vocab_size: int, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return what config.json says of the settings."""
    encoder: Transformer = backbone.encoder
    names = {settings: name for name, settings in reversed(FEEDFORWARDS.items())}
    return {
        "vocab_size": vocab_size,
        "d_model": encoder.hidden_size,
        "d_kv": encoder.head_width,
        "d_ff": encoder.feedforward_size,
        "num_layers": encoder.num_layers,
        "num_decoder_layers": backbone.decoder.num_layers,
        "num_heads": encoder.num_heads,
        "relative_attention_num_buckets": encoder.positions.num_buckets,
        "relative_attention_max_distance": encoder.positions.max_distance,
        "dropout_rate": encoder.dropout,
        "layer_norm_epsilon": encoder.norm_eps,
        "initializer_factor": 1.0,
        "feed_forward_proj": names[encoder.activation, encoder.gated],
        "is_encoder_decoder": True,
        "pad_token_id": vocabulary.pad,
        "eos_token_id": vocabulary.eos,
        "decoder_start_token_id": vocabulary.pad,
        "use_cache": True,
    }


def complete(tensors: dict[str, Tensor], backbone: EncoderDecoder) -> None:
    """Add, in place, the tensors that their module has even where ours has none: nothing here."""
