"""The metrics of a model, each named once: gates, evaluation and monitoring all look them up here.

Labels are class indices ``(n,)`` (0 or 1 when there are two classes) or numbers ``(n,)``. Predictions of a
classifier are the probability of class 1 ``(n,)``, or the probabilities of every class ``(n, k)``; a regression
predicts ``(n,)``. A metric that is not defined on what it got is NaN, never an error: no rows, a NaN prediction,
one class only where two are needed. Rows without a label are dropped by the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Metric:
    """A named metric: ``function(labels, predictions)`` gives its value, NaN when it is not defined."""

    name: str
    greater_is_better: bool
    function: Callable[[Array, Array], float]

    def __call__(self, labels: Array, predictions: Array) -> float:
        """The value on ``labels`` ``(n,)`` and ``predictions`` ``(n,)`` or ``(n, k)``; NaN when undefined."""
        labels = np.asarray(labels, dtype=np.float64)
        predictions = np.asarray(predictions, dtype=np.float64)
        if len(labels) == 0 or np.isnan(predictions).any() or np.isnan(labels).any():
            return float("nan")
        return float(self.function(labels, predictions))

    def is_better(self, value: float, than: float) -> bool:
        """Whether ``value`` is strictly better; False when either is NaN."""
        return value > than if self.greater_is_better else value < than


def average_ranks(values: Array) -> Array:
    """Ranks from 1, ties given their average (midranks), ``(n,)``.

    >>> average_ranks(np.array([10.0, 20.0, 10.0])).tolist()
    [1.5, 3.0, 1.5]
    """
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    return (last - (sizes - 1) / 2.0)[group.reshape(-1)]


def roc_auc(labels: Array, predictions: Array) -> float:
    """Area under the ROC curve: the Mann-Whitney statistic with ties counted half (Hanley & McNeil 1982).

    With ``(n, k)`` probabilities: the mean over classes of one against the rest; NaN when a class is missing.

    >>> roc_auc(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.35, 0.8]))
    0.75
    """
    if predictions.ndim == 2:
        return _one_against_rest(roc_auc, labels, predictions)
    positive = labels == 1
    n_positive = int(positive.sum())
    n_negative = len(labels) - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    rank_sum = float(average_ranks(predictions)[positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def average_precision(labels: Array, predictions: Array) -> float:
    """Precision averaged over the steps of recall (Zhu 2004): the sum of ``(R_i - R_{i-1}) P_i``.

    With ``(n, k)`` probabilities: the mean over classes of one against the rest.

    >>> round(average_precision(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.35, 0.8])), 4)
    0.8333
    """
    if predictions.ndim == 2:
        return _one_against_rest(average_precision, labels, predictions)
    n_positive = int((labels == 1).sum())
    if n_positive == 0:
        return float("nan")
    order = np.argsort(-predictions, kind="stable")
    scores, hits = predictions[order], np.cumsum(labels[order] == 1)
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    precision = hits[ends] / (ends + 1)
    recall = hits[ends] / n_positive
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def log_losses(labels: Array, predictions: Array) -> Array:
    """The loss of each row, ``-ln p(label)``, with p kept off 0 and 1 by the smallest step of a double."""
    chosen = predictions if predictions.ndim == 1 else _of_label(labels, predictions)
    kept = np.clip(chosen, np.finfo(np.float64).eps, 1 - np.finfo(np.float64).eps)
    if predictions.ndim == 2:
        return np.asarray(-np.log(kept))
    return np.asarray(-np.where(labels == 1, np.log(kept), np.log1p(-kept)))


def log_loss(labels: Array, predictions: Array) -> float:
    """Mean negative log-likelihood (Good 1952).

    >>> round(log_loss(np.array([1.0, 0.0]), np.array([0.8, 0.4])), 4)
    0.367
    """
    return float(log_losses(labels, predictions).mean())


def brier_losses(labels: Array, predictions: Array) -> Array:
    """The squared error of each row; with ``(n, k)`` probabilities its sum over classes (range 0 to 2)."""
    if predictions.ndim == 1:
        return np.asarray((predictions - labels) ** 2)
    truth = np.arange(predictions.shape[1]) == labels[:, None]
    return np.asarray(((predictions - truth) ** 2).sum(axis=1))


def brier(labels: Array, predictions: Array) -> float:
    """Mean squared error of probabilities (Brier 1950).

    >>> round(brier(np.array([1.0, 0.0]), np.array([0.8, 0.4])), 2)
    0.1
    """
    return float(brier_losses(labels, predictions).mean())


def hits(labels: Array, predictions: Array) -> NDArray[np.bool_]:
    """Whether each row's most probable class is its label; with two classes, 1 needs more than one half."""
    chosen = predictions > 0.5 if predictions.ndim == 1 else predictions.argmax(axis=1)
    return np.asarray(chosen == labels)


def accuracy(labels: Array, predictions: Array) -> float:
    """Share of rows whose most probable class is the label.

    >>> accuracy(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.8, 0.4, 0.3, 0.1]))
    0.75
    """
    return float(hits(labels, predictions).mean())


def rmse(labels: Array, predictions: Array) -> float:
    """Root of the mean squared error.

    >>> round(rmse(np.array([1.0, 2.0]), np.array([1.0, 4.0])), 4)
    1.4142
    """
    return float(np.sqrt(np.mean((labels - predictions) ** 2)))


def mae(labels: Array, predictions: Array) -> float:
    """Mean absolute error.

    >>> mae(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    1.0
    """
    return float(np.mean(np.abs(labels - predictions)))


def r2(labels: Array, predictions: Array) -> float:
    """Share of variance explained; NaN when the labels do not vary.

    >>> r2(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))
    0.5
    """
    spread = float(np.sum((labels - labels.mean()) ** 2))
    return 1 - float(np.sum((labels - predictions) ** 2)) / spread if spread > 0 else float("nan")


def _of_label(labels: Array, predictions: Array) -> Array:
    return np.asarray(predictions[np.arange(len(labels)), labels.astype(np.int64)])


def _one_against_rest(metric: Callable[[Array, Array], float], labels: Array, predictions: Array) -> float:
    per_class = [metric((labels == c).astype(np.float64), predictions[:, c]) for c in range(predictions.shape[1])]
    return float(np.mean(per_class))


def _named(*metrics: Metric) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


#: Every metric by task ("classification", "regression") and name.
METRICS: dict[str, dict[str, Metric]] = {
    "classification": _named(
        Metric("roc_auc", True, roc_auc),
        Metric("log_loss", False, log_loss),
        Metric("brier", False, brier),
        Metric("accuracy", True, accuracy),
        Metric("average_precision", True, average_precision),
    ),
    "regression": _named(
        Metric("rmse", False, rmse),
        Metric("mae", False, mae),
        Metric("r2", True, r2),
    ),
}


def evaluate(task: str, labels: Array, predictions: Array) -> dict[str, float]:
    """Every metric of ``task`` by name; NaN where it is not defined."""
    return {name: metric(labels, predictions) for name, metric in METRICS[task].items()}
