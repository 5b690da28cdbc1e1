"""What BART, mBART and BlenderBot share in Hugging Face's layout: an encoder and a decoder over one token table.

The output layer is that table; `final_logits_bias` is a buffer of zeros, [1, V], that their classes for generation add.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from elision.errors import InputError
from elision.export.config import Config
from elision.export.keymap import Entry, KeyMap, each_layer, module, tensor
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions, SinusoidalPositions
from elision.model.transformer import Transformer
from elision.objectives import SequenceLM
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

TOKEN_TABLE = "model.shared.weight"

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}

HEADS: dict[str, list[Entry]] = {
    "seq2seq": [],
    "classification": [
        *module("heads.classification.dense", "classification_head.dense"),
        *module("heads.classification.output", "classification_head.out_proj"),
    ],
    "answering": module("heads.answering.output", "qa_outputs"),
}

# Settings of ours that their classes have no counterpart for, with the only value that they know.
_ONLY = {
    "norm_kind": "layer",
    "norm_eps": 1e-5,
    "gated": False,
    "biases": "all",
    "num_key_value_heads": None,
    "head_size": None,
    "scale_attention": True,
    "windows": (),
    "num_languages": 0,
    "embedding_size": None,
    "sharing": "none",
}


def key_map(backbone: EncoderDecoder, heads: tuple[str, ...]) -> KeyMap:
    """Return the table for these settings and these heads."""
    return KeyMap(
        [
            *tensor("backbone.encoder.embeddings.tokens.weight", TOKEN_TABLE),
            *_stack("encoder", backbone.encoder),
            *_stack("decoder", backbone.decoder),
            *(entry for head in heads for entry in HEADS[head]),
        ]
    )


def _stack(side: str, settings: Transformer) -> list[Entry]:
    ours, theirs = f"backbone.{side}", f"model.{side}"
    table = f"{ours}.embeddings.positions.table" + (
        ".weight" if isinstance(settings.positions, LearnedPositions) else ""
    )
    return [
        *tensor(table, f"{theirs}.embed_positions.weight"),
        *(module(f"{ours}.embeddings.norm", f"{theirs}.layernorm_embedding") if settings.embedding_norm else []),
        *each_layer(settings.num_layers, _layer(ours, theirs, settings.norm)),
        *(module(f"{ours}.final_norm", f"{theirs}.layer_norm") if settings.final_norm else []),
    ]


def _layer(ours: str, theirs: str, norm: Literal["post", "pre"]) -> list[Entry]:
    block, layer = f"{ours}.blocks.{{n}}", f"{theirs}.layers.{{n}}"
    where = "after" if norm == "post" else "before"
    crosses = [
        *module(f"{block}.cross_attention.query", f"{layer}.encoder_attn.q_proj"),
        *module(f"{block}.cross_attention.key_value", f"{layer}.encoder_attn.k_proj", f"{layer}.encoder_attn.v_proj"),
        *module(f"{block}.cross_attention.output", f"{layer}.encoder_attn.out_proj"),
        *module(f"{block}.norm_{where}_cross_attention", f"{layer}.encoder_attn_layer_norm"),
    ]
    return [
        *module(f"{block}.attention.query_key_value", *(f"{layer}.self_attn.{part}_proj" for part in ("q", "k", "v"))),
        *module(f"{block}.attention.output", f"{layer}.self_attn.out_proj"),
        *module(f"{block}.norm_{where}_attention", f"{layer}.self_attn_layer_norm"),
        *(crosses if theirs.endswith("decoder") else []),
        *module(f"{block}.feedforward.inner", f"{layer}.fc1"),
        *module(f"{block}.feedforward.output", f"{layer}.fc2"),
        *module(f"{block}.norm_{where}_feedforward", f"{layer}.final_layer_norm"),
    ]


def normalise(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give tensors of headless or redundant files their names with a head, and leave the copies of the table out.

    Raises: InputError when one of the tables is another one (untied), or the output layer has a bias.
    """
    named = {
        f"model.{name}" if re.match(r"(shared|encoder|decoder)\.", name) else name: value
        for name, value in tensors.items()
    }
    copies = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
    if TOKEN_TABLE not in named:
        # Files may hold the one table under any of its names.
        there = next((name for name in copies if name in named), None)
        if there is not None:
            named[TOKEN_TABLE] = named[there]
    for name in copies:
        copy = named.pop(name, None)
        if copy is not None and not torch.equal(copy, named[TOKEN_TABLE]):
            raise InputError(
                f"{name} in {source} is not the token table ({TOKEN_TABLE}): tables of their own are not supported"
            )
    bias = named.pop("final_logits_bias", None)
    if bias is not None and bias.any():
        raise InputError(
            f"final_logits_bias in {source} is not zero: an output layer with a bias is not supported in this family"
        )
    return named


def heads_in(names: frozenset[str]) -> tuple[str, ...]:
    """Return the heads whose tensors are all there; the tied head over the vocabulary has none of its own."""
    theirs = {head: {name for entry in entries for name in entry.theirs} for head, entries in HEADS.items()}
    return tuple(head for head, wanted in theirs.items() if wanted and wanted <= names) or ("seq2seq",)


def backbone_names(name: str) -> bool:
    """Tell whether a tensor of this name belongs to the backbone, where nothing may be left out."""
    return name.startswith("model.")


