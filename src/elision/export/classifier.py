"""What a fine-tuned model needs besides its weights, so that transformers reads texts the way it was trained to."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import processors
from torch import Tensor

from elision.data.frame import FrameName
from elision.errors import InputError
from elision.export.config import Config
from elision.model.backbones import Backbone
from elision.tasks.tag_scores import mark_entities
from elision.tasks.task import AnsweringTask, AnyTask, TaggingTask, Task
from elision.text.tokenizer import Tokenizer

PAD = "<|pad|>"


HEADS = ("classification", "tagging", "answering")


def write_config(task: AnyTask) -> dict[str, Any]:
    """Return what config.json says of the labels."""
    if isinstance(task, AnsweringTask):
        return {}
    labels = task.labels or ("LABEL_0",)
    values: dict[str, Any] = {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }
    if isinstance(task, Task):
        values["problem_type"] = "regression" if task.type == "regression" else "single_label_classification"
    return values


def without_pooler(backbone: Backbone, task: AnyTask | None) -> Backbone:
    """Return the settings of the backbone that goes with the task: taggers and answerers there have no pooler."""
    if isinstance(task, TaggingTask | AnsweringTask) and getattr(backbone, "pooler", False):
        return dataclasses.replace(backbone, pooler=False)
    return backbone


def read_task(
    config: Config,
    architectures: Mapping[tuple[str, ...], str],
    heads: Sequence[str],
    backbone: Backbone,
    length: int,
    tokenizer: Tokenizer | None,
) -> AnyTask | None:
    """Return what a file with a fine-tuned head was fine-tuned for; None when it has no such head.

    heads: those whose tensors the file has. The class that config.json names decides among heads of the same tensors.
    length: tokens in an example, where no tokenizer_config.json says it.
    """
    there = [head for head in HEADS if head in heads]
    named = (config.values.get("architectures") or [None])[0]
    by_name = {name: heads[0] for heads, name in architectures.items() if len(heads) == 1}
    if named in by_name:
        there = [head for head in there if head == by_name[named]]
    elif len(there) > 1:
        config.note(f"config.json names no class that tells whether its head is for {' or for '.join(there)}")
        return None
    if not there:
        return None
    length = _length(config, length)
    frame = _frame(backbone, tokenizer)
    if there == ["answering"]:
        return AnsweringTask(max_length=min(length, 384), frame=frame, unanswerable=True)
    labels = _labels(config)
    if there == ["tagging"]:
        return TaggingTask(labels, length, "f1" if mark_entities(labels) else "accuracy", frame=frame)
    problem = config.values.get("problem_type")
    if problem == "multi_label_classification":
        config.note("its classifier gives a text several labels (problem_type), which is not supported: left out")
        return None
    if problem == "regression" or len(labels) == 1:
        return Task("regression", (), None, length, "pearson", frame=frame)
    return Task("classification", labels, None, length, "accuracy", frame=frame)


def _labels(config: Config) -> tuple[str, ...]:
    given = config.values.get("id2label")
    if not isinstance(given, dict):
        # What transformers takes for granted.
        return tuple(f"LABEL_{number}" for number in range(config.count("num_labels", 2)))
    try:
        numbered = {int(number): str(label) for number, label in given.items()}
    except ValueError:
        numbered = {}
    if sorted(numbered) != list(range(len(numbered))) or not numbered:
        raise InputError(f"{config.path}: id2label must name the classes 0, 1, 2 ... in full")
    return tuple(numbered[number] for number in range(len(numbered)))


def _length(config: Config, length: int) -> int:
    try:
        values = json.loads((config.path.parent / "tokenizer_config.json").read_text(encoding="utf-8"))
        given = values.get("model_max_length")
    except (OSError, ValueError, AttributeError):
        given = None
    return min(length, int(given)) if isinstance(given, int | float) and given >= 5 else length


def _frame(backbone: Backbone, tokenizer: Tokenizer | None) -> FrameName | None:
    """Causal models are read as their own tokenizer frames a text: perhaps without an end of text after it."""
    if backbone.visibility != "causal" or tokenizer is None:
        return None
    framed, plain = tokenizer.encode("a", add_special_tokens=True), tokenizer.encode("a")
    return None if framed == [*plain, tokenizer.vocabulary.eos] else "bare"


def frame(tokenizer: Tokenizer, backbone: Backbone) -> Tokenizer:
    """Return the tokenizer as the classifier was fed by it.

    Bidirectional: unchanged, it frames texts already. Causal: an end of text after each text, whose state is judged;
    and a symbol for padding of its own, because transformers looks for the last token that is no padding, which the end
    of text must be.
    """
    if backbone.visibility != "causal":
        return tokenizer
    raw = tokenizers.Tokenizer.from_str(tokenizer.raw.to_str())
    roles = dict(tokenizer.roles)
    if roles.get("pad", roles["eos"]) == roles["eos"]:
        raw.add_special_tokens([PAD])
        roles["pad"] = PAD
    end = roles["eos"]
    raw.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B:1 {end}:1", special_tokens=[(end, raw.token_to_id(end))]
    )
    return Tokenizer(raw, roles, tokenizer.source)


def make_room(tensors: dict[str, Tensor], table: str, num_symbols: int) -> None:
    """Add, in place, rows of zeros to the token table for symbols that came with the frame."""
    rows, width = tensors[table].shape
    if num_symbols > rows:
        grown = tensors[table].new_zeros(num_symbols, width)
        grown[:rows] = tensors[table]
        tensors[table] = grown
