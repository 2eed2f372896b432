from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from relevo.contract.model import Condition, Contract, Gate, Retrain, Task
from relevo.monitoring import policy
from relevo.monitoring.model import AlertKind, DueWindow, Estimate, FeatureDrift, Finding, Window, WindowState

BEGIN = datetime(2013, 4, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
WAIT = timedelta(hours=30)
PROVISIONAL, FINAL = WindowState.PROVISIONAL, WindowState.FINAL


def _due(watermark: datetime, recorded: dict[datetime, WindowState], wait: timedelta = WAIT) -> list[DueWindow]:
    return policy.due_windows(begins_at=BEGIN, length=WEEK, wait=wait, watermark=watermark, recorded=recorded)


def _week(number: int, state: WindowState) -> DueWindow:
    return DueWindow(BEGIN + number * WEEK, BEGIN + (number + 1) * WEEK, state)


def _drift(column: str = "speed", **changed: object) -> FeatureDrift:
    usual: dict[str, object] = {
        "column": column,
        "psi": 0.2,
        "distance": 0.3,
        "p_value": 0.001,
        "null_rate": 0.0,
        "baseline_null_rate": 0.0,
        "outside_rate": 0.0,
        "is_drifted": True,
    }
    return FeatureDrift(**{**usual, **changed})  # type: ignore[arg-type]


def _window(number: int = 0, auc: float = 0.8, width: float = 0.02, **changed: object) -> Window:
    metrics = {"roc_auc": Estimate(auc, auc - width, auc + width, 1000)}
    usual: dict[str, object] = {
        "endpoint": "delay",
        "start": BEGIN + number * WEEK,
        "end": BEGIN + (number + 1) * WEEK,
        "revision": 1,
        "state": FINAL,
        "predictions": 1000,
        "failed": 0,
        "labels": 1000,
        "no_outcome": 0,
        "label_coverage": 1.0,
        "label_mean": 0.3,
        "version": 1,
        "metrics": metrics,
        "by_version": {1: metrics},
        "slices": {},
        "reference": {"roc_auc": 0.8},
        "performance_drop": 0.8 - auc,
        "is_drop_significant": auc + width < 0.8,
        "drift": (_drift(is_drifted=False),),
        "drift_share": 0.0,
        "quality": (),
    }
    return Window(**{**usual, **changed})  # type: ignore[arg-type]


def _finding(contract: Contract, history: list[Window], kind: AlertKind) -> Finding:
    return next(finding for finding in policy.findings(contract, history) if finding.kind is kind)


def test_nothing_is_due_before_the_first_window_ends() -> None:
    assert _due(BEGIN + WEEK - timedelta(seconds=1), {}) == []


def test_a_window_is_provisional_at_its_end_and_final_when_labels_are_due() -> None:
    end = BEGIN + WEEK
    assert _due(end, {}) == [_week(0, PROVISIONAL)]
    assert _due(end + WAIT - timedelta(seconds=1), {end: PROVISIONAL}) == []
    assert _due(end + WAIT, {end: PROVISIONAL}) == [_week(0, FINAL)]
    assert _due(end + WAIT, {end: FINAL}) == []


def test_a_window_whose_final_time_passed_unseen_is_analysed_once_as_final() -> None:
    assert _due(BEGIN + 2 * WEEK, {}) == [_week(0, FINAL), _week(1, PROVISIONAL)]


def test_without_a_wait_for_labels_a_window_is_final_at_its_end() -> None:
    assert _due(BEGIN + WEEK, {}, wait=timedelta(0)) == [_week(0, FINAL)]


def test_windows_come_in_the_order_in_which_they_became_due() -> None:
    wait = 2 * WEEK  # final of the first comes after provisional of the second and third
    due = _due(BEGIN + 3 * WEEK, {BEGIN + WEEK: PROVISIONAL}, wait=wait)
    assert due == [_week(1, PROVISIONAL), _week(0, FINAL), _week(2, PROVISIONAL)]


def test_months_and_spans_cover_what_has_passed() -> None:
    months = policy.months(BEGIN + WEEK, datetime(2013, 6, 2, tzinfo=UTC))
    assert [start.month for start, _ in months] == [4, 5, 6]
    assert months[-1][1] == datetime(2013, 7, 1, tzinfo=UTC)
    assert policy.spans(BEGIN, BEGIN + WEEK + timedelta(hours=1), WEEK)[-1] == (BEGIN + WEEK, BEGIN + 2 * WEEK)


def test_the_same_evidence_keeps_its_revision_and_later_labels_make_a_new_one() -> None:
    recorded = _window(revision=4)
    assert policy.next_revision(None, recorded) == 1
    assert policy.next_revision(recorded, replace(recorded, revision=0)) == 4
    assert policy.next_revision(recorded, replace(recorded, labels=1001)) == 5
    assert policy.next_revision(replace(recorded, state=PROVISIONAL), recorded) == 5


@pytest.mark.parametrize(
    ("rows", "psi", "p_value", "expected"),
    [(1000, 0.2, 0.01, True), (499, 0.2, 0.01, False), (1000, 0.09, 0.01, False), (1000, 0.2, 0.06, False)],
)
def test_drift_needs_rows_and_effect_and_significance(rows: int, psi: float, p_value: float, expected: bool) -> None:
    assert policy.is_drifted(rows, psi, p_value) is expected
    assert not policy.is_drifted(rows, float("nan"), p_value)


def test_the_prediction_does_not_count_in_the_drift_share() -> None:
    assert policy.drift_share((_drift("a"), _drift("b", is_drifted=False), _drift("(prediction)"))) == 0.5
    assert policy.drift_share(()) == 0


def test_an_input_weighs_what_it_means_to_the_model() -> None:
    drift = (_drift("a"), _drift("b", is_drifted=False))
    assert policy.drift_share(drift, {"a": 0.1, "b": 0.3}) == pytest.approx(0.25)
    assert policy.drift_share(drift, {"a": -0.1, "b": 0.3}) == 0
    assert policy.drift_share(drift, {}) == 0.5


def test_a_drop_is_measured_against_the_holdout_with_the_interval(contract: Contract) -> None:
    metrics = {"roc_auc": Estimate(0.75, 0.72, 0.78, 900)}
    drop, is_significant = policy.performance_drop(contract, metrics, {"roc_auc": 0.8}, coverage=0.95)
    assert drop == pytest.approx(0.05) and is_significant
    drop, is_significant = policy.performance_drop(contract, metrics, {"roc_auc": 0.77}, coverage=0.95)
    assert drop == pytest.approx(0.02) and not is_significant


def test_an_error_that_grows_is_a_drop(contract: Contract) -> None:
    by_loss = replace(contract, gates=())
    metrics = {"log_loss": Estimate(0.6, 0.57, 0.63, 900)}
    assert policy.performance_drop(by_loss, metrics, {"log_loss": 0.5}, 1.0) == (pytest.approx(0.1), True)
    regression = replace(by_loss, task=Task.REGRESSION)
    assert policy.threshold_of_drop(regression, {"rmse": 40.0}) == pytest.approx(4)


@pytest.mark.parametrize(("n", "coverage"), [(499, 1.0), (900, 0.79)])
def test_there_is_no_verdict_on_few_rows_or_few_labels(contract: Contract, n: int, coverage: float) -> None:
    metrics = {"roc_auc": Estimate(0.5, 0.4, 0.6, n)}
    assert policy.performance_drop(contract, metrics, {"roc_auc": 0.8}, coverage) == (None, False)


def test_the_threshold_and_the_count_of_windows_come_from_the_retraining_rule(contract: Contract) -> None:
    strict = replace(contract, retrain=Retrain((Condition("performance_drop", 0.1),), (1, 1)))
    history = [_window(0, auc=0.75), _window(1, auc=0.75)]
    assert _finding(contract, history, AlertKind.PERFORMANCE).is_raised is True
    assert _finding(strict, history, AlertKind.PERFORMANCE).is_raised is False
    assert _finding(strict, [_window(0, auc=0.65)], AlertKind.PERFORMANCE).is_raised is True


def test_the_primary_metric_is_that_of_the_first_metric_gate(contract: Contract) -> None:
    assert policy.primary_metric(contract) == "roc_auc"
    assert policy.primary_metric(replace(contract, gates=(Gate(rule="true"),))) == "log_loss"


def test_one_bad_window_raises_nothing_and_two_of_three_do(contract: Contract) -> None:
    good, bad = _window(0), _window(1, auc=0.7)
    assert _finding(contract, [good, bad], AlertKind.PERFORMANCE).is_raised is None
    raised = _finding(contract, [good, bad, _window(2, auc=0.7)], AlertKind.PERFORMANCE)
    assert raised.is_raised is True
    assert "roc_auc of version 1 was 0.700 in the window to 2013-04-22, 0.800 on its holdout" in raised.message
    assert _finding(contract, [bad, _window(2), _window(3)], AlertKind.PERFORMANCE).is_raised is False


def test_provisional_windows_do_not_judge_performance(contract: Contract) -> None:
    history = [_window(0, auc=0.6), _window(1, auc=0.6, state=PROVISIONAL)]
    assert _finding(contract, history, AlertKind.PERFORMANCE).is_raised is None


def test_drift_needs_the_same_column_in_two_windows(contract: Contract) -> None:
    speed, origin = _window(0, drift=(_drift("speed"),)), _window(1, drift=(_drift("origin"),))
    assert _finding(contract, [speed, origin], AlertKind.DRIFT).is_raised is None
    lasting = _finding(contract, [speed, origin, _window(2, drift=(_drift("speed"),))], AlertKind.DRIFT)
    assert lasting.is_raised is True
    assert lasting.message == "Drift from the training data in 2 of 3 windows: speed."


def test_windows_with_few_rows_neither_raise_nor_resolve_drift(contract: Contract) -> None:
    few = [_window(n, predictions=100) for n in range(3)]
    assert _finding(contract, few, AlertKind.DRIFT).is_raised is None


def test_missing_labels_raise_an_alert_and_no_verdict(contract: Contract) -> None:
    window = _window(label_coverage=0.4, performance_drop=None)
    finding = _finding(contract, [window], AlertKind.LABELS)
    assert finding.is_raised is True
    assert "Labels are known for 40% of the window" in finding.message
    assert _finding(contract, [window], AlertKind.PERFORMANCE).is_raised is None


def test_a_model_without_event_time_is_not_asked_for_labels(contract: Contract) -> None:
    timeless = replace(contract, ask=replace(contract.ask, at=None))
    assert _finding(timeless, [_window(label_coverage=0.0)], AlertKind.LABELS).is_raised is None


def test_quality_findings_name_the_column_and_both_rates() -> None:
    drift = (
        _drift("speed", null_rate=0.2, baseline_null_rate=0.01),
        _drift("origin", outside_rate=0.1),
        _drift("hour", null_rate=0.01, baseline_null_rate=0.01),
        _drift("(prediction)", outside_rate=0.5),
    )
    assert policy.quality_findings(drift, predictions=1000, failed=20, error_rate=0.001) == [
        "speed: 20.0% null, 1.0% in the baseline",
        "origin: 10.0% of the values were never seen in training",
        "20 of 1020 failed, 0.10% are allowed",
    ]
    assert policy.quality_findings((), 0, 0, 0.001) == ["no predictions were made"]


def test_a_rate_that_may_be_chance_is_no_finding() -> None:
    drift = (_drift("speed", null_rate=0.06, baseline_null_rate=0.01),)
    assert policy.quality_findings(drift, predictions=50, failed=0, error_rate=0.001) == []
    assert policy.quality_findings(drift, predictions=5000, failed=1, error_rate=0.001) != []


def test_one_mistyped_request_of_a_quiet_window_is_no_alarm() -> None:
    assert not policy.is_failing(predictions=0, failed=1, error_rate=0.001)
    assert policy.is_failing(predictions=900, failed=100, error_rate=0.001)
