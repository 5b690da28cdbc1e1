"""RoBERTa in Hugging Face's layout: RobertaForMaskedLM, RobertaModel and their relatives.

Their position table has the offset rows of fairseq's models, and they count positions from the id of padding.
"""

import dataclasses
from typing import Any

from torch import Tensor

from elision import recipes
from elision.errors import InputError
from elision.export import bert_layers
from elision.export.config import Config
from elision.export.keymap import Entry, KeyMap, module, tensor
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

MODEL_TYPE = "roberta"

TOKEN_TABLE = "roberta.embeddings.word_embeddings.weight"

ARCHITECTURES = {
    ("mlm",): "RobertaForMaskedLM",
    ("classification",): "RobertaForSequenceClassification",
    ("tagging",): "RobertaForTokenClassification",
    ("answering",): "RobertaForQuestionAnswering",
}

_POOLER = module("backbone.pooler", "roberta.pooler.dense")

_HEADS: dict[str, list[Entry]] = {
    "mlm": [
        *module("heads.mlm.dense", "lm_head.dense"),
        *module("heads.mlm.norm", "lm_head.layer_norm"),
        *tensor("heads.mlm.bias", "lm_head.bias"),
    ],
    "classification": module("heads.classification.output", "classifier.out_proj"),
    "tagging": module("heads.tagging.output", "classifier"),
    "answering": module("heads.answering.output", "qa_outputs"),
}


def key_map(backbone: Transformer, heads: tuple[str, ...]) -> KeyMap:
    """Return the table for these settings and these heads."""
    pooler = _POOLER if backbone.pooler else []
    if "classification" in heads:
        # A dense tanh layer on the first token is part of their classifier, whether it was pretrained or not.
        ours = "backbone.pooler" if backbone.pooler else "heads.classification.dense"
        pooler = module(ours, "classifier.dense")
    entries = [*bert_layers.encoder(backbone, "roberta."), *pooler]
    return KeyMap([*entries, *(entry for head in heads for entry in _HEADS[head])])


def normalise(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give tensors of old, headless or redundant files their names of today.

    Raises: InputError when the output table is not the input table (untied).
    """
    named = bert_layers.names_of_today(tensors, "roberta.")
    bert_layers.untie(named, TOKEN_TABLE, "lm_head.decoder", "lm_head.bias", source)
    return named


def heads_in(names: frozenset[str]) -> tuple[str, ...]:
    """Return the heads whose tensors are all there."""
    return tuple(head for head, entries in _HEADS.items() if {name for e in entries for name in e.theirs} <= names)


def backbone_names(name: str) -> bool:
    """Tell whether a tensor of this name belongs to the backbone, where nothing may be left out."""
    return name.startswith("roberta.")


def read_backbone(config: Config, names: frozenset[str]) -> Transformer:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    pad = config.values.get("pad_token_id", 1)
    if not isinstance(pad, int) or isinstance(pad, bool) or pad < 0:
        raise InputError(f"{config.path}: pad_token_id is {pad!r}; positions are counted from it, give a number")
    offset = pad + 1
    num_rows = config.count("max_position_embeddings", 512)
    if num_rows <= offset:
        raise InputError(f"{config.path}: max_position_embeddings is {num_rows}; the first {offset} rows are not used")
    settings = bert_layers.read_settings(config)
    return dataclasses.replace(
        recipes.get("roberta-base").backbone,
        **settings | {"init": NormalInit(std=settings["init"].std)},
        positions=LearnedPositions(num_rows - offset, offset=offset),
        num_types=config.count("type_vocab_size", 2),
        pooler="roberta.pooler.dense.weight" in names,
    )


def read_recipe(name: str, backbone: Transformer, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model: RoBERTa's."""
    base = recipes.get("roberta-base")
    segmenter = dataclasses.replace(base.segmenter, max_length=min(base.segmenter.max_length, backbone.max_length))
    return dataclasses.replace(base, name=name, segmenter=segmenter, backbone=backbone)


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: a bidirectional one whose first position is not row 0."""
    backbone = recipe.backbone
    if not isinstance(backbone, Transformer) or backbone.visibility != "bidirectional":
        return False
    return getattr(backbone.positions, "offset", 0) > 0 and backbone.num_languages < 2


def check(backbone: Transformer) -> None:
    """Raise InputError naming the first setting that Hugging Face's RoBERTa has no counterpart for."""
    bert_layers.check_settings(backbone, "RoBERTa")


def write_config(
    backbone: Transformer, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json. Raises: InputError when their positions would not be ours."""
    offset = backbone.positions.offset
    if vocabulary.pad != offset - 1:
        raise InputError(
            f"the tokenizer's padding has id {vocabulary.pad}, but backbone.positions.offset is {offset}: Hugging Face's "
            f"RoBERTa counts positions from the id of padding + 1. Prepare with a tokenizer that has padding at "
            f"{offset - 1} (--layout roberta or xlm-r), or use the model through elision.load"
        )
    return {
        "architectures": [ARCHITECTURES[heads]],
        "model_type": MODEL_TYPE,
        **bert_layers.write_settings(backbone, vocab_size, vocabulary),
        "bos_token_id": vocabulary.cls,
        "eos_token_id": vocabulary.sep,
        "max_position_embeddings": backbone.max_length + offset,
        # Their module always adds the vector of the first segment: without segments it is zeros.
        "type_vocab_size": backbone.num_types or 1,
    }


def complete(tensors: dict[str, Tensor], backbone: Transformer) -> None:
    """Add, in place, the tensors that their module has even where ours has none."""
    if not backbone.num_types:
        name = "roberta.embeddings.token_type_embeddings.weight"
        tensors[name] = tensors[TOKEN_TABLE].new_zeros(1, backbone.hidden_size)
