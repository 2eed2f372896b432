import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from relevo.statistics.metrics import METRICS, Metric, evaluate

CLASSIFICATION = METRICS["classification"]
REGRESSION = METRICS["regression"]


def _binary(seed: int, n: int = 400, decimals: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probabilities = rng.uniform(0.01, 0.99, n).round(decimals)  # rounded: many ties
    return (rng.uniform(size=n) < probabilities).astype(float), probabilities


@pytest.mark.parametrize("seed", range(5))
def test_binary_metrics_agree_with_scikit_learn(seed: int) -> None:
    labels, probabilities = _binary(seed)
    ours = evaluate("classification", labels, probabilities)
    assert ours == pytest.approx(
        {
            "roc_auc": reference.roc_auc_score(labels, probabilities),
            "log_loss": reference.log_loss(labels, probabilities),
            "brier": reference.brier_score_loss(labels, probabilities),
            "accuracy": reference.accuracy_score(labels, probabilities > 0.5),
            "average_precision": reference.average_precision_score(labels, probabilities),
        }
    )


def test_multiclass_metrics_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 300).astype(float)
    raw = rng.uniform(size=(300, 3)) + 0.7 * np.eye(3)[labels.astype(int)]
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    one_hot = np.eye(3)[labels.astype(int)]
    assert evaluate("classification", labels, probabilities) == pytest.approx(
        {
            "roc_auc": reference.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"),
            "log_loss": reference.log_loss(labels, probabilities),
            "brier": float(((probabilities - one_hot) ** 2).sum(axis=1).mean()),
            "accuracy": reference.accuracy_score(labels, probabilities.argmax(axis=1)),
            "average_precision": reference.average_precision_score(one_hot, probabilities, average="macro"),
        }
    )


def test_regression_metrics_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    labels = rng.normal(size=200)
    predictions = labels + rng.normal(size=200)
    assert evaluate("regression", labels, predictions) == pytest.approx(
        {
            "rmse": reference.root_mean_squared_error(labels, predictions),
            "mae": reference.mean_absolute_error(labels, predictions),
            "r2": reference.r2_score(labels, predictions),
        }
    )


def test_probabilities_of_zero_and_one_give_a_finite_log_loss() -> None:
    loss = CLASSIFICATION["log_loss"](np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    assert loss == pytest.approx(reference.log_loss([1, 0], [0.0, 1.0]))


@pytest.mark.parametrize("metric", [*CLASSIFICATION.values(), *REGRESSION.values()], ids=lambda metric: metric.name)
def test_no_rows_and_nan_predictions_give_nan(metric: Metric) -> None:
    assert math.isnan(metric(np.empty(0), np.empty(0)))
    assert math.isnan(metric(np.array([0.0, 1.0]), np.array([0.2, np.nan])))


def test_one_class_has_no_auc_but_a_log_loss() -> None:
    values = evaluate("classification", np.ones(5), np.full(5, 0.5))
    assert math.isnan(values["roc_auc"])
    assert values["log_loss"] == pytest.approx(math.log(2))
    assert math.isnan(evaluate("classification", np.zeros(5), np.full(5, 0.5))["average_precision"])


def test_a_missing_class_leaves_no_multiclass_auc() -> None:
    labels = np.array([0.0, 1.0, 0.0, 1.0])
    assert math.isnan(CLASSIFICATION["roc_auc"](labels, np.full((4, 3), 1 / 3)))


def test_constant_labels_have_no_r2() -> None:
    assert math.isnan(REGRESSION["r2"](np.ones(3), np.array([1.0, 2.0, 3.0])))


def test_is_better_follows_the_direction_of_the_metric() -> None:
    assert CLASSIFICATION["roc_auc"].is_better(0.8, than=0.7)
    assert CLASSIFICATION["log_loss"].is_better(0.4, than=0.5)
    assert not CLASSIFICATION["log_loss"].is_better(float("nan"), than=0.5)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=2, max_size=60))
def test_auc_of_the_reversed_ranking_is_its_complement(rows: list[tuple[bool, int]]) -> None:
    labels = np.array([float(label) for label, _ in rows])
    scores = np.array([score / 20 for _, score in rows])
    area, reversed_area = CLASSIFICATION["roc_auc"](labels, scores), CLASSIFICATION["roc_auc"](labels, 1 - scores)
    if labels.min() == labels.max():
        assert math.isnan(area)
    else:
        assert area + reversed_area == pytest.approx(1)
