"""GPT-NeoX in Hugging Face's layout (Pythia, Polyglot-Ko): GPTNeoXForCausalLM, its classifier, tagger and answerer.

Queries, keys and values are fused there, too, but head by head. The output table is one of its own.
"""

import dataclasses
import re
from typing import Any

from torch import Tensor

from elision import recipes
from elision.errors import InputError
from elision.export.config import Config
from elision.export.keymap import Entry, KeyMap, each_layer, module, tensor
from elision.export.llama import check_untied
from elision.export.rotary import check_rotary, read_rotary, write_rotary
from elision.model.init import NormalInit
from elision.model.transformer import Transformer
from elision.objectives import CausalLM
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

MODEL_TYPE = "gpt_neox"

TOKEN_TABLE = "gpt_neox.embed_in.weight"

# "gelu" is the exact one. The training code of Pythia and Polyglot-Ko fuses the bias with the tanh form, but the files say
# "gelu", and transformers reads them so.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
_THEIR_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu"}

ARCHITECTURES = {
    ("clm",): "GPTNeoXForCausalLM",
    ("classification",): "GPTNeoXForSequenceClassification",
    ("tagging",): "GPTNeoXForTokenClassification",
    ("answering",): "GPTNeoXForQuestionAnswering",
}

_HEADS: dict[str, list[Entry]] = {
    "clm": tensor("heads.clm.table.weight", "embed_out.weight"),
    "classification": tensor("heads.classification.output.weight", "score.weight"),
    "tagging": module("heads.tagging.output", "classifier"),
    "answering": module("heads.answering.output", "qa_outputs"),
}

_OURS, _THEIRS = "backbone.blocks.{n}", "gpt_neox.layers.{n}"


def key_map(backbone: Transformer, heads: tuple[str, ...]) -> KeyMap:
    """Return the table for these settings and these heads."""
    fused = [
        dataclasses.replace(entry, num_heads=backbone.num_heads)
        for entry in module(f"{_OURS}.attention.query_key_value", f"{_THEIRS}.attention.query_key_value")
    ]
    layer = [
        *module(f"{_OURS}.norm_before_attention", f"{_THEIRS}.input_layernorm"),
        *fused,
        *module(f"{_OURS}.attention.output", f"{_THEIRS}.attention.dense"),
        *module(f"{_OURS}.norm_before_feedforward", f"{_THEIRS}.post_attention_layernorm"),
        *module(f"{_OURS}.feedforward.inner", f"{_THEIRS}.mlp.dense_h_to_4h"),
        *module(f"{_OURS}.feedforward.output", f"{_THEIRS}.mlp.dense_4h_to_h"),
    ]
    return KeyMap(
        [
            *tensor("backbone.embeddings.tokens.weight", TOKEN_TABLE),
            *each_layer(backbone.num_layers, layer),
            *module("backbone.final_norm", "gpt_neox.final_layer_norm"),
            *(entry for head in heads for entry in _HEADS[head]),
        ]
    )


