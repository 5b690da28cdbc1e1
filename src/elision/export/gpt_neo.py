"""GPT-3's alternating layers in Hugging Face's layout, which calls them GPT-Neo: GPTNeoForCausalLM, GPTNeoModel and its
classifier, tagger and answerer.

Layers see everything before a token ("global") or a window of it ("local"). Queries, keys and values lie apart and have no
biases. Scores are not divided by the root of a head's width: where ours are, the queries are divided instead. The head is
the token table.
"""

import dataclasses
import math
from typing import Any

from torch import Tensor

from elision import recipes
from elision.errors import InputError
from elision.export.config import Config
from elision.export.keymap import Entry, KeyMap, each_layer, module, tensor
from elision.export.plain_decoder import check_settings, is_decoder, renamed
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

MODEL_TYPE = "gpt_neo"

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
    ("clm",): "GPTNeoForCausalLM",
    ("classification",): "GPTNeoForSequenceClassification",
    ("tagging",): "GPTNeoForTokenClassification",
    ("answering",): "GPTNeoForQuestionAnswering",
}

_ATTENTION = "transformer.h.{n}.attn.attention"
_LAYER = [
    *module("backbone.blocks.{n}.norm_before_attention", "transformer.h.{n}.ln_1"),
    *tensor(
        "backbone.blocks.{n}.attention.query_key_value.weight",
        *(f"{_ATTENTION}.{name}_proj.weight" for name in ("q", "k", "v")),
    ),
    *module("backbone.blocks.{n}.attention.output", f"{_ATTENTION}.out_proj"),
    *module("backbone.blocks.{n}.norm_before_feedforward", "transformer.h.{n}.ln_2"),
    *module("backbone.blocks.{n}.feedforward.inner", "transformer.h.{n}.mlp.c_fc"),
    *module("backbone.blocks.{n}.feedforward.output", "transformer.h.{n}.mlp.c_proj"),
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
    # Old files hold the mask of each layer.
    headless, redundant = r"(wte|wpe|h|ln_f)\.", r"\.attention\.(masked_)?bias$"
    return renamed(
        tensors, source, TOKEN_TABLE, headless, redundant, "GPT-Neo's output table of its own is not supported"
    )


def heads_in(names: frozenset[str]) -> tuple[str, ...]:
    """Return the heads whose tensors are all there; the tied head over the vocabulary has none of its own."""
    theirs = {head: {name for entry in entries for name in entry.theirs} for head, entries in _HEADS.items()}
    return tuple(head for head, wanted in theirs.items() if wanted and wanted <= names) or ("clm",)


def backbone_names(name: str) -> bool:
    """Tell whether a tensor of this name belongs to the backbone, where nothing may be left out."""
    return name.startswith("transformer.")


def read_backbone(config: Config, names: frozenset[str]) -> Transformer:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    base = recipes.get("gpt3-125m").backbone
    width, num_layers = config.count("hidden_size"), config.count("num_layers", also="num_hidden_layers")
    dropout = config.number("resid_dropout", 0.0)
    if config.number("embed_dropout", 0.0) != dropout:
        config.note(f"embed_dropout differs from resid_dropout: further training will use {dropout} for both")
    return dataclasses.replace(
        base,
        num_layers=num_layers,
        hidden_size=width,
        num_heads=config.count("num_heads", also="num_attention_heads"),
        feedforward_size=config.count("intermediate_size", 4 * width),
        activation=config.choice("activation_function", ACTIVATIONS, "gelu_new"),
        scale_attention=False,
        windows=_windows(config, num_layers),
        positions=LearnedPositions(config.count("max_position_embeddings", 2048)),
        norm_eps=config.number("layer_norm_epsilon", 1e-5),
        dropout=dropout,
        attention_dropout=config.number("attention_dropout", 0.0),
        init=dataclasses.replace(base.init, std=config.number("initializer_range", 0.02)),
    )


def _windows(config: Config, num_layers: int) -> tuple[int | None, ...]:
    """Return how much each layer sees, as short as the pattern is that repeats; () = everything."""
    given = config.values.get("attention_types") or [[["global", "local"], num_layers // 2]]
    window = config.count("window_size", 256)
    try:
        kinds = [kind for types, times in given for _ in range(times) for kind in types]
    except (TypeError, ValueError):
        kinds = []
    if len(kinds) != num_layers or not set(kinds) <= {"global", "local"}:
        raise InputError(
            f"{config.path}: attention_types is {given!r}; expected groups of 'global' and 'local' with how often each comes, "
            f"{num_layers} in all"
        )
    layers = [window if kind == "local" else None for kind in kinds]
    if layers == [None] * num_layers:
        return ()
    size = next(n for n in range(1, num_layers + 1) if all(layers[i] == layers[i % n] for i in range(num_layers)))
    return tuple(layers[:size])


def read_recipe(name: str, backbone: Transformer, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model: GPT-3's smallest."""
    base = recipes.get("gpt3-125m")
    segmenter = dataclasses.replace(base.segmenter, max_length=min(base.segmenter.max_length, backbone.max_length))
    return dataclasses.replace(base, name=name, segmenter=segmenter, backbone=backbone)


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: one like GPT-2, but for what GPT-2 has no counterpart for."""
    backbone = recipe.backbone
    if not is_decoder(backbone, "pre", LearnedPositions):
        return False
    return any(backbone.windows) or backbone.biases == "output" or not backbone.scale_attention


def check(backbone: Transformer) -> None:
    """Raise InputError naming the first setting that Hugging Face's GPT-Neo has no counterpart for."""
    check_settings(backbone, "GPT-Neo", {"biases": "output", "final_norm": True, "scale_embeddings": False})
    windows = {window for window in _each_window(backbone) if window is not None}
    if len(windows) > 1:
        raise InputError(
            f"backbone.windows is {backbone.windows}: in Hugging Face's GPT-Neo, which this model is exported as, all windows "
            f"are of one size. Train with one, or use the model through elision.load"
        )


def _each_window(backbone: Transformer) -> list[int | None]:
    return [backbone.window_of(layer) for layer in range(backbone.num_layers)]


def write_config(
    backbone: Transformer, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json."""
    windows = _each_window(backbone)
    return {
        "architectures": [ARCHITECTURES[heads]],
        "model_type": MODEL_TYPE,
        "vocab_size": vocab_size,
        "hidden_size": backbone.hidden_size,
        "num_layers": backbone.num_layers,
        "num_heads": backbone.num_heads,
        "intermediate_size": backbone.feedforward_size,
        "max_position_embeddings": backbone.max_length,
        "attention_types": [[["global" if window is None else "local" for window in windows], 1]],
        "window_size": next((window for window in windows if window is not None), 256),
        "activation_function": {"gelu_tanh": "gelu_new"}.get(backbone.activation, backbone.activation),
        "embed_dropout": backbone.dropout,
        "resid_dropout": backbone.dropout,
        "attention_dropout": backbone.attention_dropout,
        "layer_norm_epsilon": backbone.norm_eps,
        "initializer_range": getattr(backbone.init, "std", 0.02),
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
        "tie_word_embeddings": True,
        "use_cache": True,
    }


def complete(tensors: dict[str, Tensor], backbone: Transformer) -> None:
    """Have the queries of a model that divides its scores do so themselves, in place of `tensors`, not of the weights."""
    if not backbone.scale_attention:
        return
    for layer in range(backbone.num_layers):
        name = f"{_ATTENTION.format(n=layer)}.q_proj.weight"
        tensors[name] = tensors[name] / math.sqrt(backbone.head_width)
