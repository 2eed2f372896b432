"""Pure decisions: which windows are due, what counts as drift or as worse, and when an alert is raised.

False alarms are the disease of monitoring, so each verdict needs significance, an effect that matters, and enough
rows; and an alert needs that verdict in ``k`` of ``n`` windows, and is resolved only after ``k`` clear ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from relevo.contract.model import Contract, Task
from relevo.monitoring.model import (
    PREDICTION,
    AlertKind,
    DueWindow,
    Estimate,
    FeatureDrift,
    Finding,
    Severity,
    Window,
    WindowState,
)
from relevo.statistics.intervals import wilson
from relevo.statistics.metrics import METRICS

MIN_ROWS = 500
MIN_PSI = 0.1
ALPHA = 0.05
MIN_COVERAGE = 0.8
#: A rate (nulls, unseen values) must be higher than the baseline's by this much, beyond its confidence interval.
RATE_MARGIN = 0.02
#: What performance is followed by when no gate names a metric.
DEFAULT_METRIC = {Task.CLASSIFICATION: "log_loss", Task.REGRESSION: "rmse"}
#: A drop that asks for attention when the contract's rule names none: of a classifier's metric, all between 0 and
#: about 1; of a regression's, whose unit is the label's, as a share of the holdout's value.
CLASSIFICATION_DROP = 0.02
REGRESSION_DROP = 0.1
#: Below it one mistyped request of a quiet day would raise the alarm.
FEWEST_REQUESTS = 20
HYSTERESIS = (2, 3)


def first_window(live_at: datetime, length: timedelta) -> datetime:
    """Where an endpoint's windows begin: at the UTC midnight at or before it was first live.

    Windows shorter than a day begin later on that day's grid, so that none ends before the endpoint was live.

    >>> live_at = datetime(2013, 4, 1, 9, 30, tzinfo=UTC)
    >>> [f"{first_window(live_at, length):%d %H:%M}" for length in (timedelta(days=7), timedelta(hours=2))]
    ['01 00:00', '01 08:00']
    """
    midnight = first_day(live_at)
    return midnight + (live_at - midnight) // length * length


def first_day(at: datetime) -> datetime:
    """The UTC midnight at or before ``at``.

    >>> first_day(datetime(2013, 4, 1, 9, 30, tzinfo=UTC)).isoformat()
    '2013-04-01T00:00:00+00:00'
    """
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def label_wait(contract: Contract) -> timedelta:
    """How long after a window's end its labels are waited for."""
    return contract.label.available_after + contract.label.allowance


def due_windows(
    *,
    begins_at: datetime,
    length: timedelta,
    wait: timedelta,
    watermark: datetime,
    recorded: Mapping[datetime, WindowState],
) -> list[DueWindow]:
    """The windows to analyse now, in the order in which they became due.

    A window is provisional from its end on, and final from ``wait`` later on. One whose final time has come without a
    provisional analysis (the platform was down, or there is nothing to wait for) is analysed once, as final.

    Args:
        begins_at: Start of the endpoint's first window.
        length: Of a window.
        wait: For labels, after a window's end.
        watermark: The endpoint's event time.
        recorded: Last recorded state by window end.
    """
    due: list[tuple[datetime, DueWindow]] = []
    for start in _starts(begins_at, length, watermark):
        end = start + length
        state = recorded.get(end)
        if state is not WindowState.FINAL and end + wait <= watermark:
            due.append((end + wait, DueWindow(start, end, WindowState.FINAL)))
        elif state is None:
            due.append((end, DueWindow(start, end, WindowState.PROVISIONAL)))
    return [window for _, window in sorted(due)]


def spans(begins_at: datetime, until: datetime, length: timedelta) -> list[tuple[datetime, datetime]]:
    """Periods of one length from ``begins_at`` on; the last one holds ``until``, or ends there."""
    starts = [begins_at]
    while starts[-1] + length < until:
        starts.append(starts[-1] + length)
    return [(start, start + length) for start in starts]


def months(begins_at: datetime, until: datetime) -> list[tuple[datetime, datetime]]:
    """The calendar months (UTC) from that of ``begins_at`` to that of ``until``.

    >>> november, january = datetime(2013, 11, 9, tzinfo=UTC), datetime(2014, 1, 1, 5, tzinfo=UTC)
    >>> [f"{start:%m-%d}" for start, _ in months(november, january)]
    ['11-01', '12-01', '01-01']
    """
    starts = [first_day(begins_at).replace(day=1)]
    while starts[-1] < until:
        starts.append((starts[-1] + timedelta(days=32)).replace(day=1))
    return list(pairwise(starts))


def next_revision(latest: Window | None, found: Window) -> int:
    """The revision of what was found: the latest one when nothing has changed since, else one more."""
    if latest is None:
        return 1
    is_same = latest.state == found.state and _evidence(latest) == _evidence(found)
    return latest.revision if is_same else latest.revision + 1


