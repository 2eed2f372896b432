"""Requests and labels that do not fit: a clear answer that names the field, over the real gateway."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import pytest
from running import Relevo
from team import Project

GOOD = {"depot": "port", "weight": 2.0}


def ask(relevo: Relevo, model: str, content: bytes, action: str = "invocations") -> httpx.Response:
    headers = {"Authorization": f"Bearer {relevo.application.credentials.token}", "Content-Type": "application/json"}
    return httpx.post(f"{relevo.gateway}/endpoints/{model}/{action}", content=content, headers=headers, timeout=60)


def records(*rows: dict[str, Any]) -> bytes:
    return json.dumps({"dataframe_records": rows}).encode()


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        (records({"depot": "port"}), "weight", "weight"),
        (records(GOOD, {"depot": "port"}), "weight", "weight"),
        (records({"depot": "port", "weight": "heavy"}), "weight", "heavy"),
        (records({"depot": 7, "weight": 2.0}), "depot", "7"),
        (records({"depot": "port", "weight": "NaN"}), "weight", "NaN"),
        (b'{"dataframe_records": [{"depot": "port", "weight": 1e999}]}', None, ""),
        (records({**GOOD, "colour": "red"}), "colour", "colour"),
        (records({**GOOD, "asked_at": "2024-01-01T00:00:00"}), "asked_at", "asked_at"),
        (records({**GOOD, "asked_at": "2030-01-01T00:00:00Z"}), "asked_at", "2030"),
        (b'{"dataframe_split": {"columns": ["depot"], "data": [["port"]]}}', "weight", "weight"),
        (
            b'{"dataframe_split": {"columns": ["depot", "weight"], "data": [["port"]]}}',
            "dataframe_split.data[0]",
            "Row 0",
        ),
        (b'{"dataframe_records": []}', None, "row"),
        (b'{"dataframe_records": [', None, "JSON"),
        (b"\xff\xfe", None, ""),
        (b"", None, ""),
        (b"[]", None, ""),
    ],
)
def test_a_request_that_does_not_fit_is_refused_by_its_field(
    body: bytes, field: str | None, said: str, relevo: Relevo, live: Project
) -> None:
    answer = ask(relevo, live.model, body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["code"] == "invalid"
    assert field is None or error["field"] == field, error
    assert said in error["message"], error
    assert ask(relevo, live.model, records(GOOD)).status_code == 200


def test_a_body_over_the_limit_is_refused(relevo: Relevo, live: Project) -> None:
    answer = ask(relevo, live.model, records({**GOOD, "depot": "x" * 10_500_000}))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"


@pytest.mark.parametrize("action", ["invocations", "labels"])
def test_a_body_of_100_mb_is_refused_before_it_is_sent(action: str, relevo: Relevo, live: Project) -> None:
    head = (
        f"POST /endpoints/{live.model}/{action} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 104857600\r\n"
        f"Authorization: Bearer {relevo.application.credentials.token}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", relevo.gateway_port), timeout=60) as connection:
        connection.sendall(head.encode() + b'{"dataframe_records": [')
        answer = ""
        while "}}" not in answer:
            received = connection.recv(4096)
            assert received, answer
            answer += received.decode()
    assert answer.startswith("HTTP/1.1 413")
    assert "104,857,600" in answer


def test_what_is_not_there_is_named(relevo: Relevo, live: Project) -> None:
    answer = ask(relevo, "parcel", records(GOOD))
    assert answer.status_code == 404
    assert "parcels" in answer.text


def predicted(relevo: Relevo, model: str) -> str:
    (prediction_id,) = ask(relevo, model, records(GOOD)).json()["prediction_ids"]
    return str(prediction_id)


def send(relevo: Relevo, model: str, *labels: dict[str, Any], correct: bool = False) -> tuple[int, dict[str, Any]]:
    answer = ask(relevo, model, json.dumps({"labels": labels, "correct": correct}).encode(), "labels")
    return answer.status_code, answer.json()


def kept(relevo: Relevo, model: str) -> dict[str, int]:
    counts: dict[str, int] = relevo.admin.get(f"/api/models/{model}/log")
    return counts


def test_labels_that_repeat_contradict_or_name_nothing_are_answered_and_counted(relevo: Relevo, live: Project) -> None:
    known, before = predicted(relevo, live.model), kept(relevo, live.model)
    label = {"prediction_id": known, "value": 1}
    assert send(relevo, live.model, label) == (200, {"accepted": 1, "duplicates": 0, "conflicts": [], "unknown": []})
    assert send(relevo, live.model, label) == (200, {"accepted": 0, "duplicates": 1, "conflicts": [], "unknown": []})
    status, answer = send(relevo, live.model, {**label, "value": 0})
    assert (status, answer["conflicts"]) == (409, [known])
    forged = known[:-2] + ("aa" if known[-2:] != "aa" else "bb")
    other = {"prediction_id": predicted(relevo, live.model), "value": 0}
    status, answer = send(relevo, live.model, {"prediction_id": forged, "value": 1}, other)
    assert (status, answer["unknown"], answer["accepted"]) == (400, [forged], 1)
    after = kept(relevo, live.model)
    changes = {name: after[name] - before[name] for name in ("labels", "duplicates", "conflicts", "unknown")}
    assert changes == {"labels": 2, "duplicates": 1, "conflicts": 1, "unknown": 1}
    values = label_values(relevo, live.model)
    assert values[known] == [1.0]  # nothing was overwritten
    assert send(relevo, live.model, {**label, "value": 0}, correct=True)[0] == 200
    kept(relevo, live.model)
    assert label_values(relevo, live.model)[known] == [1.0, 0.0]  # a correction is a revision of its own


def label_values(relevo: Relevo, model: str) -> dict[str, list[float]]:
    """The revisions of every label as they are kept."""
    from deltalake import DeltaTable

    from relevo.predictions.tables import table_path

    rows = DeltaTable(str(table_path(relevo.home, "labels", model))).to_pyarrow_table().to_pylist()
    found: dict[str, list[float]] = {}
    for row in sorted(rows, key=lambda row: row["revision"]):
        found.setdefault(row["prediction_id"], []).append(row["value"])
    return found


@pytest.mark.parametrize(
    ("label", "field"),
    [
        ({"value": 1}, "labels[0]"),
        ({"prediction_id": "x"}, "labels[0].value"),
        ({"prediction_id": "x", "value": "yes"}, "labels[0].value"),
        ({"prediction_id": "x", "value": 7}, "labels[0].value"),
        ({"prediction_id": "x", "value": 1, "known_at": "2030-01-01T00:00:00Z"}, "labels[0].known_at"),
        ({"prediction_id": "x", "value": 1, "known_at": "2024-01-01T00:00:00"}, "labels[0].known_at"),
        ({"prediction_id": "x", "value": 1, "colour": "red"}, "labels[0]"),
    ],
)
def test_a_label_that_does_not_fit_is_refused_by_its_field(
    label: dict[str, Any], field: str, relevo: Relevo, live: Project
) -> None:
    status, answer = send(relevo, live.model, label)
    assert status == 400
    assert answer["error"]["field"] == field, answer
