"""Windows of event time and what was found in them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class WindowState(StrEnum):
    """A window is provisional until its labels are due, then final; later labels make a new revision."""

    PROVISIONAL = "provisional"
    FINAL = "final"


class Severity(StrEnum):
    """How much attention an alert asks for."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric with its confidence interval; ``low`` and ``high`` are None when it cannot be had."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """Distance of one input from the sealed baseline, and whether it counts as drift."""

    column: str
    psi: float
    distance: float  # Kolmogorov-Smirnov for numbers, Jensen-Shannon for categories
    p_value: float  # after Benjamini-Hochberg
    null_rate: float
    baseline_null_rate: float
    is_drifted: bool


@dataclass(frozen=True, slots=True)
class Window:
    """What one window of one endpoint showed. Times are event time; ``start`` inclusive, ``end`` exclusive."""

    endpoint: str
    start: datetime
    end: datetime
    revision: int
    state: WindowState
    predictions: int
    failed: int
    labels: int
    no_outcome: int
    label_coverage: float
    metrics: dict[str, Estimate]
    by_version: dict[int, dict[str, Estimate]]
    slices: dict[str, dict[str, Estimate]]
    drift: tuple[FeatureDrift, ...]
    quality: tuple[str, ...]  # findings in plain words
    drift_share: float


@dataclass(frozen=True, slots=True)
class Alert:
    """Something a person should look at."""

    id: int
    endpoint: str
    severity: Severity
    kind: str
    message: str
    raised_at: datetime
    event_at: datetime
    resolved_at: datetime | None
