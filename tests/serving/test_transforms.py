"""Inputs that a transform computes: in the gateway as in training, logged like features; what is sent wins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from gateway_home import ENDPOINT, NOW, SIGNATURE, Home

from relevo.features.declare import latest
from relevo.features.model import Entity, FeatureView
from relevo.features.request import OnRequest, asked_at, value
from relevo.runtimes.model import Column, ColumnType

VIEW = FeatureView("gate", entity=Entity("airport", "origin"), source="flights", features={"queue": latest("queue")})
DECLARED = OnRequest(
    {
        "waiting": value("queue").fill_null(0) * 2 + value("half"),
        "half": value("distance") / value("origin_number"),
        "hour": asked_at.in_zone("America/New_York").hour,
    }
)


@pytest.fixture(scope="module")
def flights(shared: Home) -> Home:
    """Version 4, addressed by header: its transforms are named so that the linear model adds some of them up."""
    inputs = (
        *SIGNATURE.inputs,
        Column("origin_number", ColumnType.INTEGER),
        Column("queue", ColumnType.FLOAT, view="gate"),
        *(Column(transform.name, ColumnType.FLOAT, is_computed=True) for transform in DECLARED.transforms),
    )
    signature = replace(SIGNATURE, inputs=inputs, keys=(Column("origin", ColumnType.TEXT),))
    shared.place(4, signature=signature, views=(VIEW,), transforms=DECLARED.transforms)
    shared.serving.await_loaded(ENDPOINT, 4, 20)
    return shared


@pytest.fixture
def asking(flights: Home) -> Iterator[httpx.Client]:
    with flights.client() as client:
        client.headers["x-relevo-version"] = "4"
        yield client


def ask(flights: Home, client: httpx.Client, **changes: Any) -> list[Any]:
    """The inputs that the log has of a request."""
    row = {
        "distance": 10.0,
        "carrier": "UA",
        "origin_number": 4,
        "origin": "JFK",
        "scheduled_at": (NOW + timedelta(hours=2)).isoformat(),
    }
    many = changes.pop("rows", 1)
    name = changes.pop("request_id")
    body = {"dataframe_records": [row | changes] * many, "request_id": name}
    answer = client.post(f"/endpoints/{ENDPOINT}/invocations", json=body)
    assert answer.status_code == 200, answer.text

    def logged() -> list[Any]:
        return [one for one in flights.records() if one.request_id == name]

    flights.eventually(lambda: len(logged()) == 1)
    return logged()[0].inputs  # type: ignore[no-any-return]


def test_transforms_are_computed_after_the_lookup_and_logged(flights: Home, asking: httpx.Client) -> None:
    assert ask(flights, asking, request_id="one") == [[10.0, "UA", 4, None, 2.5, 2.5, 22.0]]
    assert ask(flights, asking, request_id="zero", origin_number=0) == [[10.0, "UA", 0, None, None, None, 22.0]]


def test_a_transform_reads_the_feature_that_the_caller_sent(flights: Home, asking: httpx.Client) -> None:
    assert ask(flights, asking, request_id="feature", queue=3.0) == [[10.0, "UA", 4, 3.0, 2.5, 8.5, 22.0]]


def test_a_transform_that_the_caller_sends_wins_and_others_read_it(flights: Home, asking: httpx.Client) -> None:
    assert ask(flights, asking, request_id="sent", half=7.0) == [[10.0, "UA", 4, None, 7.0, 7.0, 22.0]]
    assert ask(flights, asking, request_id="null", half=None) == [[10.0, "UA", 4, None, None, None, 22.0]]


def test_many_rows_are_computed_too(flights: Home, asking: httpx.Client) -> None:
    assert ask(flights, asking, request_id="many", rows=300, queue=1.0) == [[10.0, "UA", 4, 1.0, 2.5, 4.5, 22.0]] * 300


def test_the_key_is_not_needed_when_only_transforms_are_left_out(asking: httpx.Client) -> None:
    row = {"distance": 10.0, "carrier": "UA", "origin_number": 4, "queue": 1.0, "scheduled_at": NOW.isoformat()}
    answer = asking.post(f"/endpoints/{ENDPOINT}/invocations", json={"dataframe_records": [row]})
    assert answer.status_code == 200, answer.text
