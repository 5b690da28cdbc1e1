"""GPT-2 in Hugging Face's layout: GPT2LMHeadModel, GPT2Model and its classifier, tagger and answerer.

Matrices lie with inputs first (Conv1D); queries, keys and values are fused as here. The head is the token table.
"""

import dataclasses
from typing import Any

from torch import Tensor

from elision import recipes
from elision.errors import InputError
from elision.export.config import Config
from elision.export.keymap import Entry, KeyMap, each_layer, module, tensor
from elision.export.plain_decoder import check_settings, check_windows, renamed
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

MODEL_TYPE = "gpt2"

TOKEN_TABLE = "transformer.wte.weight"

ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}

ARCHITECTURES = {
    ("clm",): "GPT2LMHeadModel",
    ("classification",): "GPT2ForSequenceClassification",
    ("tagging",): "GPT2ForTokenClassification",
    ("answering",): "GPT2ForQuestionAnswering",
}

_LAYER = [
    *module("backbone.blocks.{n}.norm_before_attention", "transformer.h.{n}.ln_1"),
    *module("backbone.blocks.{n}.attention.query_key_value", "transformer.h.{n}.attn.c_attn", transposed=True),
    *module("backbone.blocks.{n}.attention.output", "transformer.h.{n}.attn.c_proj", transposed=True),
    *module("backbone.blocks.{n}.norm_before_feedforward", "transformer.h.{n}.ln_2"),
    *module("backbone.blocks.{n}.feedforward.inner", "transformer.h.{n}.mlp.c_fc", transposed=True),
    *module("backbone.blocks.{n}.feedforward.output", "transformer.h.{n}.mlp.c_proj", transposed=True),
]

_HEADS: dict[str, list[Entry]] = {
    "clm": [],
    "classification": tensor("heads.classification.output.weight", "score.weight"),
    "tagging": module("heads.tagging.output", "classifier"),
    "answering": module("heads.answering.output", "qa_outputs"),
}


def key_map(backbone: Transformer, heads: tuple[str, ...]) -> KeyMap:
    """Return the table for these settings and these heads."""
    return KeyMap(
        [
            *tensor("backbone.embeddings.tokens.weight", TOKEN_TABLE),
            *tensor("backbone.embeddings.positions.table.weight", "transformer.wpe.weight"),
            *each_layer(backbone.num_layers, _LAYER),
            *module("backbone.final_norm", "transformer.ln_f"),
            *(entry for head in heads for entry in _HEADS[head]),
        ]
    )


def normalise(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give tensors of old, headless or redundant files their names of today.

    Raises: InputError when the output table is not the input table (untied).
    """
    # Old files hold the causal mask of each layer.
    headless, redundant = r"(wte|wpe|h|ln_f)\.", r"\.attn\.(masked_)?bias$"
    return renamed(tensors, source, TOKEN_TABLE, headless, redundant, "output tables of their own are not supported")


def heads_in(names: frozenset[str]) -> tuple[str, ...]:
    """Return the heads whose tensors are all there; the tied head over the vocabulary has none of its own."""
    theirs = {head: {name for entry in entries for name in entry.theirs} for head, entries in _HEADS.items()}
    return tuple(head for head, wanted in theirs.items() if wanted and wanted <= names) or ("clm",)


def backbone_names(name: str) -> bool:
    """Tell whether a tensor of this name belongs to the backbone, where nothing may be left out."""
    return name.startswith("transformer.")


def read_backbone(config: Config, names: frozenset[str]) -> Transformer:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    config.require("scale_attn_weights", True)
    config.require("scale_attn_by_inverse_layer_idx", False)
    config.require("add_cross_attention", False)
    base = recipes.get("gpt2-small").backbone
    width = config.count("n_embd", also="hidden_size")
    dropout = config.number("resid_pdrop", 0.1)
    if config.number("embd_pdrop", 0.1) != dropout:
        config.note(f"embd_pdrop differs from resid_pdrop: further training will use {dropout} for both")
    return dataclasses.replace(
        base,
        num_layers=config.count("n_layer", also="num_hidden_layers"),
        hidden_size=width,
        num_heads=config.count("n_head", also="num_attention_heads"),
        feedforward_size=config.count("n_inner", 4 * width),
        activation=config.choice("activation_function", ACTIVATIONS, "gelu_new"),
        positions=LearnedPositions(config.count("n_positions", also="max_position_embeddings")),
        norm_eps=config.number("layer_norm_epsilon", 1e-5),
        dropout=dropout,
        attention_dropout=config.number("attn_pdrop", 0.1),
        init=dataclasses.replace(base.init, std=config.number("initializer_range", 0.02)),
    )


def read_recipe(name: str, backbone: Transformer, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model: GPT-2's."""
    base = recipes.get("gpt2-small")
    segmenter = dataclasses.replace(base.segmenter, max_length=min(base.segmenter.max_length, backbone.max_length))
    return dataclasses.replace(base, name=name, segmenter=segmenter, backbone=backbone)


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: every causal one that has none of its own."""
    return recipe.backbone.visibility == "causal"


def check(backbone: Transformer) -> None:
    """Raise InputError naming the first setting that Hugging Face's GPT-2 has no counterpart for."""
    wanted = {"norm": "pre", "final_norm": True, "biases": "all", "scale_attention": True, "scale_embeddings": False}
    check_settings(backbone, "GPT-2", wanted)
    check_windows(backbone, "GPT-2")
    if not isinstance(backbone.positions, LearnedPositions):
        raise InputError(
            f"backbone.positions is {type(backbone.positions).__name__}: Hugging Face's GPT-2, which this model is exported "
            f"as, only knows LearnedPositions. Train with those, or use the model through elision.load"
        )


def write_config(
    backbone: Transformer, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json."""
    return {
        "architectures": [ARCHITECTURES[heads]],
        "model_type": MODEL_TYPE,
        "vocab_size": vocab_size,
        "n_embd": backbone.hidden_size,
        "n_layer": backbone.num_layers,
        "n_head": backbone.num_heads,
        "n_inner": backbone.feedforward_size,
        "n_positions": backbone.max_length,
        "activation_function": {"gelu_tanh": "gelu_new"}.get(backbone.activation, backbone.activation),
        "embd_pdrop": backbone.dropout,
        "resid_pdrop": backbone.dropout,
        "attn_pdrop": backbone.attention_dropout,
        "layer_norm_epsilon": backbone.norm_eps,
        "initializer_range": getattr(backbone.init, "std", 0.02),
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
        "tie_word_embeddings": True,
        "use_cache": True,
    }


def complete(tensors: dict[str, Tensor], backbone: Transformer) -> None:
    """Add, in place, the tensors that their module has even where ours has none: nothing here."""
