"""What one window, or one longer period, shows: the rows of the log put together with what the version promised."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from relevo.contract.model import Contract
from relevo.monitoring import analysis, policy
from relevo.monitoring.analysis import Rows
from relevo.monitoring.model import DueWindow, Period, Reference, Window
from relevo.statistics.metrics import Array


def observe_window(contract: Contract, rows: Rows, reference: Reference | None, window: DueWindow) -> Window:
    """The window without its revision (0): metrics, drift, quality and the drop against the holdout.

    Args:
        contract: Says the task, the slices and the failures that are allowed.
        rows: What was logged in it.
        reference: Of the version that answered the most rows; None when none did.
        window: Its times and state.
    """
    labelled = rows.labelled
    labels, predictions = analysis.labels_of(labelled), analysis.predictions_of(labelled)
    metrics = analysis.estimates(contract.task, labels, predictions)
    by_version = analysis.estimates_by_version(contract.task, labelled)
    if not by_version and metrics and rows.version is not None:
        by_version = {rows.version: metrics}
    holdout = reference.metrics if reference else {}
    of_version = by_version.get(rows.version or 0, {})
    drop, is_significant = policy.performance_drop(contract, of_version, holdout, rows.label_coverage)
    drift = analysis.drift_of(rows.answered, reference.baseline) if reference else ()
    error_rate = contract.release.slo.error_rate
    return Window(
        endpoint=contract.model,
        start=window.start,
        end=window.end,
        revision=0,
        state=window.state,
        predictions=rows.answered.height,
        failed=rows.failed,
        labels=len(labels),
        no_outcome=rows.no_outcome,
        label_coverage=rows.label_coverage,
        label_mean=_label_mean(labels, predictions),
        version=rows.version,
        metrics=metrics,
        by_version=by_version,
        slices=analysis.estimates_by_slice(contract.task, labelled, contract.monitor.slices),
        reference=holdout,
        performance_drop=drop,
        is_drop_significant=is_significant,
        drift=drift,
        drift_share=policy.drift_share(drift, reference.importances if reference else None),
        quality=tuple(
            policy.quality_findings(drift, rows.answered.height, rows.failed, error_rate, rows.answered_in_all)
        ),
        sampled_share=rows.sampled_share,
    )


def observe_period(
    contract: Contract,
    rows: Rows,
    reference: Reference | None,
    rescored: Array | None,
    start: datetime,
    end: datetime,
) -> Period:
    """Performance of what was live and, given its predictions for the labelled rows, of another version."""
    labelled = rows.labelled
    labels, predictions = analysis.labels_of(labelled), analysis.predictions_of(labelled)
    drift = analysis.drift_of(rows.answered, reference.baseline) if reference else ()
    return Period(
        start=start,
        end=end,
        predictions=rows.answered.height,
        failed=rows.failed,
        labels=len(labels),
        label_coverage=rows.label_coverage,
        label_mean=_label_mean(labels, predictions),
        by_version=rows.by_version(),
        metrics=analysis.estimates(contract.task, labels, predictions),
        rescored={} if rescored is None else analysis.estimates(contract.task, labels, rescored),
        drift_share=policy.drift_share(drift, reference.importances if reference else None),
    )


def _label_mean(labels: Array, predictions: Array) -> float | None:
    return float(np.mean(labels)) if len(labels) and predictions.ndim == 1 else None
