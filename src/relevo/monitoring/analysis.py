"""From the logged rows of a window to what they show: counts on the baseline's bins, drift, metrics, slices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from relevo.contract.model import Task
from relevo.errors import Conflict
from relevo.monitoring import policy
from relevo.monitoring.model import PREDICTION, Estimate, FeatureDrift, Window
from relevo.statistics.baseline import Baseline, CategoryProfile, NumericProfile, Profile
from relevo.statistics.counts import (
    Counts,
    count_categories,
    count_numbers,
    merged_bins,
    merged_categories,
    of_baseline,
)
from relevo.statistics.distances import jensen_shannon, kolmogorov_smirnov, population_stability_index
from relevo.statistics.intervals import Interval, estimate
from relevo.statistics.metrics import METRICS, Array
from relevo.statistics.significance import benjamini_hochberg, chi_square_p_value, kolmogorov_smirnov_p_value

#: Fewest labelled rows of a slice that get metrics, most slices of a column, and how many of the task's metrics.
MIN_SLICE_ROWS = 100
MAX_SLICES = 30
N_SLICE_METRICS = 2

_ROW_COLUMNS = ("prediction_id", "version", "status", "prediction", "probabilities", "label", "outcome", "sample")


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """How many outcomes of a window are known, how many are known not to exist, and the sum of the labels."""

    known: int
    none: int
    total: float

    def are_those_of(self, window: Window) -> bool:
        """Whether the window was analysed with these labels."""
        is_same_mean = window.label_mean is None or math.isclose(
            self.total, window.label_mean * window.labels, rel_tol=1e-9, abs_tol=1e-6
        )
        return (self.known, self.none) == (window.labels, window.no_outcome) and is_same_mean


@dataclass(frozen=True, slots=True)
class Rows:
    """What was logged in a window: the answered rows with the labels known by then, and how many failed."""

    answered: pl.DataFrame
    failed: int

    @property
    def labelled(self) -> pl.DataFrame:
        """The rows whose outcome is known."""
        return self.answered.filter((pl.col("outcome") == "known") & pl.col("label").is_not_null())

    @property
    def no_outcome(self) -> int:
        """Rows that will never have an outcome, and say so."""
        return int((self.answered["outcome"] == "none").sum())

    @property
    def version(self) -> int | None:
        """The version that answered the most rows."""
        return next(iter(self.by_version()), None)

    @property
    def label_coverage(self) -> float:
        """Share of the answered rows whose outcome is known, or known not to exist; 0 without rows."""
        return (self.labelled.height + self.no_outcome) / self.answered.height if self.answered.height else 0.0

    @property
    def answered_in_all(self) -> int:
        """Rows that were answered, logged or not: each logged one stands for the inverse of its share.

        Horvitz and Thompson (1952).
        """
        if "sample" not in self.answered.columns:
            return self.answered.height
        return round(float((1 / self.answered["sample"].fill_null(1.0)).sum()))

    @property
    def sampled_share(self) -> float:
        """Share of the answered rows that was logged; 1 without rows."""
        return self.answered.height / self.answered_in_all if self.answered.height else 1.0

    def by_version(self) -> dict[int, int]:
        """Rows that each version answered, the busiest first."""
        counted = self.answered["version"].drop_nulls().value_counts(sort=True)
        return dict(zip(counted["version"].to_list(), counted["count"].to_list(), strict=True))


def read_rows(window: pl.LazyFrame) -> Rows:
    """What `PredictionLog.window` gives, read in one pass; about 8 bytes a row and input of memory.

    In the order of the prediction ids: a sum of floats depends on the order, and a metric that differed in its last
    digit would be taken for a new revision.
    """
    names = window.collect_schema().names()
    kept = [name for name in names if name in _ROW_COLUMNS or name.startswith(("x_", "k_"))]
    frame = window.select(kept).sort("prediction_id").drop("prediction_id").collect()
    answered = frame.filter(pl.col("status") == "ok")
    return Rows(answered, frame.height - answered.height)


def read_label_counts(log: pl.LazyFrame, windows: Sequence[Window]) -> list[LabelCounts]:
    """The labels of each of ``windows`` now: one pass over three columns of the log."""
    is_ok = pl.col("status") == "ok"
    counted: list[pl.Expr] = []
    for i, window in enumerate(windows):
        of_window = is_ok & (pl.col("asked_at") >= window.start) & (pl.col("asked_at") < window.end)
        is_known = of_window & (pl.col("outcome") == "known")
        counted += [
            is_known.sum().alias(f"known_{i}"),
            (of_window & (pl.col("outcome") == "none")).sum().alias(f"none_{i}"),
            pl.col("label").filter(is_known).sum().alias(f"sum_{i}"),
        ]
    row = log.select(counted).collect().row(0, named=True)
    return [LabelCounts(row[f"known_{i}"], row[f"none_{i}"], row[f"sum_{i}"]) for i in range(len(windows))]


def read_inputs(rows: pl.DataFrame, inputs: Sequence[str]) -> list[list[object]]:
    """The logged inputs, row by row in the order of ``inputs``, as a runtime takes them.

    Raises:
        Conflict: One of them was not logged: the versions that answered do not take it.
    """
    missing = [name for name in inputs if f"x_{name}" not in rows.columns]
    if missing:
        raise Conflict(f"The logged rows cannot be asked again: they have no input {', '.join(missing)}.")
    return [list(row) for row in rows.select([f"x_{name}" for name in inputs]).iter_rows()]


def labels_of(rows: pl.DataFrame) -> Array:
    """The labels ``(n,)``: class indices or numbers."""
    return rows["label"].cast(pl.Float64).to_numpy()


def predictions_of(rows: pl.DataFrame) -> Array:
    """The predictions ``(n,)``, or the probabilities ``(n, k)`` where the log holds them."""
    if "probabilities" in rows.columns and rows.height and rows["probabilities"].null_count() == 0:
        return np.array(rows["probabilities"].to_list(), dtype=np.float64)
    return rows["prediction"].cast(pl.Float64).to_numpy()


def estimates(task: Task, labels: Array, predictions: Array, names: Sequence[str] | None = None) -> dict[str, Estimate]:
    """Metrics of the task (or those of ``names``) with intervals; empty without rows."""
    if len(labels) == 0:
        return {}
    return {name: _as_estimate(estimate(task, name, labels, predictions)) for name in names or METRICS[task]}


def estimates_by_version(task: Task, labelled: pl.DataFrame) -> dict[int, dict[str, Estimate]]:
    """Metrics of each version on the rows that it answered."""
    parts = labelled.partition_by("version", as_dict=True) if labelled["version"].n_unique() > 1 else {}
    return {int(key[0]): _estimates_of(task, part) for key, part in sorted(parts.items()) if key[0] is not None}


def estimates_by_slice(task: Task, labelled: pl.DataFrame, columns: Sequence[str]) -> dict[str, dict[str, Estimate]]:
    """The first metrics of the task by value of each column: ``{"origin=JFK": {...}}``; rare values are left out."""
    names = list(METRICS[task])[:N_SLICE_METRICS]
    found: dict[str, dict[str, Estimate]] = {}
    for column in columns:
        logged = next((name for name in (f"x_{column}", f"k_{column}") if name in labelled.columns), None)
        if logged is None:
            continue
        parts = labelled.partition_by(logged, as_dict=True)
        common = sorted(parts.items(), key=lambda item: (-item[1].height, str(item[0][0])))[:MAX_SLICES]
        for (value,), part in sorted(common, key=lambda item: str(item[0][0])):
            if part.height >= MIN_SLICE_ROWS:
                found[f"{column}={value}"] = estimates(task, labels_of(part), predictions_of(part), names)
    return found


def drift_of(rows: pl.DataFrame, baseline: Baseline) -> tuple[FeatureDrift, ...]:
    """Every profiled input, and last the prediction, against the baseline; p-values corrected over all of them."""
    profiles: Mapping[str, tuple[str, Profile]] = {
        **{name: (f"x_{name}", profile) for name, profile in baseline.columns.items()},
        **({PREDICTION: ("prediction", baseline.prediction)} if baseline.prediction is not None else {}),
    }
    compared = [
        _compare(name, profile, _counts(rows[column], profile))
        for name, (column, profile) in profiles.items()
        if column in rows.columns
    ]
    adjusted = benjamini_hochberg(np.array([one.p_value for one in compared], dtype=np.float64))
    return tuple(one.as_drift(float(p_value)) for one, p_value in zip(compared, adjusted, strict=True))


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One column against its baseline, before the correction for many columns. NaN where it cannot be had."""

    column: str
    psi: float
    distance: float
    p_value: float
    now: Counts
    baseline_null_rate: float
    baseline_outside_rate: float

    def as_drift(self, adjusted: float) -> FeatureDrift:
        return FeatureDrift(
            column=self.column,
            psi=_finite(self.psi),
            distance=_finite(self.distance),
            p_value=_finite(adjusted),
            null_rate=self.now.null_rate,
            baseline_null_rate=self.baseline_null_rate,
            outside_rate=max(0.0, self.now.outside_rate - self.baseline_outside_rate),
            is_drifted=policy.is_drifted(self.now.values, self.psi, adjusted),
        )


def _counts(values: pl.Series, profile: Profile) -> Counts:
    if isinstance(profile, NumericProfile):
        return count_numbers(profile, values.cast(pl.Float64).to_numpy())
    counted = values.cast(pl.String).value_counts()
    return count_categories(profile, dict(counted.iter_rows()))


def _compare(column: str, profile: Profile, now: Counts) -> _Comparison:
    base = of_baseline(profile)
    if isinstance(profile, CategoryProfile):
        cells = merged_categories(base.bins, now.bins)
        distance, p_value = jensen_shannon(*cells), chi_square_p_value(*cells)
    else:
        cells = merged_bins(base.bins, now.bins)
        distance = kolmogorov_smirnov(base.bins, now.bins)
        p_value = kolmogorov_smirnov_p_value(distance, base.values, now.values)
    psi = population_stability_index(*cells)
    return _Comparison(column, psi, distance, p_value, now, base.null_rate, base.outside_rate)


def _estimates_of(task: Task, part: pl.DataFrame) -> dict[str, Estimate]:
    return estimates(task, labels_of(part), predictions_of(part))


def _as_estimate(interval: Interval) -> Estimate:
    return Estimate(_finite(interval.value), _finite(interval.low), _finite(interval.high), interval.n)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
