"""LLaMA in Hugging Face's layout: LlamaForCausalLM, LlamaModel and its classifier, tagger and answerer.

Queries, keys and values lie apart there. The output table is one of its own; a file without one scores by the token table.
"""

import dataclasses
import re
from typing import Any

from torch import Tensor

from elision import recipes
from elision.errors import InputError
from elision.export.config import Config
from elision.export.keymap import Entry, KeyMap, each_layer, module, tensor
from elision.export.rotary import check_rotary, read_rotary, write_rotary
from elision.model.init import NormalInit
from elision.model.transformer import Transformer
from elision.objectives import CausalLM
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

MODEL_TYPE = "llama"

TOKEN_TABLE = "model.embed_tokens.weight"

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
THEIR_ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu"}

ARCHITECTURES = {
    ("clm",): "LlamaForCausalLM",
    ("classification",): "LlamaForSequenceClassification",
    ("tagging",): "LlamaForTokenClassification",
    ("answering",): "LlamaForQuestionAnswering",
}

_HEADS: dict[str, list[Entry]] = {
    "clm": tensor("heads.clm.table.weight", "lm_head.weight"),
    "classification": tensor("heads.classification.output.weight", "score.weight"),
    "tagging": module("heads.tagging.output", "score"),
    "answering": module("heads.answering.output", "qa_outputs"),
}


def token_table(heads: tuple[str, ...]) -> str:
    """Return the name of the token table: the answerer's backbone has another name."""
    return TOKEN_TABLE.replace("model.", "transformer.") if heads == ("answering",) else TOKEN_TABLE


def key_map(backbone: Transformer, heads: tuple[str, ...]) -> KeyMap:
    """Return the table for these settings and these heads."""
    return table_of(backbone, heads, "transformer" if heads == ("answering",) else "model")


def table_of(backbone: Transformer, heads: tuple[str, ...], prefix: str) -> KeyMap:
    """Return the table where the backbone's names begin with `prefix`."""
    size = backbone.head_width
    sizes = (backbone.num_heads * size, backbone.kv_heads * size, backbone.kv_heads * size)
    names = tuple(f"{prefix}.layers.{{n}}.self_attn.{name}_proj" for name in "qkv")
    ours, theirs = "backbone.blocks.{n}", f"{prefix}.layers.{{n}}"

    def linear(one: str, *other: str, sizes: tuple[int, ...] = ()) -> list[Entry]:
        parts = ("weight", "bias") if backbone.biases == "all" else ("weight",)
        return [Entry(f"{one}.{part}", tuple(f"{name}.{part}" for name in other), sizes=sizes) for part in parts]

    layer = [
        *tensor(f"{ours}.norm_before_attention.weight", f"{theirs}.input_layernorm.weight"),
        *linear(f"{ours}.attention.query_key_value", *names, sizes=sizes),
        *linear(f"{ours}.attention.output", f"{theirs}.self_attn.o_proj"),
        *tensor(f"{ours}.norm_before_feedforward.weight", f"{theirs}.post_attention_layernorm.weight"),
        *linear(f"{ours}.feedforward.gate", f"{theirs}.mlp.gate_proj"),
        *linear(f"{ours}.feedforward.inner", f"{theirs}.mlp.up_proj"),
        *linear(f"{ours}.feedforward.output", f"{theirs}.mlp.down_proj"),
    ]
    return KeyMap(
        [
            *tensor("backbone.embeddings.tokens.weight", f"{prefix}.embed_tokens.weight"),
            *each_layer(backbone.num_layers, layer),
            *tensor("backbone.final_norm.weight", f"{prefix}.norm.weight"),
            *(entry for head in heads for entry in _HEADS[head]),
        ]
    )


