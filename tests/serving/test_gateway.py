"""What callers of one worker see, over real HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from gateway_home import ENDPOINT, NOW, Home, body

from relevo.identity.model import Role
from relevo.predictions.ids import load_key, verify

INVOCATIONS = f"/endpoints/{ENDPOINT}/invocations"
LABELS = f"/endpoints/{ENDPOINT}/labels"


def error(answer: httpx.Response) -> dict[str, Any]:
    found = answer.json()["error"]
    assert set(found) == {"code", "message", "field", "hint"}
    return found  # type: ignore[no-any-return]


def metric(client: httpx.Client, name: str, **labels: str) -> float:
    """One number of the metrics text, which is exact for the worker that answers."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    wanted = [f'{key}="{value}"' for key, value in {"endpoint": ENDPOINT, **labels}.items()]
    lines = [line for line in answer.text.splitlines() if line.startswith(f"{name}{{")]
    return next(float(line.split()[-1]) for line in lines if all(label in line for label in wanted))


def test_predictions_come_with_version_and_ids_that_verify(shared: Home, client: httpx.Client) -> None:
    answer = shared.predict(client, 100.0, 200.0)
    assert answer.status_code == 200
    got = answer.json()
    assert set(got) == {"predictions", "version", "prediction_ids"}
    assert got["predictions"] == [1.0, 1.0]
    assert got["version"] == 1
    key = load_key(shared.settings.folder("keys"))
    issued = [verify(key, one) for one in got["prediction_ids"]]
    assert [one.endpoint_number for one in issued] == [1, 1]
    assert issued[1].sequence == issued[0].sequence + 1


def test_records_and_columns_in_any_order_are_taken(client: httpx.Client) -> None:
    records = {"dataframe_records": [{"carrier": None, "distance": 5}], "request_id": "abc"}
    turned = {"dataframe_split": {"columns": ["carrier", "distance"], "data": [["UA", 5.0]]}}
    for request in (records, turned):
        answer = client.post(INVOCATIONS, json=request)
        assert answer.json()["predictions"] == [1.0]


def test_requests_without_an_accepted_token_are_refused_and_never_logged(shared: Home) -> None:
    before = shared.records()
    for headers in ({}, {"authorization": "Basic YTpi"}, {"authorization": "Bearer rlv_forged"}):
        answer = httpx.post(shared.url + INVOCATIONS, json=body(777.25), headers=headers)
        assert answer.status_code == 401
        assert error(answer)["code"] == "not_authenticated"
        assert answer.headers["www-authenticate"] == "Bearer"
    time.sleep(0.2)  # the writer's turn: what is refused must not come
    assert not [one for one in shared.records()[len(before) :] if one.inputs and one.inputs[0][0] == 777.25]


def test_a_token_may_come_as_the_password_of_basic_authentication(shared: Home) -> None:
    for password, status in ((shared.admin, 200), ("rlv_forged", 401)):
        answer = httpx.post(shared.url + INVOCATIONS, json=body(1.0), auth=("any", password))
        assert answer.status_code == status


def test_a_role_without_the_permission_is_refused(shared: Home, client: httpx.Client) -> None:
    viewer = shared.token("vera", Role.VIEWER)
    application = shared.token("booking", Role.APPLICATION)
    with shared.client(viewer) as reading, shared.client(application) as asking:
        for path in (INVOCATIONS, LABELS):
            answer = reading.post(path, json=body(1.0))
            assert answer.status_code == 403
            assert "vera (viewer) lacks the permission" in error(answer)["message"]
        assert reading.get("/metrics").status_code == 200
        assert reading.get(f"/endpoints/{ENDPOINT}").status_code == 200
        assert shared.predict(asking).status_code == 200
        assert asking.get("/metrics").status_code == 403
        assert asking.get(f"/endpoints/{ENDPOINT}").status_code == 200


def test_a_new_token_works_at_once_and_a_revoked_one_soon_not(shared: Home) -> None:
    token = shared.token("new", Role.APPLICATION)
    with shared.client(token) as asking:
        assert shared.predict(asking).status_code == 200
        with shared.state.transaction() as tx:
            shared.identity.revoke(tx, shared.identity.token_id(token))
        shared.eventually(lambda: shared.predict(asking).status_code == 401)


@pytest.mark.parametrize(
    ("content", "field", "message"),
    [
        (b"{", None, "not valid JSON"),
        (b"\xff", None, "UTF-8"),
        (b"[]", None, "Expected a JSON object"),
        (b'{"dataframe_records": [{"distance": NaN, "carrier": "UA"}]}', "distance", "got null"),
        (b'{"dataframe_records": [{"carrier": "UA"}]}', "distance", "Missing column 'distance'"),
        (b'{"dataframe_records": [{"distance": "NaN", "carrier": "UA"}]}', "distance", "expected a number, got text"),
        (b'{"dataframe_records": [{"distance": "far", "carrier": "UA"}]}', "distance", "expected a number, got text"),
        (b'{"dataframe_records": [{"distance": null, "carrier": "UA"}]}', "distance", "null"),
        (b'{"dataframe_records": [{"distance": 1, "carrier": "UA", "carier": "UA"}]}', "carier", "carrier"),
        (b"", None, "JSON"),
    ],
)
def test_a_wrong_body_is_answered_with_the_field(
    client: httpx.Client, content: bytes, field: str | None, message: str
) -> None:
    answer = client.post(INVOCATIONS, content=content)
    assert answer.status_code == 400
    found = error(answer)
    assert found["code"] == "invalid"
    assert found["field"] == field
    assert message in found["message"]


