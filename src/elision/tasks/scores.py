"""How good predictions are, by scikit-learn and SciPy: accuracy, F1, Matthews, Pearson, Spearman, and a table by class."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from elision.errors import InputError, nearest

CLASSIFICATION = ("accuracy", "f1", "macro_f1", "weighted_f1", "matthews")
REGRESSION = ("pearson", "spearman", "mean_squared_error")


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """How one class fared: precision, recall, F1 (0 to 1), and how many rows really belong to it."""

    label: str
    precision: float
    recall: float
    f1: float
    num_rows: int


def measure_classes(truth: np.ndarray, predicted: np.ndarray, num_labels: int) -> dict[str, float]:
    """Return accuracy, macro and weighted F1, Matthews correlation, and with two classes the F1 of the second.

    truth, predicted: int [N], class indices. A class that is never predicted has F1 0.
    """
    from sklearn import metrics

    labels = list(range(num_labels))
    values = {"accuracy": metrics.accuracy_score(truth, predicted)}
    if num_labels == 2:
        values["f1"] = metrics.f1_score(truth, predicted, zero_division=0)
    for average in ("macro", "weighted"):
        values[f"{average}_f1"] = metrics.f1_score(truth, predicted, labels=labels, average=average, zero_division=0)
    values["matthews"] = metrics.matthews_corrcoef(truth, predicted)
    return {name: float(value) for name, value in values.items()}


def measure_scores(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return Pearson and Spearman correlation and the mean squared error of float [N] arrays.

    A correlation with a constant is 0 here.
    """
    from scipy import stats

    values = {"pearson": 0.0, "spearman": 0.0, "mean_squared_error": float(np.mean((truth - predicted) ** 2))}
    if len(truth) > 1 and np.ptp(truth) > 0 and np.ptp(predicted) > 0:
        for name, correlation in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
            value = float(correlation(truth, predicted)[0])
            values[name] = value if math.isfinite(value) else 0.0
    return values


def by_class(truth: np.ndarray, predicted: np.ndarray, labels: Sequence[str]) -> list[ClassScore]:
    """Return one line for each class."""
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(truth, predicted, labels=list(range(len(labels))), zero_division=0)
    return [
        ClassScore(label, float(precision), float(recall), float(f1), int(support))
        for label, precision, recall, f1, support in zip(labels, *columns)
    ]


def check_metric(metric: str | None, task_type: str, num_labels: int) -> str:
    """Return the measure that picks the best checkpoint. Raises: InputError when the task has no such measure."""
    known = list(REGRESSION if task_type == "regression" else CLASSIFICATION)
    if num_labels != 2 and "f1" in known:
        known.remove("f1")
    if metric is None:
        return known[0]
    if metric not in known:
        raise InputError(f"metric is {metric!r}: a {task_type} has {', '.join(known)}.{nearest(metric, known)}")
    return metric


def rank(values: dict[str, float], metric: str) -> float:
    """Return a number that is lower the better `values` are by `metric`; of equals those with the lower loss win."""
    value = values[metric] if metric in ("mean_squared_error", "loss") else -values[metric]
    return value + 1e-6 * values.get("loss", 0.0)
