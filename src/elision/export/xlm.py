"""XLM in Hugging Face's layout: XLMWithLMHeadModel, XLMModel and their relatives.

The output layer is the token table (tied) with a bias of its own. Their module adds a language only to tokens that it is
told one for (`langs`), ours takes the first language then: pass both the same. Positions of translations are passed as
`position_ids`.
"""

import re
from typing import Any

import torch
from torch import Tensor

from elision import recipes
from elision.data.mixing import LanguageMix
from elision.data.noise import NextToken
from elision.data.segment import Chunks
from elision.errors import InputError
from elision.export.config import Config
from elision.export.keymap import Entry, KeyMap, each_layer, module, tensor
from elision.model.init import WidthInit
from elision.model.position import LearnedPositions, SinusoidalPositions
from elision.model.transformer import Transformer
from elision.objectives import CausalLM, MaskedLM, TiedLM
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

MODEL_TYPE = "xlm"

TOKEN_TABLE = "transformer.embeddings.weight"

ARCHITECTURES = {
    ("mlm",): "XLMWithLMHeadModel",
    ("clm",): "XLMWithLMHeadModel",
    ("classification",): "XLMForSequenceClassification",
    ("tagging",): "XLMForTokenClassification",
    ("answering",): "XLMForQuestionAnsweringSimple",
}

_LAYER = [
    *module(
        "backbone.blocks.{n}.attention.query_key_value",
        "transformer.attentions.{n}.q_lin",
        "transformer.attentions.{n}.k_lin",
        "transformer.attentions.{n}.v_lin",
    ),
    *module("backbone.blocks.{n}.attention.output", "transformer.attentions.{n}.out_lin"),
    *module("backbone.blocks.{n}.norm_after_attention", "transformer.layer_norm1.{n}"),
    *module("backbone.blocks.{n}.feedforward.inner", "transformer.ffns.{n}.lin1"),
    *module("backbone.blocks.{n}.feedforward.output", "transformer.ffns.{n}.lin2"),
    *module("backbone.blocks.{n}.norm_after_feedforward", "transformer.layer_norm2.{n}"),
]

_HEADS: dict[str, list[Entry]] = {
    "mlm": tensor("heads.mlm.bias", "pred_layer.proj.bias"),
    "clm": tensor("heads.clm.bias", "pred_layer.proj.bias"),
    "classification": module("heads.classification.output", "sequence_summary.summary"),
    "tagging": module("heads.tagging.output", "classifier"),
    "answering": module("heads.answering.output", "qa_outputs"),
}


def key_map(backbone: Transformer, heads: tuple[str, ...]) -> KeyMap:
    """Return the table for these settings and these heads."""
    learned = isinstance(backbone.positions, LearnedPositions)
    table = "backbone.embeddings.positions.table" + (".weight" if learned else "")
    return KeyMap(
        [
            *tensor("backbone.embeddings.tokens.weight", TOKEN_TABLE),
            *tensor(table, "transformer.position_embeddings.weight"),
            *(
                tensor("backbone.embeddings.languages.weight", "transformer.lang_embeddings.weight")
                if backbone.num_languages > 1
                else []
            ),
            *module("backbone.embeddings.norm", "transformer.layer_norm_emb"),
            *each_layer(backbone.num_layers, _LAYER),
            *(entry for head in heads for entry in _HEADS[head]),
        ]
    )


