"""A process that materialises many entities in small parts, and kills itself where it is told to."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from relevo.contract.model import Source
from relevo.features import Entity, FeatureView, count, latest
from relevo.features.materialise import Materialiser
from relevo.features.online import OnlineStore

START = datetime(2026, 1, 1, tzinfo=UTC)
ENTITIES, PART_ROWS = 200, 40
SOURCE = Source("events", "filling:events", ("id", "hour"), event_time="at")
VIEW = FeatureView(
    "events",
    entity=Entity("entity", "id"),
    source="events",
    features={"hour": latest("hour"), "n": count(over="10h")},
)


def events(until: datetime) -> pl.DataFrame:
    """Each entity has a row every hour, which tells the hour."""
    hours = int((until - START) / timedelta(hours=1))
    rows = [(entity, hour, START + timedelta(hours=hour)) for hour in range(hours + 1) for entity in range(ENTITIES)]
    return pl.DataFrame(rows, schema={"id": pl.Int64, "hour": pl.Int64, "at": pl.Datetime("us", "UTC")}, orient="row")


def at(hour: int) -> datetime:
    return START + timedelta(hours=hour)


def materialiser(store: OnlineStore, origin: str = "code") -> Materialiser:
    return Materialiser(
        store,
        model="m",
        views=[VIEW],
        sources=[SOURCE],
        package=Path(__file__).parent,
        origin=origin,
        part_rows=PART_ROWS,
    )


def die_at(store: OnlineStore, method: str, call: int) -> None:
    """Kill this process when ``method`` of the storage is called for the so-manieth time."""
    original, calls = getattr(store.storage, method), [0]

    def counted(*arguments: object, **options: object) -> object:
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(store.storage, method, counted)


if __name__ == "__main__":
    place, origin, hour, method, call = sys.argv[1:]
    with closing(OnlineStore(place)) as opened:
        die_at(opened, method, int(call))
        materialiser(opened, origin).materialise(at(int(hour)))