def is_drifted(rows: int, psi: float, adjusted_p_value: float) -> bool:
    """Whether a column's change is significant, large, and seen on enough rows. NaN is no drift."""
    return rows >= MIN_ROWS and psi > MIN_PSI and adjusted_p_value < ALPHA


def drift_share(drift: Sequence[FeatureDrift], importances: Mapping[str, float] | None = None) -> float:
    """Share of the inputs that drifted; the prediction itself does not count. 0 without inputs.

    With importances (not negative) an input weighs what it means to the model, else all weigh the same.
    """
    inputs = [column for column in drift if column.column != PREDICTION]
    weights = [max(0.0, (importances or {}).get(column.column, 0.0)) for column in inputs]
    if not sum(weights):
        weights = [1.0] * len(inputs)
    drifted = sum(weight for column, weight in zip(inputs, weights, strict=True) if column.is_drifted)
    return drifted / sum(weights) if inputs else 0.0


def primary_metric(contract: Contract) -> str:
    """The metric that performance is followed by: that of the contract's first metric gate, else the task's default."""
    named = (gate.metric for gate in contract.gates if gate.metric is not None)
    return next(named, DEFAULT_METRIC[contract.task])


def performance_drop(
    contract: Contract, metrics: Mapping[str, Estimate], reference: Mapping[str, float], coverage: float
) -> tuple[float | None, bool]:
    """How much worse the primary metric is than on the holdout, and whether the interval excludes "not worse".

    ``(None, False)``, no verdict, with fewer than 500 labelled rows or too few of the labels: those that come first are
    not like the others. The holdout's own uncertainty is not counted.
    """
    name = primary_metric(contract)
    estimate, holdout = metrics.get(name), reference.get(name)
    if estimate is None or estimate.value is None or holdout is None:
        return None, False
    if coverage < MIN_COVERAGE or estimate.n < MIN_ROWS:
        return None, False
    if METRICS[contract.task][name].greater_is_better:
        return holdout - estimate.value, estimate.high is not None and estimate.high < holdout
    return estimate.value - holdout, estimate.low is not None and estimate.low > holdout


def threshold_of_drop(contract: Contract, reference: Mapping[str, float]) -> float:
    """The drop that asks for attention: what the contract's retraining rule names, else a default of the task."""
    conditions = contract.retrain.any_of if contract.retrain else ()
    named = [condition.threshold for condition in conditions if condition.kind == "performance_drop"]
    if named and isinstance(named[0], float | int):
        return float(named[0])
    if contract.task is Task.CLASSIFICATION:
        return CLASSIFICATION_DROP
    return REGRESSION_DROP * abs(reference.get(primary_metric(contract), 0.0))


def is_performance_dropped(contract: Contract, window: Window) -> bool | None:
    """Whether a final window is worse than the holdout by the threshold and by more than chance; None: no verdict."""
    if window.state is not WindowState.FINAL or window.performance_drop is None:
        return None
    return window.is_drop_significant and window.performance_drop >= threshold_of_drop(contract, window.reference)


def quality_findings(
    drift: Sequence[FeatureDrift],
    predictions: int,
    failed: int,
    error_rate: float,
    answered: int | None = None,
) -> list[str]:
    """What is wrong with the data itself, in plain words: nulls, values never seen, failed requests, silence.

    Args:
        drift: Columns against their baseline; their rates are of ``predictions`` rows.
        predictions: Rows answered that were logged.
        failed: Requests and rows that were not.
        error_rate: The share of failures that the contract allows.
        answered: Rows answered, when the log keeps a sample of them; None: ``predictions``.
    """
    answered = predictions if answered is None else answered
    findings = [] if predictions + failed else ["no predictions were made"]
    for column in drift:
        if column.column == PREDICTION:
            continue
        if _is_above(column.null_rate, predictions, column.baseline_null_rate + RATE_MARGIN):
            findings.append(
                f"{column.column}: {column.null_rate:.1%} null, {column.baseline_null_rate:.1%} in the baseline"
            )
        if _is_above(column.outside_rate, predictions, RATE_MARGIN):
            findings.append(f"{column.column}: {column.outside_rate:.1%} of the values were never seen in training")
    if is_failing(answered, failed, error_rate):
        findings.append(f"{failed} of {answered + failed} failed, {error_rate:.2%} are allowed")
    return findings


def is_failing(predictions: int, failed: int, error_rate: float) -> bool:
    """Whether more fails than ``error_rate`` allows, beyond chance, and of enough requests to call for a person."""
    requests = predictions + failed
    return requests >= FEWEST_REQUESTS and _is_above(failed / requests, requests, error_rate)