def normalise(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give tensors of old, headless or redundant files their names of today.

    Raises: InputError when the output table is not the input table (untied).
    """
    named: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if re.match(
            r"(embeddings|position_embeddings|lang_embeddings|layer_norm\w*|attentions|ffns|position_ids)\b", name
        ):
            name = f"transformer.{name}"
        if name != "transformer.position_ids":
            named[name] = value
    output = named.pop("pred_layer.proj.weight", None)
    if output is not None and (TOKEN_TABLE not in named or not torch.equal(output, named[TOKEN_TABLE])):
        raise InputError(
            f"pred_layer.proj.weight in {source} is not the token table ({TOKEN_TABLE}): output tables of their own are not "
            f"supported"
        )
    return named


def heads_in(names: frozenset[str]) -> tuple[str, ...]:
    """Return the heads whose tensors are all there."""
    return tuple(head for head, entries in _HEADS.items() if {name for e in entries for name in e.theirs} <= names)


def backbone_names(name: str) -> bool:
    """Tell whether a tensor of this name belongs to the backbone, where nothing may be left out."""
    return name.startswith("transformer.")


def read_backbone(config: Config, names: frozenset[str]) -> Transformer:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    config.require("asm", False)
    config.require("is_encoder", True)
    config.require("summary_type", "first")
    width = config.count("emb_dim", 2048)
    num_positions = config.count("max_position_embeddings", 512)
    sinusoidal = bool(config.values.get("sinusoidal_embeddings", False))
    tells_languages = "transformer.lang_embeddings.weight" in names
    return Transformer(
        num_layers=config.count("n_layers", 12),
        hidden_size=width,
        num_heads=config.count("n_heads", 16),
        feedforward_size=4 * width,
        visibility="causal" if config.values.get("causal", False) else "bidirectional",
        norm="post",
        activation="gelu" if config.values.get("gelu_activation", True) else "relu",
        positions=SinusoidalPositions(num_positions) if sinusoidal else LearnedPositions(num_positions),
        num_languages=config.count("n_langs", 1) if tells_languages else 0,
        embedding_norm=True,
        frame="bert",
        classifier="none",
        norm_eps=config.number("layer_norm_eps", 1e-12),
        dropout=config.number("dropout", 0.1),
        attention_dropout=config.number("attention_dropout", 0.1),
        init=WidthInit(),
    )


def read_recipe(name: str, backbone: Transformer, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model, on monolingual text."""
    base = recipes.get("xlm-mlm-en")
    recipe = {
        "name": name,
        "segmenter": Chunks(max_length=min(base.segmenter.max_length, backbone.max_length)),
        "backbone": backbone,
        "mixing": LanguageMix(alpha=0.7) if backbone.num_languages > 1 else None,
        "turns": (),
    }
    if backbone.visibility == "causal":
        recipe |= {"noise": NextToken(), "objectives": (CausalLM(bias=True),)}
    return Recipe(**{**vars(base), **recipe})


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: language embeddings, or an output layer of table and bias over norms
    after each sublayer."""
    if not isinstance(recipe.backbone, Transformer) or any(isinstance(each, MaskedLM) for each in recipe.objectives):
        return False
    if recipe.backbone.visibility == "causal" and heads == ("classification",):
        # Their classifier reads the first token, which has seen nothing in a causal model; ours reads the last.
        return False
    biased = any(isinstance(each, TiedLM) or (isinstance(each, CausalLM) and each.bias) for each in recipe.objectives)
    return (biased and recipe.backbone.norm == "post") or recipe.backbone.num_languages > 1


def check(backbone: Transformer) -> None:
    """Raise InputError naming the first setting that Hugging Face's XLM has no counterpart for."""
    wanted = {
        "norm": "post",
        "embedding_norm": True,
        "final_norm": False,
        "sharing": "none",
        "embedding_size": None,
        "num_types": 0,
        "pooler": False,
        "feedforward_size": 4 * backbone.hidden_size,
    }
    for field, only in wanted.items():
        value = getattr(backbone, field)
        if value != only:
            raise InputError(
                f"backbone.{field} is {value!r}: Hugging Face's XLM, which this model is exported as, only knows {only!r}. "
                f"Train with that setting, or use the model through elision.load"
            )
    if backbone.activation == "gelu_tanh":
        raise InputError("backbone.activation is 'gelu_tanh': Hugging Face's XLM only knows 'gelu' and 'relu'")
    if getattr(backbone.positions, "offset", 0):
        raise InputError(
            f"backbone.positions.offset is {backbone.positions.offset}: the positions of Hugging Face's XLM start at row 0"
        )


def write_config(
    backbone: Transformer, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json."""
    return {
        "architectures": [ARCHITECTURES[heads]],
        "model_type": MODEL_TYPE,
        "vocab_size": vocab_size,
        "emb_dim": backbone.hidden_size,
        "n_layers": backbone.num_layers,
        "n_heads": backbone.num_heads,
        "dropout": backbone.dropout,
        "attention_dropout": backbone.attention_dropout,
        "gelu_activation": backbone.activation == "gelu",
        "sinusoidal_embeddings": isinstance(backbone.positions, SinusoidalPositions),
        "causal": backbone.visibility == "causal",
        "asm": False,
        "n_langs": max(1, backbone.num_languages),
        "use_lang_emb": backbone.num_languages > 1,
        "max_position_embeddings": backbone.max_length,
        "embed_init_std": backbone.hidden_size**-0.5,
        "layer_norm_eps": backbone.norm_eps,
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
        "unk_index": vocabulary.unk,
        "mask_index": vocabulary.mask,
        "is_encoder": True,
        "summary_type": "first",
        "summary_use_proj": True,
        "summary_activation": None,
        "summary_proj_to_labels": True,
        "summary_first_dropout": 0.1,
        "tie_word_embeddings": True,
    }


def complete(tensors: dict[str, Tensor], backbone: Transformer) -> None:
    """Add nothing: their module has no tensor that ours lacks."""