def normalise(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give tensors of old, headless or tied files their names of today."""
    whole = any(name.startswith("gpt_neox.") for name in tensors)
    named: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if re.match(r"(embed_in|layers|final_layer_norm)\.", name):
            name = f"gpt_neox.{name}"
        if name == "lm_head.weight":
            # What transformers 5 calls it in memory, though not in its files.
            name = "embed_out.weight"
        # Old files hold the causal mask and the wave lengths of each layer.
        if not re.search(r"\.attention\.(masked_bias|bias|rotary_emb\.inv_freq)$", name):
            named[name] = value
    if whole and not any(name.startswith(("embed_out.", "score.", "classifier.", "qa_outputs.")) for name in named):
        named["embed_out.weight"] = named[TOKEN_TABLE].clone()
    return named


def heads_in(names: frozenset[str]) -> tuple[str, ...]:
    """Return the heads whose tensors are all there; a bare backbone has none."""
    theirs = {head: {name for entry in entries for name in entry.theirs} for head, entries in _HEADS.items()}
    return tuple(head for head, wanted in theirs.items() if wanted <= names)


def backbone_names(name: str) -> bool:
    """Tell whether a tensor of this name belongs to the backbone, where nothing may be left out."""
    return name.startswith("gpt_neox.")


def read_backbone(config: Config, names: frozenset[str]) -> Transformer:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    config.require("attention_bias", True)
    if config.values.get("tie_word_embeddings"):
        config.note("its output table is its token table; here the two begin equal and are trained apart")
    parallel = config.values.get("use_parallel_residual", True)
    return dataclasses.replace(
        recipes.get("pythia-160m").backbone,
        num_layers=config.count("num_hidden_layers", 44),
        hidden_size=config.count("hidden_size", 6144),
        num_heads=config.count("num_attention_heads", 64),
        feedforward_size=config.count("intermediate_size", 24576),
        parallel=bool(parallel),
        activation=config.choice("hidden_act", ACTIVATIONS, "gelu"),
        positions=read_rotary(
            config, config.count("max_position_embeddings", 2048), "rotary_emb_base", "rotary_pct", 0.25
        ),
        norm_eps=config.number("layer_norm_eps", 1e-5),
        dropout=config.number("hidden_dropout", 0.0),
        attention_dropout=config.number("attention_dropout", 0.0),
        init=NormalInit(std=config.number("initializer_range", 0.02), scale_residual=True),
    )


def read_recipe(name: str, backbone: Transformer, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model: Pythia's."""
    base = recipes.get("pythia-160m")
    segmenter = dataclasses.replace(base.segmenter, max_length=min(base.segmenter.max_length, backbone.max_length))
    return dataclasses.replace(
        base, name=name, segmenter=segmenter, backbone=backbone, objectives=(CausalLM(tied=False),)
    )


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: causal, with layer norms and rotary positions.

    Raises: InputError when it is, but its token table also scores the outputs.
    """
    backbone = recipe.backbone
    if not isinstance(backbone, Transformer) or backbone.visibility != "causal":
        return False
    if backbone.gated or backbone.norm_kind != "layer" or backbone.positions.hook != "rotate":
        return False
    check_untied(recipe, "GPTNeoX")
    return True


def check(backbone: Transformer) -> None:
    """Raise InputError naming the first setting that Hugging Face's GPTNeoX has no counterpart for."""
    check_rotary(backbone, "GPTNeoX")
    wanted = {
        "norm": "pre",
        "norm_kind": "layer",
        "gated": False,
        "final_norm": True,
        "biases": "all",
        "num_key_value_heads": None,
        "head_size": None,
        "windows": (),
        "embedding_norm": False,
        "embedding_size": None,
        "scale_attention": True,
        "scale_embeddings": False,
        "sharing": "none",
        "num_types": 0,
        "num_languages": 0,
        "pooler": False,
    }
    for field, value in wanted.items():
        if getattr(backbone, field) != value:
            raise InputError(
                f"backbone.{field} is {getattr(backbone, field)!r}: Hugging Face's GPTNeoX only knows {value!r}. Train with "
                f"that setting, or use the model through elision.load"
            )
    if backbone.activation not in _THEIR_ACTIVATIONS:
        raise InputError(
            f"backbone.activation is {backbone.activation!r}: models are exported as Hugging Face's GPTNeoX with one of "
            f"{', '.join(_THEIR_ACTIVATIONS)}"
        )


def write_config(
    backbone: Transformer, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json."""
    positions = backbone.positions
    rotary = write_rotary(positions)
    # Its class takes a quarter for granted.
    rotary["rope_parameters"]["partial_rotary_factor"] = positions.share
    return {
        "architectures": [ARCHITECTURES[heads]],
        "model_type": MODEL_TYPE,
        "vocab_size": vocab_size,
        "hidden_size": backbone.hidden_size,
        "num_hidden_layers": backbone.num_layers,
        "num_attention_heads": backbone.num_heads,
        "intermediate_size": backbone.feedforward_size,
        "hidden_act": _THEIR_ACTIVATIONS[backbone.activation],
        "max_position_embeddings": backbone.max_length,
        "rope_parameters": rotary["rope_parameters"],
        "rotary_pct": positions.share,
        "rotary_emb_base": positions.theta,
        "use_parallel_residual": backbone.parallel,
        "attention_bias": True,
        "attention_dropout": backbone.attention_dropout,
        "hidden_dropout": backbone.dropout,
        "layer_norm_eps": backbone.norm_eps,
        "initializer_range": getattr(backbone.init, "std", 0.02),
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
        "tie_word_embeddings": False,
        "use_cache": True,
    }


def complete(tensors: dict[str, Tensor], backbone: Transformer) -> None:
    """Add, in place, the tensors that their module has even where ours has none: nothing here."""
