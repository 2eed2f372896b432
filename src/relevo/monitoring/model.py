"""Windows of event time, what was found in them, and the alerts that follow."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from relevo.features.parity import Cause, FeatureParity
from relevo.statistics.baseline import Baseline

#: The name under which the model's own output is listed beside its inputs.
PREDICTION = "(prediction)"


class WindowState(StrEnum):
    """A window is provisional until its labels are due, then final; later labels make a new revision."""

    PROVISIONAL = "provisional"
    FINAL = "final"


class Severity(StrEnum):
    """How much attention an alert asks for."""

    WARNING = "warning"
    CRITICAL = "critical"


class AlertKind(StrEnum):
    """What an alert is about; an endpoint has at most one open alert of a kind."""

    PERFORMANCE = "performance"
    DRIFT = "drift"
    QUALITY = "quality"
    FAILURES = "failures"
    LABELS = "labels"
    WATCH = "watch"  # a window could not be analysed
    RELEASE = "release"  # a release failed or was withdrawn
    FRESHNESS = "freshness"  # the newest known rows of a feature view are older than it allows
    FEATURES = "features"  # feature views could not be brought up to date
    ERROR_BUDGET = "error_budget"  # requests fail so fast that the budget of the contract will not last
    LATENCY_BUDGET = "latency_budget"  # so many are slower than the contract allows
    BUNDLE = "bundle"  # the gateway refuses a version that it was asked to load
    LOG = "log"  # predictions could not be logged


class DueWindow(NamedTuple):
    """A window that has to be analysed, as what. ``start`` inclusive, ``end`` exclusive."""

    start: datetime
    end: datetime
    state: WindowState


@dataclass(frozen=True, slots=True)
class Reference:
    """What windows of a version are compared with: its sealed profiles, and the metrics of its holdout.

    ``inputs`` are in the model's order; ``importances`` are their shares in what the model knows, when it was sealed
    with them.
    """

    version: int
    inputs: tuple[str, ...]
    baseline: Baseline
    metrics: dict[str, float]
    importances: dict[str, float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric with its 95% confidence interval; None where it is not defined or cannot be had. ``n`` rows."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """Distance of one input, or of the prediction, from the sealed baseline, and whether it counts as drift.

    The numbers are None when the window or the baseline has no value of the column.
    """

    column: str
    psi: float | None
    distance: float | None  # Kolmogorov-Smirnov for numbers, Jensen-Shannon for categories
    p_value: float | None  # after Benjamini-Hochberg
    null_rate: float
    baseline_null_rate: float
    outside_rate: float  # values beyond the baseline's range, or categories that it does not name
    is_drifted: bool


@dataclass(frozen=True, slots=True)
class Window:
    """What one window of one endpoint showed. Times are event time; ``start`` inclusive, ``end`` exclusive.

    ``version`` answered the most rows: drift is measured against its baseline, and ``reference`` is its holdout.
    ``performance_drop`` is how much worse its primary metric is than on that holdout (positive is worse). It is None
    when there is no verdict: too few rows or labels, or no reference.
    """

    endpoint: str
    start: datetime
    end: datetime
    revision: int
    state: WindowState
    predictions: int  # rows answered, of those that were logged
    failed: int  # requests and rows that were not
    labels: int
    no_outcome: int
    label_coverage: float  # share of the predictions whose outcome is known, or known not to exist
    label_mean: float | None  # share of the positive class, or the mean; None for several classes
    version: int | None
    metrics: dict[str, Estimate]
    by_version: dict[int, dict[str, Estimate]]
    slices: dict[str, dict[str, Estimate]]
    reference: dict[str, float]
    performance_drop: float | None
    is_drop_significant: bool
    drift: tuple[FeatureDrift, ...]
    drift_share: float  # share of the inputs that drifted, weighted by their importance
    quality: tuple[str, ...]  # findings in plain words
    sampled_share: float = 1.0  # of the rows answered, those that were logged; failures are logged always

    @property
    def answered(self) -> int:
        """How many rows were answered, the unsampled ones estimated by the share that was logged."""
        return round(self.predictions / self.sampled_share)


@dataclass(frozen=True, slots=True)
class Period:
    """Performance over a period of event time: of what was live, and of one version asked again about the same rows."""

    start: datetime
    end: datetime
    predictions: int
    failed: int
    labels: int
    label_coverage: float
    label_mean: float | None
    by_version: dict[int, int]  # rows that each version answered
    metrics: dict[str, Estimate]
    rescored: dict[str, Estimate]  # empty when no version was asked for
    drift_share: float  # share of the inputs that drifted, weighted by their importance


@dataclass(frozen=True, slots=True)
class Finding:
    """What a window's verdict of one kind says now: raise, resolve, or (None) leave as it is."""

    kind: AlertKind
    severity: Severity
    is_raised: bool | None
    message: str


@dataclass(frozen=True, slots=True)
class Alert:
    """Something a person should look at."""

    id: int
    endpoint: str
    severity: Severity
    kind: AlertKind
    message: str
    raised_at: datetime
    event_at: datetime
    resolved_at: datetime | None


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the online store was behind when it was asked, in seconds of event time; 0 where it was ahead.

    ``behind`` values would have been others, had it been current.
    """

    rows: int
    p50_seconds: float
    p90_seconds: float
    p99_seconds: float
    max_seconds: float
    behind: int


@dataclass(frozen=True, slots=True)
class Parity:
    """What one proof showed. Times are event time; the window holds both of its ends.

    Attributes:
        rows: Predicted rows in the window.
        sampled: Rows that were compared, or that the caller sent whole.
        unlogged: Rows of a time when the log did not tell what was looked up.
        unfilled: Rows answered before a view was filled: the features were null.
        compared: Values that were looked up; ``exact`` + ``close`` + ``different`` of them.
        sent: Values that the caller sent; they are not compared.
        lag: None when nothing was looked up.
    """

    model: str
    event_from: datetime
    event_to: datetime
    versions: tuple[int, ...]
    rows: int
    sampled: int
    unlogged: int
    unfilled: int
    compared: int
    exact: int
    close: int
    different: int
    sent: int
    causes: dict[Cause, int]
    lag: Lag | None
    features: tuple[FeatureParity, ...]
    recorded_at: datetime
    seconds: float
