"""Two months of parcels and of the queues at their depots, made by code: the same rows in every run."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from parcels import witness

START = datetime(2024, 1, 1, tzinfo=UTC)
DEPOTS = ["north", "port", "south"]
ROWS = 4_000  # one in 20 minutes


def parcels(until: datetime) -> pl.DataFrame:
    """Each parcel, known when it was delivered: up to five hours later."""
    witness.saw("parcels loaded")
    random = np.random.default_rng(3)
    number = np.arange(ROWS)
    depot = random.choice(DEPOTS, ROWS)
    weight = random.gamma(2.0, 3.0, ROWS).round(2)
    score = weight / 4 + (depot == "port") + _queue(number / 3) + random.normal(0, 0.7, ROWS)
    asked_at = [START + timedelta(minutes=20 * int(i)) for i in number]
    took = random.integers(60, 300, ROWS)
    rows = pl.DataFrame(
        {
            "parcel_id": number,
            "asked_at": asked_at,
            "delivered_at": [at + timedelta(minutes=int(minutes)) for at, minutes in zip(asked_at, took, strict=True)],
            "depot": depot,
            "weight": weight,
            "is_late": score > 2.5,
        }
    )
    return rows.filter(pl.col("delivered_at") <= until)


def scans(until: datetime) -> pl.DataFrame:
    """How long the queue of each depot was, every hour."""
    hours = np.arange(ROWS // 3)
    at = [START + timedelta(hours=int(hour)) for hour in hours]
    each = [pl.DataFrame({"depot": depot, "at": at, "waiting": _queue(hours)}) for depot in DEPOTS]
    return pl.concat(each).filter(pl.col("at") <= until)


def _queue(hours: np.ndarray) -> np.ndarray:
    return 1 + np.sin(hours / 60)