def read_backbone(config: Config, base: EncoderDecoder, positions: Any) -> EncoderDecoder:
    """Return the settings of config.json, the rest as in `base`. Raises: InputError for what cannot be expressed here."""
    shared = {
        "hidden_size": config.count("d_model", also="hidden_size"),
        "activation": config.choice("activation_function", ACTIVATIONS, "gelu"),
        "positions": positions,
        "scale_embeddings": bool(config.values.get("scale_embedding", False)),
        "dropout": config.number("dropout", 0.1),
        "attention_dropout": config.number("attention_dropout", 0.0),
        "activation_dropout": config.number("activation_dropout", 0.0),
        "init": NormalInit(std=config.number("init_std", 0.02)),
    }
    sides = {
        side: dataclasses.replace(
            getattr(base, side),
            **shared,
            num_layers=config.count(f"{side}_layers"),
            num_heads=config.count(f"{side}_attention_heads"),
            feedforward_size=config.count(f"{side}_ffn_dim"),
        )
        for side in ("encoder", "decoder")
    }
    return dataclasses.replace(base, **sides, start=_start(config, base.start))


def _start(config: Config, default: str) -> str:
    """Return what the decoder begins with: the role whose id config.json gives."""
    given = config.values.get("decoder_start_token_id")
    if given is None:
        return default
    for start, role in (("last", "eos_token_id"), ("bos", "bos_token_id"), ("pad", "pad_token_id")):
        if config.values.get(role) == given:
            return start
    # A language.
    return "last"


def read_recipe(base: Recipe, name: str, backbone: EncoderDecoder) -> Recipe:
    """Return the recipe for going on with the pretraining of such a model: `base`, at a length that it can read."""
    length = min(base.segmenter.max_length, backbone.max_length)
    while length > 4 and base.noise.lengths(length)[0] > backbone.max_length:
        length -= 1
    segmenter = dataclasses.replace(base.segmenter, max_length=length)
    return dataclasses.replace(base, name=name, segmenter=segmenter, backbone=backbone)


def check(backbone: EncoderDecoder, family: str, only: Mapping[str, Any]) -> None:
    """Raise InputError naming the first setting of either stack that `family` has no counterpart for.

    only: the settings that tell the family from its relatives, with the value that it knows.
    """

    def refuse(side: str, field: str, value: object, wanted: object) -> None:
        raise InputError(
            f"backbone.{side}.{field} is {value!r}: Hugging Face's {family}, which this model is exported as, only knows "
            f"{wanted!r}. Train with that setting, or use the model through elision.load"
        )

    for side in ("encoder", "decoder"):
        settings = getattr(backbone, side)
        for field, wanted in (_ONLY | dict(only)).items():
            if getattr(settings, field) != wanted:
                refuse(side, field, getattr(settings, field), wanted)
    for field in ("activation", "positions", "scale_embeddings", "dropout", "attention_dropout", "activation_dropout"):
        one, other = getattr(backbone.encoder, field), getattr(backbone.decoder, field)
        if one != other:
            refuse("decoder", field, other, one)


def check_positions(backbone: EncoderDecoder, family: str, fixed: bool = False, offset: int = 2) -> None:
    """Raise InputError unless positions are learned ones that begin at row `offset`, or, with `fixed`, sines and cosines."""
    positions = backbone.encoder.positions
    if fixed and isinstance(positions, SinusoidalPositions):
        return
    if not isinstance(positions, LearnedPositions) or positions.offset != offset:
        raise InputError(
            f"backbone.encoder.positions is {positions}: Hugging Face's {family}, which this model is exported as, only knows "
            f"LearnedPositions with offset {offset}{' or SinusoidalPositions' * fixed}. Train with these, or use the model "
            f"through elision.load"
        )


def check_objective(recipe: Recipe) -> None:
    """Raise InputError when the output layer is more than the token table."""
    for objective in recipe.objectives:
        if isinstance(objective, SequenceLM):
            for field, wanted in (("bias", False), ("tied", True), ("scale_hidden", False)):
                if getattr(objective, field) != wanted:
                    raise InputError(
                        f"SequenceLM.{field} is {not wanted}: Hugging Face's class for this backbone scores words by the "
                        f"token table alone. Train with {field} {wanted}, or use the model through elision.load"
                    )


def write_config(
    backbone: EncoderDecoder, model_type: str, architecture: str, vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json."""
    encoder, decoder = backbone.encoder, backbone.decoder
    start = {"last": vocabulary.eos, "bos": vocabulary.bos, "pad": vocabulary.pad}[backbone.start]
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "is_encoder_decoder": True,
        "vocab_size": vocab_size,
        "d_model": backbone.hidden_size,
        "encoder_layers": encoder.num_layers,
        "encoder_attention_heads": encoder.num_heads,
        "encoder_ffn_dim": encoder.feedforward_size,
        "decoder_layers": decoder.num_layers,
        "decoder_attention_heads": decoder.num_heads,
        "decoder_ffn_dim": decoder.feedforward_size,
        "max_position_embeddings": backbone.max_length,
        "activation_function": {"gelu_tanh": "gelu_new"}.get(decoder.activation, decoder.activation),
        "scale_embedding": decoder.scale_embeddings,
        "dropout": decoder.dropout,
        "attention_dropout": decoder.attention_dropout,
        "activation_dropout": decoder.activation_dropout,
        "init_std": getattr(decoder.init, "std", backbone.hidden_size**-0.5),
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
        "decoder_start_token_id": start,
        "forced_eos_token_id": vocabulary.eos,
        "tie_word_embeddings": True,
        "use_cache": True,
    }


def complete(tensors: dict[str, Tensor], backbone: EncoderDecoder) -> None:
    """Add, in place, the bias of zeros that the class for generation adds to its scores."""
    others = {name for head in HEADS.values() for entry in head for name in entry.theirs}
    if not others & tensors.keys():
        table = tensors[TOKEN_TABLE]
        tensors["final_logits_bias"] = table.new_zeros(1, table.shape[0])
