"""A simulated endpoint on real tables: windows, their revisions, alerts, and periods."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from relevo.contract.model import Task
from relevo.errors import Conflict, NotFound
from relevo.identity.model import Principal, Role
from relevo.monitoring.analysis import read_inputs, read_rows
from relevo.monitoring.model import AlertKind, DueWindow, WindowState
from relevo.monitoring.observation import observe_window
from relevo.serving.model import LogLosses

BEGIN = datetime(2013, 4, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
WAIT = timedelta(hours=30)
ENDPOINT = "delay"
ADA = Principal("ada", Role.ENGINEER)
FINAL, PROVISIONAL = WindowState.FINAL, WindowState.PROVISIONAL

World = Any
Traffic = Any


def _kinds(world: World) -> set[AlertKind]:
    return {alert.kind for alert in world.monitoring.alerts(open_only=True)}


def test_a_window_is_provisional_and_then_final_with_every_label(world: World, traffic: Traffic) -> None:
    world.send(0, traffic(known_after=timedelta(hours=20)))
    assert world.monitoring.begins_at(ENDPOINT) == BEGIN
    (provisional,) = world.watch(BEGIN + WEEK)
    assert (provisional.state, provisional.revision, provisional.predictions) == (PROVISIONAL, 1, 1000)
    assert 800 < provisional.labels < 1000
    assert world.watch(BEGIN + WEEK + WAIT - timedelta(hours=1)) == []
    (final,) = world.watch(BEGIN + WEEK + WAIT)
    assert (final.state, final.revision, final.labels, final.label_coverage) == (FINAL, 2, 1000, 1.0)
    assert world.monitoring.windows(ENDPOINT) == [final]
    assert [one.state for one in world.monitoring.revisions(ENDPOINT, final.end)] == [PROVISIONAL, FINAL]
    assert world.monitoring.window(ENDPOINT, final.end) == final


def test_labels_that_come_late_and_are_bad_bias_the_provisional_window(local_world: World, traffic: Traffic) -> None:
    rows = local_world.send(0, traffic(labelled=0.0))
    asked = rows.filter(rows["status"] == "ok").select("prediction_id", "asked_at", "x_hour")
    local_world.label(
        [
            # what is late is known a day later, as with flights
            (id_, float(hour > 14), asked_at + timedelta(hours=24 if hour > 14 else 2))
            for id_, asked_at, hour in asked.iter_rows()
        ]
    )
    (provisional,) = local_world.watch(BEGIN + WEEK)
    (final,) = local_world.watch(BEGIN + WEEK + WAIT)
    assert provisional.label_mean < final.label_mean
    assert final.label_coverage == 1


def test_analysing_and_recording_again_changes_nothing(world: World) -> None:
    world.send(0)
    (final,) = world.watch(BEGIN + WEEK + WAIT)
    again = world.monitoring.analyse(ENDPOINT, final.start, final.end, FINAL)
    assert again == final
    with world.state.transaction() as tx:
        assert world.monitoring.record(tx, again) is False
    assert world.monitoring.revise(ENDPOINT) == []
    assert len(world.monitoring.revisions(ENDPOINT, final.end)) == 1


def test_labels_and_corrections_after_the_final_time_make_a_new_revision(local_world: World, traffic: Traffic) -> None:
    rows = local_world.send(0, traffic(labelled=0.9))
    (final,) = local_world.watch(BEGIN + WEEK + WAIT)
    labelled = final.labels
    unlabelled = [id_ for id_ in rows["prediction_id"].to_list() if id_]
    local_world.label([(unlabelled[0], None, final.end)], revision=2)
    (revised,) = local_world.monitoring.revise(ENDPOINT)
    assert revised.revision == final.revision + 1
    assert revised.no_outcome == 1
    assert revised.labels in (labelled, labelled - 1)
    with local_world.state.transaction() as tx:
        assert local_world.monitoring.record(tx, revised)
    assert local_world.monitoring.windows(ENDPOINT) == [revised]
    assert local_world.monitoring.revise(ENDPOINT) == []


def test_metrics_slices_and_reference_are_those_of_the_version_that_answered(local_world: World) -> None:
    local_world.send(0)
    (final,) = local_world.watch(BEGIN + WEEK + WAIT)
    auc = final.metrics["roc_auc"]
    assert final.version == 1
    assert final.by_version == {1: final.metrics}
    assert final.reference == {"roc_auc": 0.8, "log_loss": 0.5}
    assert auc.low < auc.value < auc.high and auc.n == 1000
    assert set(final.slices) == {"origin=EWR", "origin=JFK", "origin=LGA"}
    assert sum(slice_["roc_auc"].n for slice_ in final.slices.values()) == 1000
    assert set(final.slices["origin=EWR"]) == {"roc_auc", "log_loss"}
    assert [column.column for column in final.drift] == ["hour", "speed", "origin", "(prediction)"]
    assert final.drift_share == 0 and final.quality == ()


def test_two_versions_of_a_canary_are_measured_apart(local_world: World, traffic: Traffic) -> None:
    local_world.send(0, traffic(rows=900))
    local_world.send(0, traffic(rows=300, version=2, skill=0.0))
    (final,) = local_world.watch(BEGIN + WEEK + WAIT)
    assert final.version == 1
    assert final.by_version[1]["roc_auc"].value > 0.7 > final.by_version[2]["roc_auc"].value
    assert final.metrics["roc_auc"].n == 1200


def test_healthy_weeks_raise_no_alert(local_world: World) -> None:
    for week in range(6):
        local_world.send(week)
    windows = local_world.watch(BEGIN + 7 * WEEK)
    assert [window.state for window in windows].count(FINAL) == 6
    assert _kinds(local_world) <= {AlertKind.QUALITY}  # the seventh week has no traffic


def test_lasting_drift_raises_one_alert_that_recovery_resolves(world: World, traffic: Traffic) -> None:
    for week, shift in enumerate((0, 1, 1, 1, 0, 0)):
        world.send(week, traffic(shift=shift))
    world.watch(BEGIN + 2 * WEEK + WAIT)
    assert AlertKind.DRIFT not in _kinds(world)
    world.watch(BEGIN + 4 * WEEK)
    assert AlertKind.DRIFT in _kinds(world)
    (drift,) = [alert for alert in world.monitoring.alerts() if alert.kind is AlertKind.DRIFT]
    assert "speed" in drift.message and drift.event_at == BEGIN + 3 * WEEK
    world.watch(BEGIN + 6 * WEEK)
    assert AlertKind.DRIFT not in _kinds(world)
    actions = [(entry.action, entry.subject) for entry in world.ledger.entries() if entry.facts.get("kind") == "drift"]
    assert actions == [("alert resolved", ENDPOINT), ("alert raised", ENDPOINT)]
    assert world.ledger.verify() >= 2


def test_a_model_that_gets_worse_raises_a_critical_alert(local_world: World, traffic: Traffic) -> None:
    for week, skill in enumerate((1.5, 0.3, 0.3)):
        local_world.send(week, traffic(skill=skill))
    windows = local_world.watch(BEGIN + 3 * WEEK + WAIT)
    final = [window for window in windows if window.state is FINAL]
    assert [window.is_drop_significant for window in final] == [False, True, True]
    assert final[-1].performance_drop > 0.1
    assert AlertKind.PERFORMANCE in _kinds(local_world)


def test_missing_labels_are_an_alert_and_no_verdict(local_world: World, traffic: Traffic) -> None:
    local_world.send(0, traffic(labelled=0.5, skill=0.0))
    (final,) = local_world.watch(BEGIN + WEEK + WAIT)
    assert final.performance_drop is None
    assert _kinds(local_world) == {AlertKind.LABELS}


def test_nulls_and_failures_are_findings_and_alerts(local_world: World, traffic: Traffic) -> None:
    local_world.send(0, traffic(nulls=0.2, failed=30))
    (provisional,) = local_world.watch(BEGIN + WEEK)
    assert provisional.failed == 30 and provisional.predictions == 1000
    assert len(provisional.quality) == 2
    assert _kinds(local_world) == {AlertKind.QUALITY, AlertKind.FAILURES}


def test_a_window_without_traffic_is_recorded_and_says_so(local_world: World) -> None:
    (final,) = local_world.watch(BEGIN + WEEK + WAIT)
    assert (final.predictions, final.labels, final.version, final.metrics) == (0, 0, None, {})
    assert final.quality == ("no predictions were made",)


def test_a_version_whose_inputs_were_not_logged_cannot_be_asked_again(local_world: World) -> None:
    rows = local_world.send(0)
    with pytest.raises(Conflict, match="they have no input altitude"):
        read_inputs(rows, ["speed", "altitude"])


def test_an_endpoint_without_a_route_has_no_windows(local_world: World) -> None:
    assert local_world.monitoring.due("other") == []
    with pytest.raises(NotFound):
        local_world.monitoring.window(ENDPOINT, BEGIN)


def test_an_alert_is_resolved_by_hand_once(world: World, traffic: Traffic) -> None:
    world.send(0, traffic(labelled=0.1))
    world.watch(BEGIN + WEEK + WAIT)
    (alert,) = world.monitoring.alerts(open_only=True)
    with world.state.transaction() as tx:
        resolved = world.monitoring.resolve_alert(tx, alert.id, ADA, "the feed is down")
    assert resolved.resolved_at is not None
    assert world.monitoring.alerts(open_only=True) == []
    assert world.monitoring.alerts()[0] == resolved
    entry = world.ledger.entries()[0]
    assert (entry.action, entry.actor, entry.reason) == ("alert resolved", "ada", "the feed is down")
    with world.state.transaction() as tx, pytest.raises(Conflict, match="was resolved at"):
        world.monitoring.resolve_alert(tx, alert.id, ADA)
    with world.state.transaction() as tx, pytest.raises(NotFound, match="no alert 999"):
        world.monitoring.resolve_alert(tx, 999, ADA)


def test_a_repeated_release_alert_is_raised_once_and_another_release_s_takes_its_place(world: World) -> None:
    for text in ("first", "first", "second"):
        world.monitoring.report_release(ENDPOINT, text)
    assert [alert.message for alert in world.monitoring.alerts(open_only=True)] == ["second"]
    assert [alert.message for alert in world.monitoring.alerts()] == ["second", "first"]


def test_a_release_that_goes_live_resolves_the_alert_of_one_that_failed(world: World) -> None:
    world.monitoring.report_live(ENDPOINT, "r1")  # nothing is open: nothing is written
    world.monitoring.report_release(ENDPOINT, "Release r2 failed")
    for _ in range(2):
        world.monitoring.report_live(ENDPOINT, "r3")
    assert world.monitoring.alerts(open_only=True) == []
    entries = [(entry.action, entry.actor, entry.reason) for entry in world.ledger.entries(limit=2)]
    assert entries == [
        ("alert resolved", "relevo", "release r3 went live"),
        ("alert raised", "relevo", "Release r2 failed"),
    ]


def test_periods_compare_what_was_live_with_a_version_left_alone(local_world: World, traffic: Traffic) -> None:
    local_world.seal(9, weight=0.0)
    for week in range(5):
        local_world.send(week, traffic(shift=1.0 if week == 4 else 0.0))
    local_world.advance(BEGIN + 6 * WEEK)
    months = [(BEGIN, datetime(2013, 5, 1, tzinfo=UTC)), (datetime(2013, 5, 1, tzinfo=UTC), BEGIN + 6 * WEEK)]
    april, may = local_world.monitoring.performance_by_period(ENDPOINT, months, version=9)
    assert april.predictions + may.predictions == 5000
    assert april.by_version == {1: april.predictions}
    assert april.metrics["roc_auc"].value > 0.7
    assert april.rescored["roc_auc"].value == pytest.approx(0.5)
    assert (april.drift_share, may.drift_share) == (0, 0.25)
    same = local_world.monitoring.performance_by_period(ENDPOINT, months, version=1)
    assert same[0].rescored["roc_auc"].value == pytest.approx(same[0].metrics["roc_auc"].value)
    assert same[0].rescored["log_loss"].value == pytest.approx(same[0].metrics["log_loss"].value)
    assert local_world.monitoring.performance_by_period(ENDPOINT, months)[0].rescored == {}


def test_a_regression_is_followed_by_its_error(local_world: World, traffic: Traffic, contract: Any) -> None:
    local_world.apply(replace(contract, task=Task.REGRESSION, gates=()))
    local_world.seal(2, metrics={"rmse": 0.1})
    local_world.send(0, traffic(version=2))
    (final,) = local_world.watch(BEGIN + WEEK + WAIT)
    assert set(final.metrics) == {"rmse", "mae", "r2"}
    assert final.performance_drop > 0.2 and final.is_drop_significant


def test_failing_and_stale_features_raise_alerts_of_their_own_and_a_quiet_look_writes_nothing(
    local_world: World,
) -> None:
    monitoring = local_world.monitoring
    monitoring.report_features(ENDPOINT, None)
    monitoring.report_freshness(ENDPOINT, [])
    assert monitoring.alerts() == []
    monitoring.report_features(ENDPOINT, "the warehouse is closed")
    monitoring.report_freshness(ENDPOINT, ["weather, no row yet, allowed age 3h"])
    assert _kinds(local_world) == {AlertKind.FEATURES}
    monitoring.report_freshness(ENDPOINT, ["weather, no row yet, allowed age 3h"])
    messages = {alert.kind: alert.message for alert in monitoring.alerts(open_only=True)}
    assert messages[AlertKind.FRESHNESS] == "Stale features: weather, no row yet, allowed age 3h."
    assert "could not be brought up to date: the warehouse is closed" in messages[AlertKind.FEATURES]
    for _ in range(3):
        monitoring.report_features(ENDPOINT, None)
        monitoring.report_freshness(ENDPOINT, [])
    assert _kinds(local_world) == set()


def test_what_the_log_did_not_take_is_an_alert_that_says_how_many_and_why(local_world: World) -> None:
    monitoring = local_world.monitoring
    before = LogLosses(missed_rows=2)
    lost = LogLosses(1_202, 3, "No space left on device").since(before)
    monitoring.report_log(ENDPOINT, lost)
    (alert,) = monitoring.alerts(open_only=True)
    assert alert.kind is AlertKind.LOG
    assert "1,200 answered rows" in alert.message
    assert "3 requests" in alert.message
    assert "No space left on device" in alert.message
    for _ in range(3):
        monitoring.report_log(ENDPOINT, LogLosses(1_202, 3).since(LogLosses(1_202, 3)))
    assert _kinds(local_world) == set()


def test_a_window_of_a_sampled_log_says_its_share_and_weighs_failures_by_it(
    local_world: World, traffic: Traffic, contract: Any
) -> None:
    rows = traffic()
    local_world.send(0, rows)
    whole = local_world.monitoring.analyse(ENDPOINT, BEGIN, BEGIN + WEEK, WindowState.FINAL)
    assert (whole.sampled_share, whole.answered) == (1.0, whole.predictions)
    log = local_world.monitoring._log.window(ENDPOINT, BEGIN, BEGIN + WEEK)
    sampled = observe_window(
        contract,
        read_rows(log.with_columns(sample=pl.lit(0.1))),
        None,
        DueWindow(BEGIN, BEGIN + WEEK, WindowState.FINAL),
    )
    assert sampled.sampled_share == pytest.approx(0.1)
    assert sampled.answered == 10 * whole.predictions
