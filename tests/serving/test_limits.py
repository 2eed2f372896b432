"""Limits on what one request may take: size, rows, depth, time, and how many there may be at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from gateway_home import ENDPOINT, Home, live_home
from originals import serve_original, slow_model

from relevo.contract.model import ServingLimits
from relevo.serving.heartbeats import total_shed

INVOCATIONS = f"/endpoints/{ENDPOINT}/invocations"
EXPLAIN = f"/endpoints/{ENDPOINT}/explain"
LABELS = f"/endpoints/{ENDPOINT}/labels"
INFER = f"/v2/models/{ENDPOINT}/infer"
MILLION = 1_000_000


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def mapped(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize("depth", [600, 100_000, 4 * MILLION], ids=lambda depth: f"{depth:,} deep")
@pytest.mark.parametrize("close", [True, False], ids=["closed", "open"])
@pytest.mark.parametrize(
    ("path", "start", "end"),
    [
        (INVOCATIONS, b"", b""),
        (INVOCATIONS, b'{"dataframe_split": {"columns": ["distance", "carrier"], "data": ', b"}}"),
        (INVOCATIONS, b'{"dataframe_split": {"columns": ', b', "data": [[1.0, "UA"]]}}'),
        (INVOCATIONS, b'{"dataframe_records": [{"distance": ', b', "carrier": "UA"}]}'),
        (INVOCATIONS, b'{"dataframe_records": [{"distance": 1.0, "carrier": "UA", "more": ', b"}]}"),
        (INVOCATIONS, b'{"instances": ', b"}"),
        (INVOCATIONS, b'{"inputs": {"distance": ', b', "carrier": ["UA"]}}'),
        (INVOCATIONS, b'{"params": ', b', "instances": [[1.0, "UA"]]}'),
        (INVOCATIONS, b'{"dataframe_records": [{"distance": 1.0, "carrier": "UA"}], "request_id": ', b"}"),
        (EXPLAIN, b'{"instances": ', b"}"),
        (LABELS, b'{"labels": ', b"}"),
        (LABELS, b'{"labels": [{"prediction_id": "x", "value": ', b"}]}"),
        (INFER, b'{"inputs": ', b"}"),
        (INFER, b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": ', b"}]}"),
        (INFER, b'{"parameters": {"x": ', b'}, "inputs": []}'),
        (INFER, b'{"outputs": [{"name": "predictions", "parameters": {"x": ', b'}}], "inputs": []}'),
    ],
)
def test_a_body_nested_too_deep_is_refused_and_costs_nobody_else(
    shared: Home, client: httpx.Client, path: str, start: bytes, end: bytes, close: bool, depth: int
) -> None:
    inside = nested(depth) if close else b"[" * depth
    answer = client.post(path, content=start + inside + end)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]
    assert shared.predict(client).status_code == 200


@pytest.mark.parametrize("depth", [600, 100_000, MILLION])
def test_an_index_or_objects_nested_too_deep_are_refused_or_passed_over(
    shared: Home, client: httpx.Client, depth: int
) -> None:
    for inside in (nested(depth), mapped(depth)):
        body = b'{"dataframe_split": {"columns": ["distance", "carrier"], "data": [[1.0, "UA"]], "index": ' + inside
        assert client.post(INVOCATIONS, content=body + b"}}").status_code in (200, 400)
        for path in (INVOCATIONS, LABELS, INFER):
            assert client.post(path, content=inside).status_code == 400
    assert shared.predict(client).status_code == 200


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A gateway with narrow settings, and an endpoint that declares two limits of its own."""
    folder = tmp_path_factory.mktemp("tight") / "home"
    with live_home(folder, limits=ServingLimits(rows=3), gateway_body_bytes=2_000, gateway_rows=5) as home:
        yield home


