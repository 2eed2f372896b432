"""Inputs that the caller does not send come from the online store, as known at the asked time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import polars as pl
import pytest
from gateway_home import ENDPOINT, NOW, SIGNATURE, Home

from relevo.features.declare import latest
from relevo.features.merging import merged
from relevo.features.model import Entity, FeatureView, view_id
from relevo.features.online import OnlineStore
from relevo.features.progress import Filled, microseconds, new_generation
from relevo.features.rows import EVENT, KNOWN, value_column
from relevo.predictions import frames
from relevo.runtimes.model import Column, ColumnType

VIEW = FeatureView(
    "at_origin", entity=Entity("airport", "origin"), source="flights", features={"delay": latest("delay")}
)
THROUGH = NOW + timedelta(hours=3)


def put(home: Home, origin: str, **delays: float) -> None:
    """Keep delays at the origin: each is known since that many hours (``h1=5.0``) after ``NOW``."""
    at = [NOW + timedelta(hours=int(name[1:])) for name in delays]
    rows = pl.DataFrame(
        {"origin": [origin] * len(at), KNOWN: at, EVENT: at, value_column("delay"): list(delays.values())}
    )
    through_us = microseconds(THROUGH)
    filled = Filled(new_generation(), through_us, "test", through_us, through_us)
    entries = merged({0: (VIEW, rows)}, through_us, filled.generation)
    with closing(OnlineStore(home.settings.online_store)) as store:
        store.update(ENDPOINT, lambda record: record.replaced({view_id(ENDPOINT, VIEW): filled}), entries)


@pytest.fixture(scope="module")
def flights(shared: Home) -> Home:
    """Version 3, addressed by header, has an input that a view fills."""
    delay = Column("delay", ColumnType.FLOAT, view="at_origin")
    signature = replace(SIGNATURE, inputs=(*SIGNATURE.inputs, delay), keys=(Column("origin", ColumnType.TEXT),))
    put(shared, "JFK", h1=10.0, h2=20.0)
    shared.place(3, signature=signature, views=(VIEW,), delay_weight=1.0)
    shared.serving.await_loaded(ENDPOINT, 3, 20)
    return shared


@pytest.fixture
def asking(flights: Home) -> Iterator[httpx.Client]:
    with flights.client() as client:
        client.headers["x-relevo-version"] = "3"
        yield client


def ask(client: httpx.Client, *rows: dict[str, Any]) -> list[float]:
    usual = {"distance": 1.0, "carrier": "UA", "scheduled_at": (NOW + timedelta(hours=3)).isoformat()}
    answer = client.post(
        f"/endpoints/{ENDPOINT}/invocations", json={"dataframe_records": [usual | row for row in rows]}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]  # type: ignore[no-any-return]


def at(hour: float) -> str:
    return (NOW + timedelta(hours=hour)).isoformat()


def test_a_feature_is_what_was_known_at_the_asked_time(asking: httpx.Client) -> None:
    rows = [{"origin": "JFK", "scheduled_at": at(hour)} for hour in (0.5, 1.5, 2.5)]
    assert ask(asking, *rows) == [2.0, 13.0, 23.0]


def test_an_unknown_entity_is_null(asking: httpx.Client) -> None:
    assert ask(asking, {"origin": "LGA"}, {"origin": None}) == [2.0, 2.0]


def test_what_the_caller_sends_is_not_looked_up(asking: httpx.Client) -> None:
    assert ask(asking, {"origin": "JFK", "delay": 100.0}) == [103.0]


def test_many_rows_are_looked_up_too(asking: httpx.Client) -> None:
    rows = [{"origin": "JFK", "scheduled_at": at(1.5 + place % 2)} for place in range(500)]
    assert ask(asking, *rows) == [13.0, 23.0] * 250


def test_the_log_has_the_features_and_how_far_the_store_was_filled(flights: Home, asking: httpx.Client) -> None:
    ask(asking, {"origin": "JFK", "distance": 31.0})

    def logged() -> list[Any]:
        return [one for one in flights.records() if one.inputs == [[31.0, "UA", 20.0]]]

    flights.eventually(lambda: len(logged()) == 1)
    record = logged()[0]
    assert record.keys == [["JFK"]]
    assert frames.marked(record.looked_up or b"") == [2]
    assert record.materialised_through_us == microseconds(THROUGH)
    assert record.asked_at_us == [microseconds(datetime.fromisoformat(at(3)))]


def test_the_log_tells_what_the_caller_sent_from_what_was_looked_up(flights: Home, asking: httpx.Client) -> None:
    ask(asking, {"origin": "JFK", "distance": 32.0, "delay": 20.0})

    def logged() -> list[Any]:
        return [one for one in flights.records() if one.inputs == [[32.0, "UA", 20.0]]]

    flights.eventually(lambda: len(logged()) == 1)
    assert logged()[0].looked_up == b""


def test_a_row_without_the_key_is_refused(asking: httpx.Client) -> None:
    answer = asking.post(
        f"/endpoints/{ENDPOINT}/invocations", json={"dataframe_records": [{"distance": 1.0, "carrier": "UA"}]}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["field"] == "origin"


@pytest.fixture(scope="module")
def strict(flights: Home) -> Home:
    """Version 5 is as version 3, and its view is required; version 6 requires a view that was never filled."""
    delay = Column("delay", ColumnType.FLOAT, view="at_origin")
    signature = replace(SIGNATURE, inputs=(*SIGNATURE.inputs, delay), keys=(Column("origin", ColumnType.TEXT),))
    for version, features in ((5, VIEW.features), (6, {"delay": latest("another")})):
        view = FeatureView("at_origin", entity=VIEW.entity, source="flights", features=features, required=True)
        flights.place(version, signature=signature, views=(view,), delay_weight=1.0)
        flights.serving.await_loaded(ENDPOINT, version, 20)
    return flights


def test_a_required_view_refuses_an_entity_that_it_does_not_know(strict: Home) -> None:
    with strict.client() as client:
        client.headers["x-relevo-version"] = "5"
        assert ask(client, {"origin": "JFK"}) == [23.0 + 2]
        assert ask(client, {"origin": "LGA", "delay": 1.0}) == [6.0]
        row = {"distance": 1.0, "carrier": "UA", "scheduled_at": at(3), "origin": "LGA"}
        url = f"/endpoints/{ENDPOINT}/invocations"
        refused = client.post(url, json={"dataframe_records": [{**row, "origin": "JFK"}, row]})
        assert refused.status_code == 400
        assert refused.json()["error"]["field"] == "origin"
        message = "Row 1: view at_origin knows no airport with origin 'LGA' at 2013-04-01T03:00:00+00:00."
        assert refused.json()["error"]["message"] == message
        nameless = client.post(url, json={"dataframe_records": [{**row, "origin": None}]})
        assert nameless.json()["error"]["message"] == "Row 0: view at_origin needs 'origin', got null."
        strict.eventually(lambda: any(record.error == message for record in strict.records()))


def test_a_required_view_that_was_never_filled_is_no_fault_of_the_caller(strict: Home) -> None:
    with strict.client() as client:
        client.headers["x-relevo-version"] = "6"
        row = {"distance": 1.0, "carrier": "UA", "scheduled_at": at(3), "origin": "JFK"}
        answer = client.post(f"/endpoints/{ENDPOINT}/invocations", json={"dataframe_records": [row]})
        assert answer.status_code == 500
        assert "view at_origin is required, and was not filled yet" in answer.json()["error"]["message"]
