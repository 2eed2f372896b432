"""A gateway whose online store is a Redis that goes away and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from gateway_home import ENDPOINT, NOW, SIGNATURE, Home

from redis_server import OwnRedis
from relevo.features.declare import latest
from relevo.features.merging import merged
from relevo.features.model import Entity, FeatureView, view_id
from relevo.features.online import OnlineStore
from relevo.features.progress import Filled, microseconds, new_generation
from relevo.features.rows import EVENT, KNOWN, value_column
from relevo.runtimes.model import Column, ColumnType

VIEW = FeatureView(
    "at_origin", entity=Entity("airport", "origin"), source="flights", features={"delay": latest("delay")}
)


@pytest.fixture
def redis() -> Iterator[OwnRedis]:
    with OwnRedis() as own:
        yield own


@pytest.fixture
def home(tmp_path: Path, redis: OwnRedis) -> Iterator[Home]:
    """Version 1 in production has an input that a view fills."""
    home = Home(tmp_path / "home", online_url=redis.url)
    try:
        delay = Column("delay", ColumnType.FLOAT, view="at_origin")
        signature = replace(SIGNATURE, inputs=(*SIGNATURE.inputs, delay), keys=(Column("origin", ColumnType.TEXT),))
        fill(home)
        home.endpoint("durable")
        home.place(1, signature=signature, views=(VIEW,), delay_weight=1.0)
        home.route((1, 100))
        home.start()
        home.serving.await_loaded(ENDPOINT, 1, 20)
        yield home
    finally:
        home.stop()


def fill(home: Home) -> None:
    times = [NOW, NOW + timedelta(hours=1)]
    rows = pl.DataFrame({"origin": ["JFK"] * 2, KNOWN: times, EVENT: times, value_column("delay"): [10.0, 20.0]})
    filled = Filled(new_generation(), microseconds(times[1]), "test", microseconds(times[1]), microseconds(times[1]))
    entries = merged({0: (VIEW, rows)}, filled.through_us, filled.generation)
    with closing(OnlineStore(home.settings.online_store)) as store:
        store.update(ENDPOINT, lambda record: record.replaced({view_id(ENDPOINT, VIEW): filled}), entries)


def ask(client: httpx.Client, **more: Any) -> httpx.Response:
    row = {"distance": 1.0, "carrier": "UA", "origin": "JFK", "scheduled_at": (NOW + timedelta(hours=2)).isoformat()}
    return client.post(f"/endpoints/{ENDPOINT}/invocations", json={"dataframe_records": [row | more]})


def test_without_redis_lookups_are_refused_and_all_else_goes_on(home: Home, redis: OwnRedis) -> None:
    with home.client() as client:
        earlier = {"scheduled_at": (NOW + timedelta(minutes=30)).isoformat()}
        assert [ask(client).json()["predictions"], ask(client, **earlier).json()["predictions"]] == [[21.0], [11.0]]
        redis.kill()
        refused = ask(client)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "unavailable"
        assert f"Redis 127.0.0.1:{redis.port}" in refused.json()["error"]["message"]
        assert ask(client).status_code == 503
        assert ask(client, delay=100.0).json()["predictions"] == [101.0]
        home.eventually(lambda: (home.count(1).requests, home.count(1).unfilled) == (3, 2))
        assert home.count(1).failed == 0
        redis.start()
        home.eventually(lambda: ask(client).status_code == 200)
        assert ask(client).json()["predictions"] == [21.0]
    failed = [record for record in home.records() if record.status == "failed"]
    assert len(failed) >= 2
    assert "Redis" in str(failed[0].error) and failed[0].inputs[0][:2] == [1.0, "UA"]
