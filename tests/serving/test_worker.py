"""Worker processes: killed, drained, side by side, light."""

from __future__ import annotations

import subprocess
import sys

import httpx
import pytest
from gateway_home import ENDPOINT, Home, kill

from relevo.platform.state import metadata

HEAVY = ("mlflow", "dbos", "fastapi", "pandas", "sklearn", "polars", "deltalake", "lightgbm")


def test_every_acknowledged_prediction_survives_a_kill_and_is_logged_once(home: Home) -> None:
    home.endpoint("durable")
    home.place(1)
    home.route((1, 100))
    acknowledged: list[str] = []
    worker = home.start()
    home.serving.await_loaded(ENDPOINT, 1, 20)
    for _ in range(2):
        load = home.load(callers=8)
        load.until(200)
        kill(worker)
        worker = home.start()
        load.stop()
        acknowledged += load.acknowledged
    home.stop_workers()
    logged = [one for record in home.records() if record.status == "ok" for one in record.ids]
    assert len(set(logged)) == len(logged)
    assert set(acknowledged) <= set(logged)
    assert len(set(acknowledged)) == len(acknowledged) >= 400


def test_a_worker_drains_without_a_failed_request_while_another_serves(home: Home) -> None:
    home.endpoint("buffered")
    home.place(1)
    home.route((1, 100))
    first = home.start(0)
    home.start(1)
    home.serving.await_loaded(ENDPOINT, 1, 20)
    load = home.load(callers=8)
    load.until(200)
    first.terminate()
    assert first.wait(timeout=15) == 0
    load.more(200)
    load.stop()
    assert load.failures == []
    home.eventually(lambda: home.count(1).requests == len(load.acknowledged))
    home.eventually(lambda: _all(home, load.acknowledged))


def _all(home: Home, acknowledged: list[str]) -> bool:
    logged = [one for record in home.records() for one in record.ids]
    return sorted(logged) == sorted(acknowledged)


def test_one_worker_finishes_what_is_in_flight_and_logs_it(home: Home) -> None:
    home.endpoint("buffered")
    home.place(1)
    home.route((1, 100))
    worker = home.start()
    home.serving.await_loaded(ENDPOINT, 1, 20)
    load = home.load(callers=2)
    load.until(50)
    load.stop()
    worker.terminate()
    assert worker.wait(timeout=15) == 0
    assert load.failures == []
    assert _all(home, load.acknowledged)
    assert not list(home.settings.folder("log").glob("*/*.open"))
    assert home.serving.live_workers() == []
    assert home.count(1).requests == len(load.acknowledged)


def test_two_workers_on_one_socket_are_summed(home: Home) -> None:
    home.endpoint("buffered")
    home.place(1)
    home.route((1, 100))
    home.start(0)
    home.start(1)
    home.serving.await_loaded(ENDPOINT, 1, 20)
    load = home.load(callers=16)
    load.until(400)
    load.stop()
    assert load.failures == []
    home.eventually(lambda: home.count(1).requests == len(load.acknowledged))
    by_worker = {one.worker: one.counters[ENDPOINT][1].requests for one in home.serving.live_workers()}
    assert set(by_worker) == {0, 1}
    assert min(by_worker.values()) > 0
    with home.client() as client:
        text = client.get("/metrics").text
    assert f'relevo_requests_total{{endpoint="{ENDPOINT}",outcome="ok",version="1"}} {len(load.acknowledged)}.0' in text
    assert "relevo_gateway_workers 2.0" in text


def test_a_restarted_worker_goes_on_with_the_route_and_the_counters(home: Home) -> None:
    home.endpoint("durable")
    home.place(1)
    home.route((1, 100))
    worker = home.start()
    with home.client() as client:
        home.eventually(lambda: home.predict(client).status_code == 200)
        home.eventually(lambda: home.count(1).requests > 0)
        kill(worker)
    home.start()
    before = home.count(1).requests
    with home.client() as client:
        assert home.predict(client).status_code == 200
    home.eventually(lambda: home.count(1).requests == before + 1)
    assert httpx.get(f"{home.url}/health").status_code == 200


def test_a_worker_waits_for_the_tables_that_the_control_plane_makes(home: Home) -> None:
    with home.state.transaction() as tx:
        metadata.drop_all(tx)
    worker = home.launch()
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{home.url}/health", timeout=2)
    assert worker.poll() is None
    with home.state.transaction() as tx:
        metadata.create_all(tx)
    assert httpx.get(f"{home.url}/health", timeout=20).status_code == 200


def test_the_gateway_imports_nothing_heavy() -> None:
    program = (
        f"import sys, relevo.serving.worker, relevo.serving.gateway;print(sorted(set(sys.modules) & {set(HEAVY)!r}))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
