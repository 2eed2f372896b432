"""A gateway for requests that nobody would send: an endpoint whose signature has every kind of column."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gateway_home import ENDPOINT, SIGNATURE, Home

from relevo.contract.model import Task
from relevo.features.declare import latest
from relevo.features.model import Entity, FeatureView
from relevo.features.request import OnRequest, value
from relevo.runtimes.model import Column, ColumnType, Signature

VIEW = FeatureView("gate", entity=Entity("airport", "origin"), source="flights", features={"queue": latest("queue")})
COMPUTED = OnRequest({"half": value("distance") / 2})
EVERY_KIND = Signature(
    Task.REGRESSION,
    (
        Column("distance", ColumnType.FLOAT, nullable=False),
        Column("carrier", ColumnType.TEXT),
        Column("seats", ColumnType.INTEGER),
        Column("is_early", ColumnType.BOOLEAN),
        Column("booked_at", ColumnType.TIME),
        Column("queue", ColumnType.FLOAT, view="gate"),
        Column("half", ColumnType.FLOAT, is_computed=True),
    ),
    keys=(Column("origin", ColumnType.TEXT),),
    at="scheduled_at",
)


def gateway(folder: Path) -> Iterator[Home]:
    """A home with one worker: version 1 in production has every kind of column, version 2 one number alone."""
    home = Home(folder)
    try:
        home.endpoint("buffered")
        home.place(1, signature=EVERY_KIND, views=(VIEW,), transforms=COMPUTED.transforms, weight=1e-3)
        home.place(2, signature=SIGNATURE)
        home.route((1, 100))
        home.start()
        home.serving.await_loaded(ENDPOINT, 1, 20)
        home.serving.await_loaded(ENDPOINT, 2, 20)
        yield home
    finally:
        home.stop()
