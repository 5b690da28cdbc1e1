"""How good tags are: entities found whole (seqeval, as in the CoNLL shared tasks), or single tags (scikit-learn)."""

import dataclasses
import importlib.util
import re
from collections.abc import Sequence

import numpy as np

from elision.errors import InputError, nearest
from elision.tasks.scores import ClassScore, by_class

ENTITIES = ("f1", "precision", "recall", "accuracy")
SINGLE = ("accuracy", "macro_f1", "weighted_f1")

Tags = Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Entity:
    """A name in a text: its type and its words, from `first` up to `last` (inclusive)."""

    type: str
    first: int
    last: int


def mark_entities(labels: Sequence[str]) -> bool:
    """Tell whether tags say where entities begin and go on ("B-PER", "I-PER", "O") rather than name each word's class."""
    return all(label == "O" or re.match(r"[BIESLU]-.", label) for label in labels) and len(labels) > 1


def check_tag_metric(metric: str | None, labels: Sequence[str]) -> str:
    """Return the measure that picks the best checkpoint.

    Raises: InputError when there is no such measure, or when entities cannot be measured for want of seqeval.
    """
    known = ENTITIES if mark_entities(labels) else SINGLE
    if mark_entities(labels) and importlib.util.find_spec("seqeval") is None:
        raise InputError("entities are measured by seqeval, which is not installed: pip install 'elision[tagging]'")
    if metric is None:
        return known[0]
    if metric not in known:
        raise InputError(f"metric is {metric!r}: these tags have {', '.join(known)}.{nearest(metric, known)}")
    return metric


def measure_tags(truth: Tags, predicted: Tags, labels: Sequence[str]) -> tuple[dict[str, float], list[ClassScore]]:
    """Return the measures, and a line for each type of entity (or for each tag where tags mark no entities)."""
    flat_truth, flat = ([tag for tags in texts for tag in tags] for texts in (truth, predicted))
    accuracy = float(np.mean([a == b for a, b in zip(flat_truth, flat, strict=True)]))
    if not mark_entities(labels):
        from sklearn.metrics import f1_score

        number = {label: n for n, label in enumerate(labels)}
        truth_N, predicted_N = (np.array([number.get(tag, -1) for tag in tags]) for tags in (flat_truth, flat))
        values = {"accuracy": accuracy}
        for average in ("macro", "weighted"):
            values[f"{average}_f1"] = float(
                f1_score(truth_N, predicted_N, labels=range(len(labels)), average=average, zero_division=0)
            )
        return values, by_class(truth_N, predicted_N, labels)
    from seqeval.metrics import classification_report

    if not any(tag != "O" for tag in flat_truth) and not any(tag != "O" for tag in flat):
        return {"f1": 0.0, "precision": 0.0, "recall": 0.0, "accuracy": accuracy}, []
    report = classification_report(
        [list(tags) for tags in truth], [list(tags) for tags in predicted], output_dict=True, zero_division=0
    )
    overall = report["micro avg"]
    lines = [
        ClassScore(name, float(line["precision"]), float(line["recall"]), float(line["f1-score"]), int(line["support"]))
        for name, line in report.items()
        if not name.endswith(" avg")
    ]
    values = {"f1": overall["f1-score"], "precision": overall["precision"], "recall": overall["recall"]}
    return {**{name: float(value) for name, value in values.items()}, "accuracy": accuracy}, lines


def entities(tags: Sequence[str]) -> list[Entity]:
    """Return the entities that tags mark, of any of the usual schemes, as seqeval reads them.

    >>> entities(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"])
    [Entity(type='PER', first=0, last=1), Entity(type='LOC', first=3, last=3), Entity(type='LOC', first=4, last=4)]
    """
    found: list[Entity] = []
    open_type, first, before = "", 0, "O"
    for n, tag in enumerate([*tags, "O"]):
        mark, _, kind = tag.partition("-")
        goes_on = open_type and kind == open_type and mark in "IEL" and before not in "ESLU"
        if open_type and not goes_on:
            found.append(Entity(open_type, first, n - 1))
            open_type = ""
        if not open_type and tag != "O" and kind:
            open_type, first = kind, n
        before = mark
    return found