def normalise(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give tensors of old, headless or tied files their names of today."""
    whole = any(name.startswith("model.") for name in tensors)
    named: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if re.match(r"(embed_tokens|layers|norm)\.", name):
            name = f"model.{name}"
        # Old files hold the wave lengths of each layer.
        if not name.endswith(".rotary_emb.inv_freq"):
            named[name] = value
    if whole and not any(name.startswith(("lm_head.", "score.", "qa_outputs.")) for name in named):
        named["lm_head.weight"] = named[TOKEN_TABLE].clone()
    return named


def heads_in(names: frozenset[str]) -> tuple[str, ...]:
    """Return the heads whose tensors are all there; a bare backbone has none."""
    if "score.bias" in names:
        return ("tagging",)
    theirs = {head: {name for entry in entries for name in entry.theirs} for head, entries in _HEADS.items()}
    return tuple(head for head, wanted in theirs.items() if wanted <= names)


def backbone_names(name: str) -> bool:
    """Tell whether a tensor of this name belongs to the backbone, where nothing may be left out."""
    return name.startswith(("model.", "transformer."))


def read_backbone(config: Config, names: frozenset[str]) -> Transformer:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    config.require("pretraining_tp", 1)
    biased = bool(config.values.get("attention_bias")), bool(config.values.get("mlp_bias"))
    if biased[0] != biased[1]:
        raise InputError(
            f"{config.path}: attention_bias is {biased[0]}, but mlp_bias is {biased[1]}; only models with all biases or "
            f"none are supported"
        )
    return read_gated(config, 2048, 1e-6, biases="all" if biased[0] else "none")


def read_gated(config: Config, num_positions: int, norm_eps: float, biases: str = "none") -> Transformer:
    """Return the settings that LLaMA and Mistral have in common; the numbers are what an absent field means."""
    if config.values.get("tie_word_embeddings"):
        config.note("its output table is its token table; here the two begin equal and are trained apart")
    base = recipes.get("llama-7b").backbone
    width = config.count("hidden_size")
    num_heads = config.count("num_attention_heads")
    head_size = config.count("head_dim", width // num_heads)
    return dataclasses.replace(
        base,
        num_layers=config.count("num_hidden_layers"),
        hidden_size=width,
        num_heads=num_heads,
        num_key_value_heads=_fewer(config.count("num_key_value_heads", num_heads), num_heads),
        head_size=None if head_size * num_heads == width else head_size,
        feedforward_size=config.count("intermediate_size"),
        activation=config.choice("hidden_act", ACTIVATIONS, "silu"),
        biases=biases,
        positions=read_rotary(config, config.count("max_position_embeddings", num_positions)),
        norm_eps=config.number("rms_norm_eps", norm_eps),
        attention_dropout=config.number("attention_dropout", 0.0),
        init=NormalInit(std=config.number("initializer_range", 0.02)),
    )


def _fewer(num_key_value_heads: int, num_heads: int) -> int | None:
    return None if num_key_value_heads == num_heads else num_key_value_heads


def read_recipe(name: str, backbone: Transformer, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model: LLaMA's."""
    return going_on(recipes.get("llama-7b"), name, backbone)


def going_on(base: Recipe, name: str, backbone: Transformer) -> Recipe:
    """Return `base` for a model with these settings, whose output table is its own."""
    segmenter = dataclasses.replace(base.segmenter, max_length=min(base.segmenter.max_length, backbone.max_length))
    return dataclasses.replace(
        base, name=name, segmenter=segmenter, backbone=backbone, objectives=(CausalLM(tied=False),)
    )


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: causal, gated, root-mean-square norms, rotary positions."""
    return is_gated(recipe) and not any(recipe.backbone.windows)


def is_gated(recipe: Recipe) -> bool:
    """Tell whether a model is of LLaMA's kind, with or without windows. Raises: InputError when it is, but is tied."""
    backbone = recipe.backbone
    if not isinstance(backbone, Transformer) or backbone.visibility != "causal":
        return False
    if not backbone.gated or backbone.norm_kind != "rms" or backbone.positions.hook != "rotate":
        return False
    check_untied(recipe, "Llama")
    return True


def check_untied(recipe: Recipe, family: str) -> None:
    """Raise InputError when the token table also scores the outputs."""
    if any(isinstance(each, CausalLM) and each.tied for each in recipe.objectives):
        raise InputError(
            f"CausalLM.tied is True: models are exported as Hugging Face's {family} with an output table of their own. "
            f"Train with tied False, or use the model through elision.load"
        )


def check(backbone: Transformer) -> None:
    """Raise InputError naming the first setting that Hugging Face's Llama has no counterpart for."""
    check_gated(backbone, "Llama")


def check_gated(backbone: Transformer, family: str) -> None:
    """Raise InputError naming the first setting that Hugging Face's class of this name has no counterpart for."""
    check_rotary(backbone, family)
    wanted = {
        "norm": "pre",
        "norm_kind": "rms",
        "gated": True,
        "final_norm": True,
        "parallel": False,
        "embedding_norm": False,
        "embedding_size": None,
        "scale_attention": True,
        "scale_embeddings": False,
        "sharing": "none",
        "num_types": 0,
        "num_languages": 0,
        "pooler": False,
    }
    if family != "Llama":
        wanted["biases"] = "none"
    for field, value in wanted.items():
        if getattr(backbone, field) != value:
            raise InputError(
                f"backbone.{field} is {getattr(backbone, field)!r}: Hugging Face's {family} only knows {value!r}. Train with "
                f"that setting, or use the model through elision.load"
            )
    if backbone.biases == "output":
        raise InputError("backbone.biases is 'output': Hugging Face's Llama has biases in all layers or in none")
    if backbone.positions.share != 1.0:
        raise InputError(
            f"backbone.positions.share is {backbone.positions.share}: Hugging Face's {family} turns heads as a whole (1.0)"
        )


def write_config(
    backbone: Transformer, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json."""
    biased = backbone.biases == "all"
    return {
        "architectures": [ARCHITECTURES[heads]],
        "model_type": MODEL_TYPE,
        **write_gated(backbone, vocab_size, vocabulary),
        "attention_bias": biased,
        "mlp_bias": biased,
    }


def write_gated(backbone: Transformer, vocab_size: int, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return what the config.json of LLaMA and of Mistral have in common."""
    return {
        "vocab_size": vocab_size,
        "hidden_size": backbone.hidden_size,
        "intermediate_size": backbone.feedforward_size,
        "num_hidden_layers": backbone.num_layers,
        "num_attention_heads": backbone.num_heads,
        "num_key_value_heads": backbone.kv_heads,
        "head_dim": backbone.head_width,
        "hidden_act": THEIR_ACTIVATIONS[backbone.activation],
        "max_position_embeddings": backbone.max_length,
        **write_rotary(backbone.positions),
        "rms_norm_eps": backbone.norm_eps,
        "initializer_range": getattr(backbone.init, "std", 0.02),
        "attention_dropout": backbone.attention_dropout,
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
        "tie_word_embeddings": False,
        "use_cache": True,
    }


def complete(tensors: dict[str, Tensor], backbone: Transformer) -> None:
    """Add, in place, the tensors that their module has even where ours has none: nothing here."""
