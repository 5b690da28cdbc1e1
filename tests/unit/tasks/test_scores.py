"""Measures against their definitions, worked out another way."""

import numpy as np
import pytest
from sklearn import metrics

from elision.errors import InputError
from elision.tasks.scores import by_class, check_metric, measure_classes, measure_scores, rank


def test_classification_measures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 4, 200), rng.integers(0, 3, 200)
    values = measure_classes(truth, predicted, 4)
    report = metrics.classification_report(truth, predicted, output_dict=True, zero_division=0)
    assert values["accuracy"] == pytest.approx(report["accuracy"])
    assert values["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    assert values["weighted_f1"] == pytest.approx(report["weighted avg"]["f1-score"])
    assert values["matthews"] == pytest.approx(metrics.matthews_corrcoef(truth, predicted))
    assert "f1" not in values
    lines = by_class(truth, predicted, ("a", "b", "c", "d"))
    assert [line.recall for line in lines] == [pytest.approx(report[str(i)]["recall"]) for i in range(4)]
    assert lines[3].f1 == 0.0 and sum(line.num_rows for line in lines) == 200


def test_two_classes_also_get_the_f1_of_the_second_by_hand() -> None:
    # Three hits, one false alarm, two misses: F1 = 2 * 3 / (2 * 3 + 1 + 2).
    truth, predicted = np.array([1, 1, 1, 1, 1, 0, 0]), np.array([1, 1, 1, 0, 0, 1, 0])
    assert measure_classes(truth, predicted, 2)["f1"] == pytest.approx(2 / 3)


def test_score_measures_by_hand() -> None:
    truth, predicted = np.array([1.0, 2.0, 3.0, 5.0]), np.array([1.0, 4.0, 9.0, 25.0])
    values = measure_scores(truth, predicted)
    assert values["spearman"] == pytest.approx(1.0)
    assert values["pearson"] == pytest.approx(np.corrcoef(truth, predicted)[0, 1])
    assert values["mean_squared_error"] == pytest.approx((0 + 4 + 36 + 400) / 4)
    assert measure_scores(truth, np.ones(4))["pearson"] == 0.0


def test_a_measure_that_a_task_does_not_have_is_refused() -> None:
    assert check_metric(None, "classification", 3) == "accuracy" and check_metric(None, "regression", 0) == "pearson"
    with pytest.raises(InputError, match="metric is 'f1': a classification has accuracy, macro_f1"):
        check_metric("f1", "classification", 3)
    assert (
        rank({"mean_squared_error": 2.0}, "mean_squared_error") == 2.0 and rank({"accuracy": 0.5}, "accuracy") == -0.5
    )
