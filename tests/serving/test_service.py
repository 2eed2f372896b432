"""Endpoints, placements and routes, on SQLite and PostgreSQL."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from relevo.errors import Conflict, Invalid, NotFound, Unavailable
from relevo.platform.settings import Settings
from relevo.platform.state import State
from relevo.serving import heartbeats
from relevo.serving.model import Arm, Counters, EndpointSettings, Heartbeat, LabelCounters, Route
from relevo.serving.service import Serving

NOW = datetime(2013, 4, 1, tzinfo=UTC)


@pytest.fixture
def serving(state: State, tmp_path: Path) -> Serving:
    return Serving(state, Settings(home=tmp_path / "home"))


@pytest.fixture
def placed(state: State, serving: Serving) -> Serving:
    with state.transaction() as tx:
        serving.ensure_endpoint(tx, "flight-delay")
        for version in (1, 2, 3):
            serving.place(tx, "flight-delay", version, f"bundle-{version}")
    return serving


def route(state: State, serving: Serving, *arms: Arm, at: datetime = NOW, once: tuple[str, str] | None = None) -> Route:
    with state.transaction() as tx:
        return serving.set_route(
            tx, "flight-delay", arms, reason="test", set_by="ada", effective_event_at=at, once=once
        )


def test_endpoints_keep_their_numbers_and_take_new_settings(state: State, serving: Serving) -> None:
    with state.transaction() as tx:
        first = serving.ensure_endpoint(tx, "flight-delay")
        second = serving.ensure_endpoint(tx, "churn", EndpointSettings(log="buffered"))
        again = serving.ensure_endpoint(tx, "flight-delay", EndpointSettings(log="buffered"))
    assert (first.number, second.number, again.number) == (1, 2, 1)
    assert serving.endpoint("flight-delay").settings.log == "buffered"
    assert [endpoint.name for endpoint in serving.endpoints()] == ["churn", "flight-delay"]


def test_an_unknown_endpoint_is_answered_with_the_nearest(placed: Serving) -> None:
    with pytest.raises(NotFound) as caught:
        placed.endpoint("flight-dely")
    assert caught.value.hint == "Did you mean 'flight-delay'?"


def test_revisions_count_up_and_the_last_is_in_force(state: State, placed: Serving) -> None:
    assert placed.current_route("flight-delay") is None
    route(state, placed, Arm(1, 100))
    route(state, placed, Arm(1, 95), Arm(2, 5))
    current = placed.current_route("flight-delay")
    assert current is not None
    assert current.revision == 2
    assert current.champion == 1
    assert current.arms == (Arm(1, 95), Arm(2, 5))
    assert [one.revision for one in placed.routes("flight-delay")] == [1, 2]


def test_history_answers_by_event_time_with_every_arm(state: State, placed: Serving) -> None:
    route(state, placed, Arm(1, 100), at=NOW)
    route(state, placed, Arm(1, 75), Arm(2, 25), at=NOW + timedelta(days=10))
    route(state, placed, Arm(2, 100), at=NOW + timedelta(days=10))
    assert placed.route_at("flight-delay", NOW - timedelta(seconds=1)) is None
    before = placed.route_at("flight-delay", NOW + timedelta(days=9))
    after = placed.route_at("flight-delay", NOW + timedelta(days=10))
    assert before is not None and before.arms == (Arm(1, 100),)
    assert after is not None and after.arms == (Arm(2, 100),)


def test_the_same_step_of_a_workflow_sets_a_route_once(state: State, placed: Serving) -> None:
    first = route(state, placed, Arm(1, 100), once=("deliver-1", "promote"))
    second = route(state, placed, Arm(1, 100), once=("deliver-1", "promote"))
    assert second == first
    assert len(placed.routes("flight-delay")) == 1


def test_a_route_needs_placed_versions_and_a_first_route_one_arm(state: State, placed: Serving) -> None:
    with pytest.raises(Conflict, match="not placed"):
        route(state, placed, Arm(9, 100))
    with pytest.raises(Invalid, match="first route"):
        route(state, placed, Arm(1, 50), Arm(2, 50))
    assert placed.routes("flight-delay") == []


def test_a_version_that_takes_traffic_is_not_unplaced(state: State, placed: Serving) -> None:
    route(state, placed, Arm(1, 100))
    with pytest.raises(Conflict, match="takes traffic"), state.transaction() as tx:
        placed.unplace(tx, "flight-delay", 1)
    with state.transaction() as tx:
        placed.unplace(tx, "flight-delay", 2)
        placed.unplace(tx, "flight-delay", 2)
    assert [placement.version for placement in placed.placements("flight-delay")] == [1, 3]


def test_a_version_is_never_placed_with_another_bundle(state: State, placed: Serving) -> None:
    with state.transaction() as tx:
        placed.place(tx, "flight-delay", 1, "bundle-1")
    with pytest.raises(Conflict, match="bundle"), state.transaction() as tx:
        placed.place(tx, "flight-delay", 1, "another")


def fail_after_setting_the_route(state: State, placed: Serving) -> None:
    with state.transaction() as tx:
        placed.set_route(tx, "flight-delay", [Arm(1, 100)], reason="", set_by="ada", effective_event_at=NOW)
        raise RuntimeError


def test_a_route_that_is_rolled_back_with_its_transaction_leaves_nothing(state: State, placed: Serving) -> None:
    with pytest.raises(RuntimeError):
        fail_after_setting_the_route(state, placed)
    assert placed.current_route("flight-delay") is None


def report(tmp_path: Path, worker: int, boot: str, state: str, *, pid: int | None = None, age_s: float = 0) -> None:
    heartbeats.write(
        tmp_path / "home" / "gateway",
        Heartbeat(
            worker=worker,
            pid=os.getpid() if pid is None else pid,
            boot=boot,
            at=datetime.now(UTC) - timedelta(seconds=age_s),
            loaded={"flight-delay": {1: state}},
            counters={"flight-delay": {1: Counters(requests=10, failed=1)}},
            labels={"flight-delay": LabelCounters(accepted=3)},
        ),
    )


def test_a_version_is_loaded_when_every_live_worker_says_so(placed: Serving, tmp_path: Path) -> None:
    report(tmp_path, 0, "a", "ready")
    report(tmp_path, 1, "b", "loading")
    with pytest.raises(Unavailable, match="worker 1 has not loaded it"):
        placed.await_loaded("flight-delay", 1, 0.1)
    report(tmp_path, 1, "b", "ready")
    placed.await_loaded("flight-delay", 1, 0.1)


def test_dead_and_silent_workers_are_not_waited_for(placed: Serving, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No gateway worker"):
        placed.await_loaded("flight-delay", 1, 0.01)
    report(tmp_path, 0, "a", "ready")
    report(tmp_path, 1, "b", "loading", pid=2**22 + 1)
    report(tmp_path, 2, "c", "loading", age_s=60)
    report(tmp_path, 0, "before", "loading", age_s=2)
    placed.await_loaded("flight-delay", 1, 0.1)


def test_a_worker_that_cannot_load_is_named_at_once(placed: Serving, tmp_path: Path) -> None:
    report(tmp_path, 0, "a", "failed: file model.txt does not match its digest")
    with pytest.raises(Unavailable, match=r"worker 0 cannot load flight-delay/1: failed: file model\.txt"):
        placed.await_loaded("flight-delay", 1, 30)


def test_counters_are_summed_over_workers_and_boots_of_the_dead(placed: Serving, tmp_path: Path) -> None:
    report(tmp_path, 0, "a", "ready")
    report(tmp_path, 0, "before", "ready", age_s=3600)
    report(tmp_path, 1, "c", "ready", pid=2**22 + 1)
    assert placed.counters("flight-delay") == {1: Counters(requests=30, failed=3)}
    assert placed.label_counters("flight-delay").accepted == 9
    assert placed.counters("churn") == {}