def findings(contract: Contract, history: Sequence[Window]) -> list[Finding]:
    """What to raise and what to resolve, given the last revision of each window, the oldest first.

    Drift and performance need ``k`` of the last ``n`` windows with a verdict; the others speak for the last window.
    """
    if not history:
        return []
    final = [window for window in history if window.state is WindowState.FINAL]
    last = history[-1]
    found = [_drift_finding(history), _quality_finding(last), _failures_finding(contract, last)]
    if final:
        found += [_performance_finding(contract, final), _labels_finding(contract, final[-1])]
    return found


def hysteresis(verdicts: Sequence[bool | None], k: int, n: int) -> bool | None:
    """True when ``k`` of the last ``n`` verdicts are bad, False when the last ``k`` are all good, else None.

    Windows without a verdict (None) are left out: they neither raise nor resolve.

    >>> hysteresis([True, None, False, True], 2, 3), hysteresis([True, False, False], 2, 3), hysteresis([True], 2, 3)
    (True, False, None)
    """
    given = [verdict for verdict in verdicts if verdict is not None]
    if sum(given[-n:]) >= k:
        return True
    return False if len(given) >= k and not any(given[-k:]) else None


def freshness_finding(stale: Sequence[str], is_raised: bool | None) -> Finding:
    """The finding about views whose newest rows are too old; each of ``stale`` names one, its limit, its newest row."""
    message = f"Stale features: {'; '.join(stale)}."
    return Finding(AlertKind.FRESHNESS, Severity.WARNING, is_raised, message)


def _starts(begins_at: datetime, length: timedelta, watermark: datetime) -> Iterator[datetime]:
    start = begins_at
    while start + length <= watermark:
        yield start
        start += length


def _evidence(window: Window) -> tuple[object, ...]:
    return (window.predictions, window.failed, window.labels, window.no_outcome, window.version, window.metrics)


def _is_above(rate: float, n: int, bound: float) -> bool:
    return n > 0 and wilson(round(rate * n), n).low > bound


def _drift_finding(history: Sequence[Window]) -> Finding:
    k, n = HYSTERESIS
    judged = [{c.column for c in window.drift if c.is_drifted} for window in history if _has_verdict(window)]
    lasting = sorted(
        column
        for column in set().union(*judged[-n:])
        if hysteresis([column in window for window in judged], k, n)  # one column in k windows, not k columns in one
    )
    is_clear = hysteresis([bool(window) for window in judged], k, n) is False
    message = f"Drift from the training data in {k} of {n} windows: {', '.join(lasting)}."
    return Finding(AlertKind.DRIFT, Severity.WARNING, True if lasting else False if is_clear else None, message)


def _has_verdict(window: Window) -> bool:
    return window.predictions >= MIN_ROWS and bool(window.drift)


def _quality_finding(last: Window) -> Finding:
    message = f"Data quality, window to {last.end:%Y-%m-%d %H:%M}: {'; '.join(last.quality)}."
    return Finding(AlertKind.QUALITY, Severity.WARNING, bool(last.quality), message)


def _failures_finding(contract: Contract, last: Window) -> Finding:
    allowed = contract.release.slo.error_rate
    message = f"{last.failed} of {last.answered + last.failed} requests failed, {allowed:.2%} are allowed."
    is_raised = is_failing(last.answered, last.failed, allowed)
    return Finding(AlertKind.FAILURES, Severity.CRITICAL, is_raised, message)


def _performance_finding(contract: Contract, final: Sequence[Window]) -> Finding:
    k, n = contract.retrain.windows if contract.retrain else HYSTERESIS
    verdicts = [is_performance_dropped(contract, window) for window in final]
    judged = [window for window, verdict in zip(final, verdicts, strict=True) if verdict is not None]
    message = _drop_in_words(primary_metric(contract), judged[-1], k, n) if judged else ""
    return Finding(AlertKind.PERFORMANCE, Severity.CRITICAL, hysteresis(verdicts, k, n), message)


def _drop_in_words(metric: str, window: Window, k: int, n: int) -> str:
    now = window.by_version[window.version or 0][metric].value
    return (
        f"{metric} of version {window.version} was {now:.3f} in the window to {window.end:%Y-%m-%d}, "
        f"{window.reference[metric]:.3f} on its holdout; it was clearly worse in {k} of {n} windows."
    )


def _labels_finding(contract: Contract, last: Window) -> Finding:
    # Without an asked time the platform cannot know when a label is due, so none is missing.
    is_expected = contract.ask.at is not None and last.predictions > 0
    message = (
        f"Labels are known for {last.label_coverage:.0%} of the window to {last.end:%Y-%m-%d}, "
        f"{MIN_COVERAGE:.0%} are needed: there is no verdict on performance."
    )
    is_raised = last.label_coverage < MIN_COVERAGE if is_expected else None
    return Finding(AlertKind.LABELS, Severity.WARNING, is_raised, message)
