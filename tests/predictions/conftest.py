"""A home folder, and records as a gateway would write them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from relevo.platform.settings import Settings
from relevo.predictions import frames
from relevo.predictions.ids import Issuer, new_boot

KEY = b"k" * 32
ASKED_AT = datetime(2013, 8, 15, tzinfo=UTC)
ASKED_AT_US = int(ASKED_AT.timestamp() * 1_000_000)
FLIGHT_LAYOUT = frames.layout([("distance", "float"), ("carrier", "text")], [("origin", "text")])

RecordMaker = Callable[..., frames.Record]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def key() -> bytes:
    return KEY


@pytest.fixture
def asked_at() -> datetime:
    return ASKED_AT


@pytest.fixture
def issuer() -> Issuer:
    return Issuer(KEY, 1, new_boot())


@pytest.fixture
def record(issuer: Issuer) -> RecordMaker:
    """Makes a record of ``rows`` rows; anything of it can be given."""

    def make(rows: int = 1, **changed: Any) -> frames.Record:
        at_us = changed.pop("at_us", ASKED_AT_US)
        usual = {
            "endpoint": "flight-delay",
            "version": 3,
            "logged_at_us": ASKED_AT_US,
            "asked_at_us": [at_us] * rows,
            "ids": issuer.issue(at_us, rows),
            "layout": FLIGHT_LAYOUT,
            "inputs": [[1400.0, "UA"]] * rows,
            "keys": [["JFK"]] * rows,
            "predictions": [0.25] * rows,
            "materialised_through_us": at_us,
        }
        return frames.Record(**(usual | changed))

    return make
