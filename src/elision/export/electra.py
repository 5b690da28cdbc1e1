"""ELECTRA in Hugging Face's layout: ElectraForPreTraining, ElectraForMaskedLM, ElectraModel and the classes for fine-tuning.

A pretrained model is two there, the discriminator (ElectraForPreTraining) and its generator (ElectraForMaskedLM), each with
embeddings of its own (see `generators`). The decoder over the vocabulary is the token table (tied); its bias is
`generator_lm_head.bias`.
"""

import dataclasses
from typing import Any

from torch import Tensor

from elision import recipes
from elision.data.segment import FullSentences, TwoSegments
from elision.errors import InputError
from elision.export import bert_layers
from elision.export.config import Config
from elision.export.keymap import Entry, KeyMap, module, tensor
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.objectives import MaskedLM
from elision.objectives.generator import Replacing
from elision.recipe import Recipe
from elision.text.vocabulary import Vocabulary

MODEL_TYPE = "electra"

TOKEN_TABLE = "electra.embeddings.word_embeddings.weight"

ARCHITECTURES = {
    ("rtd",): "ElectraForPreTraining",
    ("mlm",): "ElectraForMaskedLM",
    (): "ElectraModel",
    ("classification",): "ElectraForSequenceClassification",
    ("tagging",): "ElectraForTokenClassification",
    ("answering",): "ElectraForQuestionAnswering",
}

_HEADS: dict[str, list[Entry]] = {
    "rtd": [
        *module("heads.rtd.dense", "discriminator_predictions.dense"),
        *module("heads.rtd.output", "discriminator_predictions.dense_prediction"),
    ],
    "mlm": [
        *module("heads.mlm.dense", "generator_predictions.dense"),
        *module("heads.mlm.norm", "generator_predictions.LayerNorm"),
        *tensor("heads.mlm.bias", "generator_lm_head.bias"),
    ],
    "classification": [
        *module("heads.classification.dense", "classifier.dense"),
        *module("heads.classification.output", "classifier.out_proj"),
    ],
    "tagging": module("heads.tagging.output", "classifier"),
    "answering": module("heads.answering.output", "qa_outputs"),
}


def key_map(backbone: Transformer, heads: tuple[str, ...]) -> KeyMap:
    """Return the table for these settings and these heads."""
    project = module("backbone.project", "electra.embeddings_project") if backbone.embedding_size is not None else []
    entries = [*bert_layers.encoder(backbone, "electra."), *project]
    return KeyMap([*entries, *(entry for head in heads for entry in _HEADS[head])])


def normalise(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Give tensors of old, headless or redundant files their names of today.

    Raises: InputError when the output table is not the input table (untied).
    """
    named = bert_layers.names_of_today(tensors, "electra.")
    output = named.pop("generator_lm_head.weight", None)
    if output is not None:
        named["generator_lm_head.decoder.weight"] = output
    bert_layers.untie(named, TOKEN_TABLE, "generator_lm_head.decoder", "generator_lm_head.bias", source)
    return named


def heads_in(names: frozenset[str]) -> tuple[str, ...]:
    """Return the heads whose tensors are all there."""
    return tuple(head for head, entries in _HEADS.items() if {name for e in entries for name in e.theirs} <= names)


def backbone_names(name: str) -> bool:
    """Tell whether a tensor of this name belongs to the backbone, where nothing may be left out."""
    return name.startswith("electra.")


def read_backbone(config: Config, names: frozenset[str]) -> Transformer:
    """Return the settings of config.json. Raises: InputError for what cannot be expressed here."""
    settings = bert_layers.read_settings(config)
    embedding_size = config.count("embedding_size", 128)
    if settings["activation"] != "gelu":
        # Theirs is GELU in the heads whatever hidden_act says.
        raise InputError(
            f"{config.path}: hidden_act is {config.values['hidden_act']!r}; ELECTRA is read with 'gelu' only"
        )
    return dataclasses.replace(
        recipes.get("electra-base").backbone,
        **settings,
        positions=LearnedPositions(config.count("max_position_embeddings", 512)),
        num_types=config.count("type_vocab_size", 2),
        embedding_size=None if embedding_size == settings["hidden_size"] else embedding_size,
    )


def read_recipe(name: str, backbone: Transformer, heads: tuple[str, ...]) -> Recipe:
    """Return a recipe for going on with the pretraining of such a model: ELECTRA's, or that of a masked language model."""
    base = recipes.get("electra-base")
    length = min(base.segmenter.max_length, backbone.max_length)
    segmenter = FullSentences(max_length=length, cross_documents=False)
    if backbone.num_types >= TwoSegments.num_types:
        segmenter = dataclasses.replace(base.segmenter, max_length=length)
    objectives = (MaskedLM(),) if "mlm" in heads else base.objectives
    return dataclasses.replace(base, name=name, segmenter=segmenter, backbone=backbone, objectives=objectives)


def fits(recipe: Recipe, heads: tuple[str, ...]) -> bool:
    """Tell whether this is the layout for such a model: trained with a generator, or its classifiers have a GELU layer."""
    backbone = recipe.backbone
    if not isinstance(backbone, Transformer) or backbone.visibility != "bidirectional":
        return False
    replacing = any(isinstance(objective, Replacing) for objective in recipe.objectives)
    return replacing or (backbone.classifier == "gelu" and not backbone.pooler and backbone.sharing == "none")


def check(backbone: Transformer) -> None:
    """Raise InputError naming the first setting that Hugging Face's ELECTRA has no counterpart for."""
    bert_layers.check_settings(dataclasses.replace(backbone, embedding_size=None), "ELECTRA")
    wanted = {"activation": "gelu", "pooler": False}
    for field, value in wanted.items():
        if getattr(backbone, field) != value:
            raise InputError(
                f"backbone.{field} is {getattr(backbone, field)!r}: Hugging Face's ELECTRA, which this model is exported "
                f"as, only knows {value!r}. Train with that setting, or use the model through elision.load"
            )
    if getattr(backbone.positions, "offset", 0):
        raise InputError(
            f"backbone.positions.offset is {backbone.positions.offset}: Hugging Face's ELECTRA, which this model is "
            f"exported as, counts positions from 0. Train with that setting, or use the model through elision.load"
        )


def write_config(
    backbone: Transformer, heads: tuple[str, ...], vocab_size: int, vocabulary: Vocabulary
) -> dict[str, Any]:
    """Return the content of config.json. Raises: InputError when their classifier is not ours."""
    if heads == ("classification",) and backbone.classifier != "gelu":
        raise InputError(
            f"backbone.classifier is {backbone.classifier!r}: the classifier of Hugging Face's ELECTRA has a dense GELU layer. "
            f"Fine-tune with backbone.classifier 'gelu', or use the model through elision.load"
        )
    return {
        "architectures": [ARCHITECTURES[heads]],
        "model_type": MODEL_TYPE,
        **bert_layers.write_settings(backbone, vocab_size, vocabulary),
        "embedding_size": backbone.embedding_width,
        "max_position_embeddings": backbone.max_length,
        # Their module always adds a segment vector: without segments it is two rows of zeros.
        "type_vocab_size": backbone.num_types or 2,
        "summary_type": "first",
        "summary_use_proj": True,
        "summary_activation": "gelu",
    }


def complete(tensors: dict[str, Tensor], backbone: Transformer) -> None:
    """Add, in place, the tensors that their module has even where ours has none."""
    if not backbone.num_types:
        name = "electra.embeddings.token_type_embeddings.weight"
        tensors[name] = tensors[TOKEN_TABLE].new_zeros(2, backbone.embedding_width)
