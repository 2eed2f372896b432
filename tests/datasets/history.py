"""A model with two datasets and their versions: real tables, recorded as a training run records them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from relevo.datasets.model import CheckResult, DatasetVersion, LoadedDataset
from relevo.datasets.service import Datasets
from relevo.datasets.tables import write_version
from relevo.platform.state import State

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SNAPSHOT = "5e" * 32


def flights(days: int) -> pl.DataFrame:
    """Forty flights a day. From day 20 there is a column more and some delays are corrected; from day 40 the delay is
    given in another type."""
    rng, rows = np.random.default_rng(7), 40 * 60
    frame = pl.DataFrame(
        {
            "flight_id": np.arange(rows),
            "scheduled_at": [BEGIN + timedelta(minutes=36 * row) for row in range(rows)],
            "carrier": rng.choice(["UA", "B6", "DL", "EV"], rows),
            "delay": rng.normal(7, 30, rows).round(1),
            "tailnum": [f"N{number}" for number in rng.integers(10_000, 12_000, rows)],
        }
    ).with_columns(delay=pl.when(pl.col("flight_id") % 9 > 0).then("delay"))
    frame = frame.head(40 * days)
    if days >= 20:
        corrected = pl.when(pl.col("flight_id") % 100 == 1).then(0.0).otherwise("delay")
        frame = frame.with_columns(delay=corrected, distance=pl.lit(1400.0))
    return frame.with_columns(pl.col("delay").cast(pl.Float32)) if days >= 40 else frame


def weather(days: int) -> pl.DataFrame:
    """One row a day."""
    at = [BEGIN + timedelta(days=day) for day in range(days)]
    return pl.DataFrame(
        {"origin": ["EWR"] * days, "observed_at": at, "wind_speed": [float(day) for day in range(days)]}
    )


CHECKS = (
    CheckResult("delay|max", 7, 800, ("{flight_id: 3, delay: 912.0}", "{flight_id: 9, delay: 611.5}"), "quarantine"),
    CheckResult("primary_key", 0, 800, (), "quarantine"),
)
FOUND: dict[int, dict[str, object]] = {
    2: {"changes": ("column distance is new (Float64)",), "checks": CHECKS, "quarantined": 7},
    3: {"changes": ("column delay was Float64 and is Float32",)},
}


def record(
    state: State, tables: Path, model: str, source: str, frame: pl.DataFrame, *, run: str, at: datetime,
    **found: Any,
) -> DatasetVersion:  # fmt: skip
    """Write a version as a load does, and record it as a training run does."""
    number, digest, is_new = write_version(tables / model / source, frame, {})
    loaded = LoadedDataset(
        name=source,
        version=number,
        digest=digest,
        rows=frame.height,
        columns={name: str(kind) for name, kind in frame.schema.items()},
        known_through=at,
        is_new=is_new,
        **found,
    )
    with state.transaction() as tx:
        return Datasets(state).record(tx, model, loaded, snapshot=SNAPSHOT, workflow_id=run, created_at=at)


def plant(state: State, tables: Path, model: str = "flight-delay") -> None:
    """Four versions of flights, two of weather."""
    for number, days in enumerate((10, 15, 20, 40)):
        at, run = BEGIN + timedelta(days=days), f"deliver-{model}-r{number + 1}"
        record(state, tables, model, "flights", flights(days), run=run, at=at, **FOUND.get(number, {}))
        if number < 2:
            record(state, tables, model, "weather", weather(days), run=run, at=at)
