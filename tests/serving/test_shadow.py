"""Shadows: copies of answered requests, that cost no caller anything and are kept apart."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from gateway_home import ENDPOINT, NOW, SIGNATURE, Home, body
from originals import seal_original, slow_model
from test_lookups import VIEW, put

from relevo.contract.model import ServingLimits
from relevo.errors import Conflict, Invalid
from relevo.predictions.collector import run
from relevo.predictions.log import PredictionLog
from relevo.runtimes.model import Column, ColumnType
from relevo.serving.model import LogMode, ShadowArm


def live(home: Home, shadow: ShadowArm, *, log: LogMode = "buffered", weight: float = 0.0, **settings: Any) -> None:
    """Version 1 in production, version 2 in its shadow, which adds ``weight`` for each mile."""
    home.endpoint(log, **settings)
    placed = {one.version for one in home.serving.placements()}
    for version in {1, 2} - placed:
        home.place(version, weight=weight if version == 2 else 0.0)
    home.route((1, 100))
    home.start()
    for version in (1, 2):
        home.serving.await_loaded(ENDPOINT, version, 20)
    cast(home, shadow)


def cast(home: Home, shadow: ShadowArm | None) -> None:
    home.route((1, 100), shadow=shadow)
    follow(home)


def follow(home: Home) -> None:
    """Wait until the workers answer by the last route."""
    route = home.serving.current_route(ENDPOINT)
    assert route is not None
    home.eventually(lambda: all(one.revisions.get(ENDPOINT) == route.revision for one in home.serving.live_workers()))


def test_a_shadow_is_asked_with_what_was_answered_and_answers_nobody(home: Home) -> None:
    live(home, ShadowArm(2), weight=0.5)
    with home.client() as client:
        answers = [home.predict(client, 10.0, 30.0).json() for _ in range(20)]
        assert home.predict(client, "far").status_code == 400
        named = client.post(f"/endpoints/{ENDPOINT}/invocations", json=body(1.0), headers={"x-relevo-version": "1"})
        assert named.status_code == 200
        route = client.get(f"/endpoints/{ENDPOINT}").json()["route"]
        assert (route["shadow"], route["arms"]) == ({"version": 2, "share": 1.0}, [{"version": 1, "percent": 100.0}])
        assert {one["version"] for one in answers} == {1}
        home.eventually(lambda: home.shadowed(2).requests == 20)
        metrics = client.get("/metrics").text
    counted = home.shadowed(2)
    assert (counted.failed, counted.dropped, counted.unfilled, counted.unlogged) == (0, 0, 0, 0)
    assert counted.compared_rows == 40
    assert counted.difference == pytest.approx(
        11.0
    )  # version 1 answers 1; version 2 answers 2 and half of 10, or of 30
    assert counted.agreement is None  # a regression decides nothing
    assert sum(counted.latency) == 20
    assert home.count(2).requests == 0
    assert home.count(1).requests == 20
    assert 'relevo_shadow_requests_total{endpoint="flight-delay",outcome="ok",version="2"} 20.0' in metrics
    assert 'relevo_shadow_difference_total{endpoint="flight-delay",version="2"} 440.0' in metrics
    assert 'relevo_requests_total{endpoint="flight-delay",outcome="ok",version="2"}' not in metrics


def test_the_log_keeps_shadows_apart_and_beside_what_was_given(home: Home) -> None:
    live(home, ShadowArm(2), weight=0.5)
    with home.client() as client:
        ids = home.predict(client, 10.0, 30.0).json()["prediction_ids"]
        home.eventually(lambda: home.shadowed(2).requests == 1)
        label = {"labels": [{"prediction_id": ids[0], "value": 4.0}]}
        assert client.post(f"/endpoints/{ENDPOINT}/labels", json=label).status_code == 200
    home.stop_workers()
    stop = threading.Event()
    stop.set()
    run(home.settings, stop)
    log = PredictionLog(home.settings)
    assert set(log.rows(ENDPOINT).collect()["prediction_id"]) == set(ids)
    window = log.window(ENDPOINT, NOW, NOW + timedelta(days=10_000)).collect()
    assert window["version"].to_list() == [1, 1]
    assert log.counts(ENDPOINT)["predictions_logged"] == 2
    assert log.counts(ENDPOINT)["orphans"] == 0
    pairs = log.shadows(ENDPOINT, 2).sort("prediction").collect()
    columns = ("shadow_of", "prediction", "given", "given_version", "label", "x_distance")
    assert pairs.select(columns).rows() == [(ids[0], 7.0, 1.0, 1, 4.0, 10.0), (ids[1], 17.0, 1.0, 1, None, 30.0)]
    assert pairs["prediction_id"].null_count() == 2
    log.close()


def test_a_shadow_gets_its_share(home: Home) -> None:
    live(home, ShadowArm(2, share=0.25))
    with home.client() as client:
        for _ in range(80):
            home.predict(client)
        home.eventually(lambda: 19 <= home.shadowed(2).requests <= 21)
        home.eventually(lambda: home.count(1).requests == 80)
    assert 19 <= home.shadowed(2).requests <= 21


def test_a_shadow_that_fails_reaches_no_caller(home: Home) -> None:
    live(home, ShadowArm(2), weight=1e308)
    with home.client() as client:
        answers = [home.predict(client, 100.0) for _ in range(10)]
        assert [(one.status_code, one.json()["version"]) for one in answers] == [(200, 1)] * 10
        home.eventually(lambda: home.shadowed(2).requests == 10)
    assert (home.shadowed(2).failed, home.shadowed(2).compared_rows) == (10, 0)
    assert home.count(1).failed == 0
    failed = [one for one in home.records() if one.shadow_of]
    assert {(one.version, one.status) for one in failed} == {(2, "failed")}
    assert "not finite" in (failed[0].error or "")


def test_a_shadow_looks_up_its_own_features_as_they_were_when_asked(home: Home) -> None:
    origin = (Column("origin", ColumnType.TEXT),)
    delay = Column("delay", ColumnType.FLOAT, view=VIEW.name)
    put(home, "JFK", h1=10.0, h2=20.0)
    home.endpoint("buffered")
    home.place(1, signature=replace(SIGNATURE, keys=origin))
    signature = replace(SIGNATURE, inputs=(*SIGNATURE.inputs, delay), keys=origin)
    home.place(2, signature=signature, views=(VIEW,), delay_weight=1.0)
    live(home, ShadowArm(2))
    row = {"distance": 1.0, "carrier": "UA", "origin": "JFK", "scheduled_at": (NOW + timedelta(hours=1.5)).isoformat()}
    with home.client() as client:
        answer = client.post(f"/endpoints/{ENDPOINT}/invocations", json={"dataframe_records": [row]})
        assert (answer.status_code, answer.json()["predictions"]) == (200, [1.0])
        home.eventually(lambda: home.shadowed(2).requests == 1)
    assert home.shadowed(2).difference == 11.0  # 2 and the delay of 10 that was known by then, not 1
    (record,) = [one for one in home.records() if one.shadow_of]
    assert (record.inputs, record.keys, record.ids) == ([[1.0, "UA", 10.0]], [["JFK"]], [])
    assert record.shadow_of == answer.json()["prediction_ids"]


def test_a_slow_shadow_drops_copies_and_no_caller_waits_or_is_refused_for_it(home: Home) -> None:
    home.endpoint("buffered")
    bundle = seal_original(home, 2, slow_model())
    with home.state.transaction() as tx:
        home.serving.place(tx, ENDPOINT, 2, bundle)
    live(home, ShadowArm(2), limits=ServingLimits(concurrency=1))
    with home.client() as client:
        assert home.predict(client, 6000.0).json()["version"] == 1  # six seconds of the shadow's
        for _ in range(300):
            assert home.predict(client, 1.0).status_code == 200
        home.eventually(lambda: home.shadowed(2).dropped == 300 - 256, 5)
        assert home.shadowed(2).requests == 0  # it is at the first one still
        home.eventually(lambda: home.shadowed(2).requests == 257, 30)
    assert home.shadowed(2).failed == 0


def test_a_shadow_comes_and_goes_under_load_without_a_failed_request(home: Home) -> None:
    live(home, ShadowArm(2), log="durable")
    load = home.load()
    load.until(100)
    home.eventually(lambda: home.shadowed(2).requests > 5)  # its turn comes although requests never stop
    cast(home, None)
    load.more(100)
    cast(home, ShadowArm(2))
    load.more(100)
    home.route((2, 100))
    follow(home)
    load.more(100)
    load.stop()
    assert load.failures == []
    assert set(load.versions) == {1, 2}
    home.eventually(lambda: {version: home.count(version).requests for version in (1, 2)} == load.versions)


def test_a_shadow_stays_in_memory_and_cannot_be_unplaced(home: Home) -> None:
    live(home, ShadowArm(2))
    with home.state.transaction() as tx, pytest.raises(Conflict, match="by route revision 2"):
        home.serving.unplace(tx, ENDPOINT, 2)


def test_a_restarted_worker_loads_and_asks_the_shadow(home: Home) -> None:
    live(home, ShadowArm(2))
    home.stop_workers()
    home.start()
    with home.client() as client:
        home.eventually(lambda: home.predict(client).status_code == 200 and home.shadowed(2).requests > 0)


@pytest.mark.parametrize(
    ("shadow", "message"),
    [
        (ShadowArm(1), "Version 1 has an arm"),
        (ShadowArm(2, share=0), "a share above 0"),
        (ShadowArm(2, share=1.5), "a share above 0"),
    ],
)
def test_a_route_refuses_what_cannot_be_a_shadow(home: Home, shadow: ShadowArm, message: str) -> None:
    home.endpoint()
    home.place(1)
    home.place(2)
    with pytest.raises(Invalid, match=message):
        home.route((1, 100), shadow=shadow)


def test_a_shadow_that_is_not_placed_is_refused(home: Home) -> None:
    home.endpoint()
    home.place(1)
    with pytest.raises(Conflict, match="flight-delay/2 is not placed"):
        home.route((1, 100), shadow=ShadowArm(2))
