"""GPT-1 in Hugging Face's layout: OpenAIGPTLMHeadModel, OpenAIGPTModel and its classifier.

Matrices lie with inputs first (Conv1D); queries, keys and values are fused as here. Norms follow each sublayer and there
is none after the last. The head is the token table. What its config calls "gelu" is the approximation with tanh.
"""

import dataclasses
from typing import Any

from torch import Tensor

from elision import recipes
from elision.errors import InputError
from elision.export.config import Config
from elision.export.keymap import Entry, KeyMap, each_layer, module, tensor
from elision.export.plain_decoder import check_settings, check_windows, is_decoder, renamed
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

MODEL_TYPE = "openai-gpt"

TOKEN_TABLE = "transformer.tokens_embed.weight"

ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}

ARCHITECTURES = {
    ("clm",): "OpenAIGPTLMHeadModel",
    ("classification",): "OpenAIGPTForSequenceClassification",
}

_LAYER = [
    *module("backbone.blocks.{n}.attention.query_key_value", "transformer.h.{n}.attn.c_attn", transposed=True),
    *module("backbone.blocks.{n}.attention.output", "transformer.h.{n}.attn.c_proj", transposed=True),
    *module("backbone.blocks.{n}.norm_after_attention", "transformer.h.{n}.ln_1"),
    *module("backbone.blocks.{n}.feedforward.inner", "transformer.h.{n}.mlp.c_fc", transposed=True),
    *module("backbone.blocks.{n}.feedforward.output", "transformer.h.{n}.mlp.c_proj", transposed=True),
    *module("backbone.blocks.{n}.norm_after_feedforward", "transformer.h.{n}.ln_2"),
]

_HEADS: dict[str, list[Entry]] = {
    "clm": [],
    "classification": tensor("heads.classification.output.weight", "score.weight"),
}


def key_map(backbone: Transformer, heads: tuple[str, ...]) -> KeyMap:
    """Return the table for these settings and these heads."""
    return KeyMap(
        [
            *tensor("backbone.embeddings.tokens.weight", TOKEN_TABLE),
            *tensor("backbone.embeddings.positions.table.weight", "transformer.positions_embed.weight"),
            *each_layer(backbone.num_layers, _LAYER),
            *(entry for head in heads for entry in _HEADS[head]),
        ]
    )


def normalise(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give tensors of old, headless or redundant files their names of today.

    Raises: InputError when the output table is not the input table (untied).
    """
    # Old files hold the causal mask of each layer, and the numbers of the positions.
    headless, redundant = r"(tokens_embed|positions_embed|h)\.", r"\.attn\.bias$|position_ids$"
    return renamed(
        tensors, source, TOKEN_TABLE, headless, redundant, "GPT-1's output table of its own is not supported"
    )


def heads_in(names: frozenset[str]) -> tuple[str, ...]:
    """Return the heads whose tensors are all there; the tied head over the vocabulary has none of its own."""
    return ("classification",) if "score.weight" in names else ("clm",)


def backbone_names(name: str) -> bool:
    """Tell whether a tensor of this name belongs to the backbone, where nothing may be left out."""
    return name.startswith("transformer.")


def read_backbone(config: Config, names: frozenset[str]) -> Transformer:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    base = recipes.get("gpt1-base").backbone
    width = config.count("n_embd", also="hidden_size")
    dropout = config.number("resid_pdrop", 0.1)
    if config.number("embd_pdrop", 0.1) != dropout:
        config.note(f"embd_pdrop differs from resid_pdrop: further training will use {dropout} for both")
    return dataclasses.replace(
        base,
        num_layers=config.count("n_layer", also="num_hidden_layers"),
        hidden_size=width,
        num_heads=config.count("n_head", also="num_attention_heads"),
        feedforward_size=4 * width,
        activation=config.choice("afn", ACTIVATIONS, "gelu"),
        positions=LearnedPositions(config.count("n_positions", also="max_position_embeddings")),
        norm_eps=config.number("layer_norm_epsilon", 1e-5),
        dropout=dropout,
        attention_dropout=config.number("attn_pdrop", 0.1),
        init=dataclasses.replace(base.init, std=config.number("initializer_range", 0.02)),
    )


def read_recipe(name: str, backbone: Transformer, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model: GPT-1's."""
    base = recipes.get("gpt1-base")
    segmenter = dataclasses.replace(base.segmenter, max_length=min(base.segmenter.max_length, backbone.max_length))
    return dataclasses.replace(base, name=name, segmenter=segmenter, backbone=backbone)


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: causal, with norms after each sublayer and nowhere else."""
    backbone = recipe.backbone
    return is_decoder(backbone, "post", LearnedPositions) and not backbone.final_norm


def check(backbone: Transformer) -> None:
    """Raise InputError naming the first setting that Hugging Face's OpenAIGPT has no counterpart for."""
    wanted = {"biases": "all", "scale_attention": True, "scale_embeddings": False}
    check_settings(backbone, "OpenAIGPT", wanted | {"feedforward_size": 4 * backbone.hidden_size})
    check_windows(backbone, "OpenAIGPT")
    if backbone.activation not in ACTIVATIONS.values():
        raise InputError(
            "backbone.activation is 'gelu': Hugging Face's OpenAIGPT only knows its approximation with tanh. Train with "
            "'gelu_tanh', or use the model through elision.load"
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
        "n_positions": backbone.max_length,
        "afn": {"gelu_tanh": "gelu", "relu": "relu", "silu": "silu"}[backbone.activation],
        "embd_pdrop": backbone.dropout,
        "resid_pdrop": backbone.dropout,
        "attn_pdrop": backbone.attention_dropout,
        "layer_norm_epsilon": backbone.norm_eps,
        "initializer_range": getattr(backbone.init, "std", 0.02),
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
        "tie_word_embeddings": True,
    }


def complete(tensors: dict[str, Tensor], backbone: Transformer) -> None:
    """Add, in place, the tensors that their module has even where ours has none: nothing here."""
