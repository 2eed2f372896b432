import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from relevo.statistics.intervals import delong_variance, estimate, mean_interval, wilson


def _kernel_delong(labels: np.ndarray, scores: np.ndarray) -> float:
    """The definition: structural components from every pair (DeLong 1988, section 2), quadratic in rows."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    pairs = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    return float(pairs.mean(axis=1).var(ddof=1) / len(positive) + pairs.mean(axis=0).var(ddof=1) / len(negative))


@pytest.mark.parametrize("seed", range(5))
def test_delong_by_midranks_equals_its_definition_over_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.uniform(size=150) < 0.3).astype(float)
    scores = (rng.normal(size=150) + labels).round(1)
    assert delong_variance(labels, scores) == pytest.approx(_kernel_delong(labels, scores))


def test_delong_intervals_cover_the_true_area_about_95_times_in_100() -> None:
    rng = np.random.default_rng(7)
    truth = stats.norm.cdf(1 / math.sqrt(2))  # area of two normals one standard deviation apart
    covered = 0
    for _ in range(400):
        labels = np.repeat([0.0, 1.0], [140, 60])
        interval = estimate("classification", "roc_auc", labels, rng.normal(size=200) + labels)
        covered += interval.low <= truth <= interval.high
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (499, 500), (10, 10)])
def test_wilson_agrees_with_scipy(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    rate = wilson(successes, n)
    assert (rate.low, rate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_mean_has_no_interval_below_thirty_rows() -> None:
    few = mean_interval(np.arange(29.0))
    assert few.value == 14
    assert math.isnan(few.low) and math.isnan(few.high)


@pytest.mark.parametrize("metric", ["log_loss", "brier", "accuracy", "average_precision", "roc_auc"])
def test_an_interval_holds_its_value_and_narrows_with_rows(metric: str) -> None:
    rng = np.random.default_rng(3)
    probabilities = rng.uniform(0.05, 0.95, 4000)
    labels = (rng.uniform(size=4000) < probabilities).astype(float)
    few = estimate("classification", metric, labels[:250], probabilities[:250])
    many = estimate("classification", metric, labels, probabilities)
    assert few.low < few.value < few.high
    assert many.low < many.value < many.high
    assert 2.5 < (few.high - few.low) / (many.high - many.low) < 6.4


@pytest.mark.parametrize("metric", ["rmse", "mae"])
def test_regression_intervals_cover_the_true_error(metric: str) -> None:
    rng = np.random.default_rng(4)
    truth = {"rmse": 1.0, "mae": math.sqrt(2 / math.pi)}[metric]
    covered = 0
    for _ in range(300):
        labels = rng.normal(size=200)
        interval = estimate("regression", metric, labels, labels + rng.normal(size=200))
        covered += interval.low <= truth <= interval.high
    assert 0.91 <= covered / 300 <= 0.98


def test_what_has_no_known_interval_says_so_with_nan() -> None:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, 90).astype(float)
    probabilities = rng.dirichlet(np.ones(3), 90)
    area = estimate("classification", "roc_auc", labels, probabilities)
    assert area.value == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"))
    assert math.isnan(area.low)
    assert math.isnan(estimate("regression", "r2", labels, labels + 0.1 * rng.normal(size=90)).low)
    assert math.isnan(estimate("classification", "roc_auc", np.array([0.0, 1.0]), np.array([0.1, 0.2])).low)
