"""The tables that are joined, looked up and materialised, as Parquet files, and what the engines are told of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import flights
import numpy as np
import polars as pl

START = datetime(2024, 1, 1, tzinfo=UTC)
#: All generated rows are known by then.
END = datetime(2025, 6, 1, tzinfo=UTC)
YEAR = 365 * 24 * 3600
LATE_SHARE, LATE_BY = 0.2, 24 * 3600  # seconds, mean
SEED = 7
_MICROSECONDS = pl.Datetime("us", "UTC")


@dataclass(frozen=True, slots=True)
class View:
    """The newest value of some columns of a source, by one key.

    Attributes:
        source: The file's name.
        key: The entity's column.
        known: The column that says since when a row is known.
        columns: What is given; of joins the first alone.
        event: The column that says when it happened; None: when it is known.
        ttl_hours: Age up to which a row counts, from its event on, inclusive; None: for ever.
        lag_hours: How long after its event every row is known; None: that differs.
    """

    source: str
    key: str
    known: str
    columns: tuple[str, ...]
    event: str | None = None
    ttl_hours: int | None = None
    lag_hours: int | None = 0


@dataclass(frozen=True, slots=True)
class Tables:
    """A folder with ``spine.parquet`` and a Parquet file a source; no spine where nothing is joined."""

    folder: str
    views: tuple[View, ...]
    rows: dict[str, int]
    at: str = ""

    def told(self) -> dict[str, Any]:
        """As JSON, for the children."""
        return asdict(self)

    def with_ttl(self, hours: int) -> Tables:
        """The same tables, of which rows count for so long."""
        return replace(self, views=tuple(replace(view, ttl_hours=hours) for view in self.views))

    def head(self, folder: Path, rows: int) -> Tables:
        """The same sources with the first rows of the spine, in another folder."""
        spine = pl.scan_parquet(f"{self.folder}/spine.parquet").head(rows).collect()
        _write(folder, {"spine": spine})
        for view in self.views:
            (folder / f"{view.source}.parquet").symlink_to(f"{self.folder}/{view.source}.parquet")
        return replace(self, folder=str(folder), rows=self.rows | {"spine": rows})


def flight_tables(folder: Path) -> Tables:
    """All flights as spine; the newest departure delay and wind of the airport, arrival delay of the aircraft.

    Of rows of a key that became known at once the sources hold the last alone: engines differ in which they would take.
    """
    views = (
        View("departures", "origin", "departed_at", ("dep_delay",), ttl_hours=4),
        View("landings", "tailnum", "known_at", ("arr_delay",), ttl_hours=24),
        View("weather", "origin", "known_at", ("wind_speed",), event="observed_at", ttl_hours=6, lag_hours=1),
    )
    tables = flights.tables()
    found = {"spine": flights.scheduled().select("scheduled_at", "origin", "tailnum").with_row_index("row")}
    for view in views:
        rows = tables[view.source].drop_nulls([view.key, view.known])
        found[view.source] = rows.unique([view.key, view.known], keep="last", maintain_order=True)
    return Tables(str(folder), views, _write(folder, found), at="scheduled_at")


def large_tables(folder: Path, scale: float) -> Tables:
    """5 million rows of spine and sources of 10, 8 and 5 million, times ``scale``; deterministic.

    A year, events by the minute; a fifth becomes known late, by a day on average. Rows that share key, event and known
    time have one value.
    """
    sizes = {"payments": ("customer", 10_000_000, 200_000), "logins": ("device", 8_000_000, 100_000)}
    sizes["visits"] = ("shop", 5_000_000, 50_000)
    random = np.random.default_rng(SEED)
    asked = int(5_000_000 * scale)
    spine = {"row": np.arange(asked), "at": _microseconds(random.integers(0, YEAR, asked))}
    views = []
    rows = {}
    for number, (source, (key, count, keys)) in enumerate(sizes.items()):
        keys = max(1, int(keys * scale))
        spine[key] = random.integers(0, keys, asked)
        table = _generated(source, key, int(count * scale), keys, np.random.default_rng([SEED, number]))
        rows |= _write(folder, {source: table})
        views.append(View(source, key, "known_at", (source,), event="event_at", lag_hours=None))
    rows |= _write(folder, {"spine": pl.DataFrame(spine).with_columns(pl.col("at").cast(_MICROSECONDS))})
    return Tables(str(folder), tuple(views), rows, at="at")


def entity_tables(folder: Path, entities: int) -> Tables:
    """Three sources with one row a customer: two numbers and a text each."""
    random = np.random.default_rng(SEED)
    views, found = [], {}
    for source in ("profile", "usage", "risk"):
        columns = (f"{source}_amount", f"{source}_number", f"{source}_group")
        found[source] = pl.DataFrame(
            {
                "customer": random.permutation(entities),
                "at": _microseconds(random.integers(0, YEAR, entities)),
                columns[0]: random.normal(100, 20, entities).round(4),
                columns[1]: random.integers(0, 1_000, entities),
                columns[2]: [f"{source} {number}" for number in random.integers(0, 40, entities)],
            }
        ).with_columns(pl.col("at").cast(_MICROSECONDS))
        views.append(View(source, "customer", "at", columns))
    return Tables(str(folder), tuple(views), _write(folder, found))


def newest(tables: Tables) -> dict[Any, dict[str, Any]]:
    """Of tables of one key with one row each: the values by key."""
    found: dict[Any, dict[str, Any]] = {}
    for view in tables.views:
        for row in pl.read_parquet(f"{tables.folder}/{view.source}.parquet").iter_rows(named=True):
            found.setdefault(row[view.key], {}).update({name: row[name] for name in view.columns})
    return found


def _generated(source: str, key: str, count: int, keys: int, random: np.random.Generator) -> pl.DataFrame:
    of = random.integers(0, keys, count)
    event = random.integers(0, YEAR // 60, count)
    late = np.where(random.random(count) < LATE_SHARE, random.exponential(LATE_BY / 60, count), 0).astype(np.int64)
    known = event + late
    return pl.DataFrame(
        {
            key: of,
            "event_at": _microseconds(event * 60),
            "known_at": _microseconds(known * 60),
            source: (of * 7 + event * 31 + known * 17) % 100_003 / 100,
        }
    ).with_columns(pl.col("event_at", "known_at").cast(_MICROSECONDS))


def _microseconds(seconds: Any) -> Any:
    return (int(START.timestamp()) + seconds) * 1_000_000


def _write(folder: Path, tables: dict[str, pl.DataFrame]) -> dict[str, int]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.write_parquet(folder / f"{name}.parquet")
    return {name: table.height for name, table in tables.items()}