def test_settings_limit_every_endpoint_and_the_contract_its_own(tight: Home) -> None:
    with tight.client() as client:
        assert tight.predict(client, *[1.0] * 3).status_code == 200
        answer = tight.predict(client, *[1.0] * 4)
        assert answer.status_code == 413
        assert answer.json()["error"]["message"] == "A request brings at most 3 rows, got 4."
        answer = client.post(INVOCATIONS, content=b" " * 2_001)
        assert answer.json()["error"]["message"] == "A body has at most 2,000 bytes, got 2,001."
        labels = [{"prediction_id": "x", "value": 1.0}] * 4
        assert client.post(LABELS, json={"labels": labels}).status_code == 413
        assert client.get(f"/v2/models/{ENDPOINT}/config").json()["max_batch_size"] == 3


def test_a_changed_limit_holds_without_a_restart(tight: Home) -> None:
    with tight.client() as client:
        tight.endpoint("buffered", limits=ServingLimits(rows=4, body_bytes=3_000))
        tight.eventually(lambda: tight.predict(client, *[1.0] * 4).status_code == 200)
        answer = client.post(INVOCATIONS, content=b" " * 3_001)
        assert answer.json()["error"]["message"] == "A body has at most 3,000 bytes, got 3,001."


def test_a_request_past_its_time_gets_504_and_is_logged_as_failed(home: Home) -> None:
    home.endpoint("durable", limits=ServingLimits(timeout_ms=400))
    serve_original(home, slow_model())
    with home.client() as client:
        answer = home.predict(client, 1_500.0)
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "deadline_exceeded"
        home.eventually(lambda: home.predict(client, 2.0).status_code == 200)
        home.eventually(lambda: home.count(1).requests - home.count(1).failed == 1)
    home.stop_workers()
    records = home.records()
    assert {record.status for record in records if record.inputs[0][0] == 1_500.0} == {"failed"}
    [late] = [record for record in records if record.inputs[0][0] == 1_500.0]
    assert "within the time" in (late.error or "")
    assert late.predictions == []
    answered = [record for record in records if record.status == "ok"]
    assert [record.predictions for record in answered] == [[4.0]]


def test_a_canary_that_is_too_slow_leaves_the_champion_its_time(home: Home) -> None:
    home.endpoint("buffered", limits=ServingLimits(timeout_ms=1_000))
    home.place(1)
    home.route((1, 100))
    home.start()
    serve_original(home, slow_model(), version=2)
    home.route((1, 50), (2, 50))
    home.eventually(lambda: all(one.revisions[ENDPOINT] == 3 for one in home.serving.live_workers()))
    with home.client() as client:
        answers = [home.predict(client, 3_000.0) for _ in range(3)]  # of three in turn each arm gets one or two
    assert [(one.status_code, one.json()["version"]) for one in answers] == [(200, 1)] * 3
    home.eventually(lambda: home.count(2).failed in (1, 2))
    assert home.count(1).failed == 0


def test_requests_beyond_the_endpoints_concurrency_are_sent_away_and_counted(home: Home) -> None:
    home.endpoint("buffered", limits=ServingLimits(concurrency=2))
    serve_original(home, slow_model())
    with home.client() as client, ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda _: home.predict(client, 700.0), range(8)))
        statuses = sorted(one.status_code for one in answers)
        assert statuses == [200] * 2 + [429] * 6
        refused = next(one for one in answers if one.status_code == 429)
        assert refused.json()["error"]["message"] == f"2 requests to {ENDPOINT} are in flight; try again later."
        assert refused.headers["retry-after"] == "1"
        assert f'relevo_shed_requests_total{{endpoint="{ENDPOINT}",reason="concurrency"}} 6.0' in (
            client.get("/metrics").text
        )
        home.eventually(lambda: total_shed(home.serving.live_workers())[ENDPOINT, "concurrency"] == 6)
        assert home.predict(client, 1.0).status_code == 200


def test_requests_beyond_the_workers_concurrency_are_sent_away(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", gateway_concurrency=3)
    try:
        home.endpoint("buffered")
        serve_original(home, slow_model())
        with home.client() as client, ThreadPoolExecutor(6) as callers:
            statuses = sorted(one.status_code for one in callers.map(lambda _: home.predict(client, 700.0), range(6)))
            assert statuses == [200] * 3 + [429] * 3
            assert 'relevo_shed_requests_total{endpoint="",reason="concurrency"} 3.0' in client.get("/metrics").text
    finally:
        home.stop()
