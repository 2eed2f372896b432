"""The airline's own application: what it asks the endpoint, and which outcomes it reports back, and when."""

import polars as pl

from flight_delay.sources import scheduled

INPUTS = ["carrier", "origin", "dest", "distance", "hour", "weekday"]
CANCELLED_IS_KNOWN_AFTER = pl.duration(hours=6)


def board() -> pl.DataFrame:
    """Every scheduled flight in order of schedule, with what is asked and what is reported.

    Columns: ``flight_id``, ``scheduled_at``, the inputs, ``tailnum``, ``reported_at`` and ``is_late``; the last is null
    for a flight that was cancelled or diverted and so has no outcome.
    """
    flights = scheduled().with_columns(
        is_late=pl.col("arr_delay") > 15,
        reported_at=pl.coalesce("known_at", pl.col("scheduled_at") + CANCELLED_IS_KNOWN_AFTER),
    )
    columns = ["flight_id", "scheduled_at", *INPUTS, "tailnum", "reported_at", "is_late"]
    return flights.select(columns).collect()
