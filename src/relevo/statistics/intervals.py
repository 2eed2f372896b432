"""Confidence intervals of metrics, in closed form: one pass, no resampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from relevo.statistics.metrics import (
    METRICS,
    Array,
    average_precision,
    average_ranks,
    brier_losses,
    hits,
    log_losses,
    roc_auc,
)

#: Fewest rows for which the mean of a loss gets a normal interval.
MIN_ROWS = 30


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its confidence interval; NaN where it is not defined. ``n`` rows were used."""

    value: float
    low: float
    high: float
    n: int


def delong_variance(labels: Array, predictions: Array) -> float:
    """Variance of the area under the ROC curve (DeLong et al. 1988), by midranks (Sun & Xu 2014, eq. 5-8).

    NaN with fewer than two rows of a class. 0 when every positive ranks above every negative.

    >>> round(delong_variance(np.array([0., 0, 0, 1, 1, 1]), np.array([.1, .4, .5, .35, .8, .9])), 6)
    0.061728
    """
    positive, negative = predictions[labels == 1], predictions[labels != 1]
    m, n = len(positive), len(negative)
    if m < 2 or n < 2:
        return float("nan")
    together = average_ranks(np.concatenate([positive, negative]))
    of_positive = (together[:m] - average_ranks(positive)) / n
    of_negative = 1 - (together[m:] - average_ranks(negative)) / m
    return float(of_positive.var(ddof=1) / m + of_negative.var(ddof=1) / n)


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """A rate and its score interval (Wilson 1927, eq. 4): right for small counts and rates near 0 or 1.

    >>> rate = wilson(8, 10)
    >>> rate.value, round(rate.low, 4), round(rate.high, 4)
    (0.8, 0.4902, 0.9433)
    """
    if n == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    z, share = quantile(confidence), successes / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(share, float(max(0.0, middle - half)), float(min(1.0, middle + half)), n)


def mean_interval(losses: NDArray[np.float64], confidence: float = 0.95) -> Interval:
    """The mean of ``losses`` ``(n,)`` and its normal interval (central limit); no interval below 30 rows.

    >>> loss = mean_interval(np.tile([0.0, 1.0], 50))
    >>> loss.value, round(loss.low, 4), round(loss.high, 4)
    (0.5, 0.4015, 0.5985)
    """
    n = len(losses)
    if n == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    mean = float(losses.mean())
    half = quantile(confidence) * float(losses.std(ddof=1)) / np.sqrt(n) if n >= MIN_ROWS else float("nan")
    return Interval(mean, float(mean - half), float(mean + half), n)


def quantile(confidence: float) -> float:
    """The normal quantile of a two-sided interval.

    >>> round(quantile(0.95), 4)
    1.96
    """
    return float(special.ndtri(0.5 + confidence / 2))


def estimate(task: str, metric: str, labels: Array, predictions: Array, confidence: float = 0.95) -> Interval:
    """A metric of `METRICS` with its interval.

    AUC: DeLong. Average precision: logit interval (Boyd, Eng & Page 2013, section 3). Accuracy: Wilson. Log loss, Brier
    score, MAE: the mean's; RMSE: the root of that of the squared error. None is known for R2 and for
    one-against-rest averages over classes: NaN.
    """
    value = METRICS[task][metric](labels, predictions)
    n = len(labels)
    if n == 0 or np.isnan(value):
        return Interval(value, float("nan"), float("nan"), n)
    low, high = _bounds(metric, labels, predictions, confidence)
    return Interval(value, low, high, n)


def _bounds(metric: str, labels: Array, predictions: Array, confidence: float) -> tuple[float, float]:
    if metric == "accuracy":
        rate = wilson(int(hits(labels, predictions).sum()), len(labels), confidence)
        return rate.low, rate.high
    if metric == "rmse":
        square = mean_interval((labels - predictions) ** 2, confidence)
        return float(np.sqrt(np.maximum(0.0, square.low))), float(np.sqrt(square.high))
    if metric in {"log_loss", "brier", "mae"}:
        per_row = {"log_loss": log_losses, "brier": brier_losses, "mae": _absolute_errors}[metric]
        mean = mean_interval(per_row(labels, predictions), confidence)
        return mean.low, mean.high
    if predictions.ndim == 1 and metric == "roc_auc":
        half = quantile(confidence) * np.sqrt(delong_variance(labels, predictions))
        area = roc_auc(labels, predictions)
        return float(np.maximum(0.0, area - half)), float(np.minimum(1.0, area + half))
    if predictions.ndim == 1 and metric == "average_precision":
        return _logit_bounds(average_precision(labels, predictions), int((labels == 1).sum()), confidence)
    return float("nan"), float("nan")


def _absolute_errors(labels: Array, predictions: Array) -> Array:
    return np.abs(labels - predictions)


def _logit_bounds(share: float, n: int, confidence: float) -> tuple[float, float]:
    if not 0 < share < 1:
        return float("nan"), float("nan")
    half = quantile(confidence) / np.sqrt(n * share * (1 - share))
    middle = special.logit(share)
    return float(special.expit(middle - half)), float(special.expit(middle + half))
