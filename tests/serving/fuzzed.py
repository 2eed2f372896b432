"""A gateway for requests that nobody would send: an endpoint whose signature has every kind of column."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gateway_home import ENDPOINT, SIGNATURE, Home
from test_lookups import VIEW, put

from relevo.contract.model import Task
from relevo.features.request import OnRequest, asked_at, exp, log, value
from relevo.runtimes.model import Column, ColumnType, Signature

COMPUTED = OnRequest(
    {
        "half": value("distance") / value("seats"),
        "hour": asked_at.in_zone("America/New_York").hour,
        "steep": exp(log(value("distance")) * value("distance")),
    }
)
EVERY_KIND = Signature(
    Task.REGRESSION,
    (
        Column("distance", ColumnType.FLOAT, nullable=False),
        Column("carrier", ColumnType.TEXT),
        Column("seats", ColumnType.INTEGER),
        Column("is_early", ColumnType.BOOLEAN),
        Column("booked_at", ColumnType.TIME),
        Column("delay", ColumnType.FLOAT, view="at_origin"),
        *(Column(transform.name, ColumnType.FLOAT, is_computed=True) for transform in COMPUTED.transforms),
    ),
    keys=(Column("origin", ColumnType.TEXT),),
    at="scheduled_at",
)


def gateway(folder: Path) -> Iterator[Home]:
    """A home with one worker: version 1 in production has every kind of column, version 2 one number alone."""
    home = Home(folder)
    try:
        home.endpoint("buffered")
        put(home, "JFK", h1=10.0, h2=20.0)
        home.place(1, signature=EVERY_KIND, views=(VIEW,), transforms=COMPUTED.transforms, weight=1e-3)
        home.place(2, signature=SIGNATURE)
        home.route((1, 100))
        home.start()
        home.serving.await_loaded(ENDPOINT, 1, 20)
        home.serving.await_loaded(ENDPOINT, 2, 20)
        yield home
    finally:
        home.stop()