def test_a_wrong_body_is_logged_as_failed_and_counted_apart(shared: Home, client: httpx.Client) -> None:
    before = metric(client, "relevo_refused_requests_total", version="1")
    failed = metric(client, "relevo_requests_total", outcome="failed", version="1")
    content = b'{"wrong": "' + b"x" * 10_000 + b'"}'
    assert client.post(INVOCATIONS, content=content).status_code == 400
    shared.eventually(lambda: any(one.body == content[:4096] for one in shared.records()))
    record = next(one for one in shared.records() if one.body == content[:4096])
    assert (record.status, record.ids, record.version) == ("failed", [], 1)
    assert record.error is not None and "wrong" in record.error
    assert metric(client, "relevo_refused_requests_total", version="1") == before + 1
    assert metric(client, "relevo_requests_total", outcome="failed", version="1") == failed


def test_a_body_over_the_limit_is_refused_before_it_is_read(client: httpx.Client) -> None:
    answer = client.post(INVOCATIONS, content=b"x" * 10_000_001)
    assert answer.status_code == 413
    assert "10,000,000 bytes, got 10,000,001" in error(answer)["message"]
    assert client.post(INVOCATIONS, json=body(1.0)).status_code == 200


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(client: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(200):
            yield b"x" * 100_000

    answer = client.post(INVOCATIONS, content=pieces())
    assert answer.status_code == 413


def test_too_many_rows_are_refused(shared: Home, client: httpx.Client) -> None:
    answer = shared.predict(client, *([1.0] * 10_001))
    assert answer.status_code == 413
    assert "10,000 rows, got 10,001" in error(answer)["message"]
    assert len(shared.predict(client, *([1.0] * 10_000)).json()["prediction_ids"]) == 10_000


def test_unknown_names_and_methods_are_answered_with_the_right_ones(client: httpx.Client) -> None:
    answer = client.post("/endpoints/flight-dely/invocations", json=body(1.0))
    assert answer.status_code == 404
    assert error(answer)["hint"] == f"Did you mean '{ENDPOINT}'?"
    assert client.get(INVOCATIONS).status_code == 405
    assert client.get("/nothing").status_code == 404
    assert client.post(f"/endpoints/{ENDPOINT}/explode").status_code == 404


def test_one_version_is_addressed_by_header_with_the_permission_alone(shared: Home, client: httpx.Client) -> None:
    before = shared.count(2)
    header = {"x-relevo-version": "2"}
    answer = client.post(INVOCATIONS, json=body(1.0), headers=header)
    assert answer.json()["version"] == 2
    with shared.client(shared.token("shop", Role.APPLICATION)) as asking:
        assert asking.post(INVOCATIONS, json=body(1.0), headers=header).status_code == 403
    assert client.post(INVOCATIONS, json=body(1.0), headers={"x-relevo-version": "9"}).status_code == 404
    wrong = client.post(INVOCATIONS, json=body(1.0), headers={"x-relevo-version": "two"})
    assert (wrong.status_code, error(wrong)["field"]) == (400, "x-relevo-version")
    shared.eventually(lambda: shared.count(2).addressed >= 1)
    after = shared.count(2)
    assert after.requests == before.requests


def test_an_event_beyond_the_clock_is_refused(client: httpx.Client) -> None:
    def asked(at: datetime) -> httpx.Response:
        record = {"distance": 1.0, "carrier": "UA", "scheduled_at": at.isoformat()}
        return client.post(INVOCATIONS, json={"dataframe_records": [record]})

    assert asked(datetime.now(UTC) + timedelta(seconds=30)).status_code == 200
    assert asked(NOW).status_code == 200
    late = asked(datetime.now(UTC) + timedelta(seconds=90))
    assert (late.status_code, error(late)["field"]) == (400, "scheduled_at")


def test_labels_are_accepted_once_and_conflicts_and_foreign_ids_are_named(shared: Home, client: httpx.Client) -> None:
    before = shared.serving.label_counters(ENDPOINT)
    first, second = shared.predict(client, 1.0, 2.0).json()["prediction_ids"]

    def send(*labels: dict[str, Any], correct: bool = False) -> tuple[int, Any]:
        answer = client.post(LABELS, json={"labels": list(labels), "correct": correct})
        return answer.status_code, answer.json()

    label = {"prediction_id": first, "value": 12.5}
    empty = {"accepted": 0, "duplicates": 0, "conflicts": [], "unknown": []}
    assert send(label) == (200, empty | {"accepted": 1})
    assert send(label) == (200, empty | {"duplicates": 1})
    assert send(label | {"value": 1.0}) == (409, empty | {"conflicts": [first]})
    assert send(label | {"value": 1.0}, correct=True) == (200, empty | {"accepted": 1})
    forged = first[:-1] + ("A" if first[-1] != "A" else "B")
    cancelled = {"prediction_id": second, "no_outcome": True}
    assert send({"prediction_id": forged, "value": 1.0}, cancelled) == (
        400,
        empty | {"accepted": 1, "unknown": [forged]},
    )
    shared.eventually(lambda: shared.serving.label_counters(ENDPOINT).unknown == before.unknown + 1)
    after = shared.serving.label_counters(ENDPOINT)
    assert after.accepted - before.accepted == 3
    assert (after.duplicates - before.duplicates, after.conflicts - before.conflicts) == (1, 1)


@pytest.mark.parametrize(
    ("label", "field"),
    [
        ({"prediction_id": 5, "value": 1.0}, "labels[0].prediction_id"),
        ({"prediction_id": "x"}, "labels[0].value"),
        ({"prediction_id": "x", "value": 1.0, "no_outcome": True}, "labels[0].value"),
        ({"prediction_id": "x", "value": 1.0, "known_at": "2013-04-01T00:00:00"}, "labels[0].known_at"),
        ({"prediction_id": "x", "value": 1.0, "known_at": "2100-04-01T00:00:00Z"}, "labels[0].known_at"),
        ({"prediction_id": "x", "valeu": 1.0}, "labels[0]"),
    ],
)
def test_a_wrong_label_is_answered_with_the_field(client: httpx.Client, label: dict[str, Any], field: str) -> None:
    answer = client.post(LABELS, json={"labels": [label]})
    assert (answer.status_code, error(answer)["field"]) == (400, field)


def test_health_is_open_and_the_endpoint_describes_itself(shared: Home, client: httpx.Client) -> None:
    assert httpx.get(f"{shared.url}/health").json() == {"status": "ok", "worker": 0}
    assert httpx.get(f"{shared.url}/metrics").status_code == 401
    described = client.get(f"/endpoints/{ENDPOINT}").json()
    assert described["route"]["arms"] == [{"version": 1, "percent": 100.0}]
    assert described["versions"] == {"1": "ready", "2": "ready"}
    assert [column["name"] for column in described["signature"]["inputs"]] == ["distance", "carrier"]


def test_metrics_say_what_was_answered(shared: Home, client: httpx.Client) -> None:
    before = metric(client, "relevo_requests_total", outcome="ok", version="1")
    shared.predict(client)
    assert metric(client, "relevo_requests_total", outcome="ok", version="1") == before + 1
    assert 'le="+Inf"' in client.get("/metrics").text


def test_a_replaying_driver_that_has_just_advanced_is_not_refused(home: Home) -> None:
    home.endpoint("buffered")
    home.place(1)
    home.route((1, 100))
    with home.state.transaction() as tx:
        home.clock.start_replay(tx, ENDPOINT, NOW)
    home.start()
    home.serving.await_loaded(ENDPOINT, 1, 20)
    with home.client() as client:
        for hour in range(1, 40):
            at = NOW + timedelta(hours=hour)
            record = {"distance": 1.0, "carrier": "UA", "scheduled_at": at.isoformat()}
            early = client.post(INVOCATIONS, json={"dataframe_records": [record]})
            assert early.status_code == 400
            assert error(early)["field"] == "scheduled_at"
            with home.state.transaction() as tx:
                home.clock.advance(tx, ENDPOINT, at)
            answer = client.post(INVOCATIONS, json={"dataframe_records": [record]})
            assert answer.status_code == 200, answer.text
    key = load_key(home.settings.folder("keys"))
    assert verify(key, answer.json()["prediction_ids"][0]).event_hour_at == at


def test_a_number_beyond_all_measure_is_the_callers_mistake_and_no_failure_of_the_version(home: Home) -> None:
    home.endpoint("buffered")
    home.place(1, weight=1e300)
    home.route((1, 100))
    home.start()
    home.serving.await_loaded(ENDPOINT, 1, 20)
    with home.client() as client:
        refused = home.predict(client, 1.0, 1e300)
        assert refused.status_code == 400
        assert error(refused)["field"] == "distance"
        assert error(refused)["message"] == (
            "Row 1: column 'distance' holds 1e+300, for which the prediction is not finite."
        )
        failed = home.predict(client, 1e90)  # a model that cannot answer what may well be asked
        assert (failed.status_code, error(failed)["code"]) == (500, "version_failed")
    home.eventually(lambda: (home.count(1).refused, home.count(1).failed) == (1, 1))
