"""Feature joins beside the bare engines, and lookups beside a bare select.

Offline: ``point_in_time.attach`` from Parquet files to a frame, each run in a process of its own, beside Polars'
``join_asof`` and pandas' ``merge_asof`` on the same three tables. Online: ``OnlineStore.lookup`` beside a select of the
very rows that it reads. Before anything is timed it is checked that the values agree.
"""

from __future__ import annotations

import argparse
import json
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

MODEL = "bench"
AT = "scheduled_at"
#: The views that only take the latest row: name of the feature, source, key, since when a row is known, column.
LATEST = (
    ("latest_departure_delay", "departures", "origin", "departed_at", "dep_delay"),
    ("latest_arrival_delay", "landings", "tailnum", "known_at", "arr_delay"),
    ("latest_wind_speed", "weather", "origin", "known_at", "wind_speed"),
)
FEATURES = [name for name, *_ in LATEST]
ENTITIES = (1, 100)
CALLS = {1: 1_000, 100: 30}


def main() -> None:
    from report import Report

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    report = Report("joins", vars(options) | {"calls": CALLS})
    with tempfile.TemporaryDirectory(prefix="relevo-bench-") as name:
        folder = Path(name)
        report.settings |= _write_tables(folder)
        report.checks = _check_joins(folder)
        for number in range(options.rounds):
            for engine in ENGINES:
                found = _in_child(engine, folder)
                report.measurements.append({"round": number, "part": "join", "engine": engine} | found)
        _measure_lookups(report, folder, options.rounds)
    _summarise(report)
    report.write()


# Offline. These run in child processes, which import only what they measure.


def _child(engine: str, folder: Path, output: str | None) -> None:
    """One join, timed from files to frame; prints JSON. With ``output`` the frame is kept."""
    prepare = ENGINES[engine]
    join = prepare(folder)
    before = _peak_mb()
    began = time.perf_counter()
    frame = join()
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "peak_mb": _peak_mb(), "before_mb": before, "rows": len(frame)}))
    if output is not None:
        frame[["row", *FEATURES]].to_parquet(output) if engine == "pandas" else frame.write_parquet(output)


def _attach_latest(folder: Path) -> Callable[[], Any]:
    from relevo.features import Entity, FeatureView, latest

    views = [
        FeatureView(source, entity=Entity(key, key), source=source, features={feature: latest(column)})
        for feature, source, key, _, column in LATEST
    ]
    return _attach(folder, views)


def _attach_all(folder: Path) -> Callable[[], Any]:
    import flights

    return _attach(folder, flights.views())


def _attach(folder: Path, views: list[Any]) -> Callable[[], Any]:
    import flights
    import polars as pl

    from relevo.features.point_in_time import attach

    sources = flights.contract().sources

    def join() -> Any:
        tables = {view.source: pl.scan_parquet(folder / f"{view.source}.parquet") for view in views}
        return attach(pl.scan_parquet(folder / "spine.parquet"), views, tables, sources=sources, at=AT).collect()

    return join


def _bare_polars(folder: Path) -> Callable[[], Any]:
    import polars as pl

    def join() -> Any:
        spine = pl.scan_parquet(folder / "spine.parquet").sort(AT)
        for feature, source, key, known, column in LATEST:
            rows = pl.scan_parquet(folder / f"{source}.parquet").select(key, known, pl.col(column).alias(feature))
            rows = rows.rename({known: AT}).sort(AT, maintain_order=True)
            spine = spine.join_asof(rows, on=AT, by=key, check_sortedness=False)
        return spine.collect()

    return join


def _bare_pandas(folder: Path) -> Callable[[], Any]:
    import pandas as pd

    def join() -> Any:
        spine = pd.read_parquet(folder / "spine.parquet").sort_values(AT)
        for feature, source, key, known, column in LATEST:
            rows = pd.read_parquet(folder / f"{source}.parquet", columns=[key, known, column])
            rows = rows.dropna(subset=[key]).rename(columns={column: feature, known: AT})
            spine = pd.merge_asof(spine, rows.sort_values(AT, kind="stable"), on=AT, by=key)
        return spine

    return join


#: By name, what imports its library and gives the join to time. The first two are ours.
ENGINES: dict[str, Callable[[Path], Callable[[], Any]]] = {
    "attach, five views": _attach_all,
    "attach, three latest": _attach_latest,
    "Polars join_asof": _bare_polars,
    "pandas": _bare_pandas,
}


def _peak_mb() -> float:
    """The most memory that this process has had resident."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def _in_child(engine: str, folder: Path, output: Path | None = None) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", engine, str(folder), *([] if output is None else [str(output)])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _write_tables(folder: Path) -> dict[str, Any]:
    import flights

    spine = flights.scheduled().select(AT, "origin", "tailnum").with_row_index("row")
    tables = {"spine": spine} | flights.tables()
    for name, table in tables.items():
        table.write_parquet(folder / f"{name}.parquet")
    return {"rows": {name: table.height for name, table in tables.items()}}


def _check_joins(folder: Path) -> dict[str, Any]:
    """All engines that take the latest row give the same values, row by row; ours in the spine's order."""
    import polars as pl

    frames = {}
    for engine in ENGINES:
        path = folder / "checked.parquet"
        _in_child(engine, folder, path)
        frames[engine] = pl.read_parquet(path)
    for engine in ("attach, five views", "attach, three latest"):
        if not frames[engine]["row"].equals(pl.read_parquet(folder / "spine.parquet")["row"]):
            sys.exit(f"{engine}: not the rows of the spine in its order")
    ours = _values(frames["attach, three latest"])
    for engine in ("Polars join_asof", "pandas"):
        theirs = _values(frames[engine])
        for name in FEATURES:
            differs = ours[name].ne_missing(theirs[name])
            if ours.height != theirs.height or differs.any():
                sys.exit(f"{engine}: {name} differs from ours in {differs.sum()} of {ours.height} rows")
    frames["attach, five views"].select(AT, "origin", "tailnum", *_names()).write_parquet(folder / "attached.parquet")
    return {"rows_compared": ours.height, "values_found": {name: ours[name].count() for name in FEATURES}}


def _values(frame: Any) -> Any:
    import polars as pl

    return frame.sort("row").select(pl.col(FEATURES).cast(pl.Float64).fill_nan(None))


def _names() -> list[str]:
    import flights

    return [feature.name for view in flights.views() for feature in view.features]


# Online.


def _measure_lookups(report: Any, folder: Path, rounds: int) -> None:
    """Lookups of every so many rows of the last hours, beside a select of the entries that they read."""
    import flights
    import polars as pl

    from relevo.features.entries import encode_key
    from relevo.features.model import view_id
    from relevo.features.online import OnlineStore

    path, views = folder / "online.db", flights.views()
    flights.fill(path, MODEL)
    asked = pl.read_parquet(folder / "attached.parquet").filter(
        (pl.col(AT) <= flights.THROUGH) & (pl.col(AT).dt.offset_by("20h") > flights.THROUGH)
    )
    asked = asked.drop_nulls("tailnum").sample(600, seed=7)
    keys, at = asked.select("origin", "tailnum").to_dicts(), asked[AT].to_list()
    with closing(OnlineStore(path)) as store, closing(sqlite3.connect(path, isolation_level=None)) as bare:
        filled = store.record(MODEL).filled
        generations = [filled[view_id(MODEL, view)].generation for view in views]
        names = [
            {
                generation + encode_key([key[name] for name in view.entity.key])
                for generation, view in zip(generations, views, strict=True)
            }
            for key in keys
        ]
        online = store.lookup(MODEL, views, keys, at)
        if online != asked.select(_names()).to_dicts():
            sys.exit("what is looked up online is not what was joined offline")
        report.checks["lookups_compared"] = len(online)
        for entities in ENTITIES:
            groups = [range(start, start + entities) for start in range(0, len(keys), entities)]
            questions = [([keys[i] for i in group], [at[i] for i in group]) for group in groups]
            wanted = [tuple(set().union(*(names[i] for i in group))) for group in groups]
            report.checks[f"entries_of_{entities}"] = sum(map(len, wanted)) / len(wanted)
            read = [sum(len(value) for _, value in _select(bare, some)) for some in wanted]
            report.checks[f"bytes_of_{entities}"] = sum(read) / len(read)
            ours = partial(_look_up, store, views)
            for number in range(rounds):
                for engine, call, arguments in (
                    ("lookup", ours, questions),
                    ("select", partial(_select, bare), wanted),
                ):
                    us = _us_a_call(call, arguments, CALLS[entities])
                    report.measurements.append(
                        {"round": number, "part": "lookup", "engine": engine, "entities": entities, "us": us}
                    )


def _look_up(store: Any, views: list[Any], question: tuple[list[Any], list[Any]]) -> Any:
    return store.lookup(MODEL, views, *question)


def _select(connection: sqlite3.Connection, names: tuple[bytes, ...]) -> list[Any]:
    marks = ",".join("?" * len(names))
    return connection.execute(f"SELECT name, value FROM entries WHERE name IN ({marks})", names).fetchall()


def _us_a_call(call: Callable[[Any], Any], arguments: list[Any], calls: int) -> float:
    """Median microseconds of a call, arguments in turn."""
    from report import median

    turns, times = cycle(arguments), []
    for _ in range(calls):
        argument = next(turns)
        began = time.perf_counter_ns()
        call(argument)
        times.append((time.perf_counter_ns() - began) / 1e3)
    return median(times)


def _summarise(report: Any) -> None:
    from report import Goal, median_of, median_ratio, show

    measured = report.measurements
    joins = []
    limit = {"part": "join", "engine": "Polars join_asof"}
    for engine in ENGINES:
        this = {"part": "join", "engine": engine}
        row: dict[str, Any] = this | {
            name: median_of(measured, name, **this) for name in ("seconds", "peak_mb", "before_mb")
        }
        row["of_limit"] = median_ratio(_of(measured, "join"), "seconds", this, limit)
        row["memory_of_limit"] = median_ratio(_of(measured, "join"), "peak_mb", this, limit)
        joins.append(row)
    show(
        f"joins: {report.checks['rows_compared']:,} flights, files to frame (medians over the rounds)",
        joins,
        {
            "engine": ("engine", ""),
            "seconds": ("seconds", ".3f"),
            "of_limit": ("of bare Polars", ".2f"),
            "peak_mb": ("peak MB", ",.0f"),
            "before_mb": ("of it imports, MB", ",.0f"),
            "memory_of_limit": ("of bare Polars", ".2f"),
        },
    )
    lookups = []
    for entities in ENTITIES:
        select = {"part": "lookup", "engine": "select", "entities": entities}
        for engine in ("lookup", "select"):
            kind = {"part": "lookup", "engine": engine, "entities": entities}
            lookups.append(
                kind
                | {"us": median_of(measured, "us", **kind)}
                | {"of_limit": median_ratio(_of(measured, "lookup"), "us", kind, select)}
                | {name: report.checks[f"{name}_of_{entities}"] for name in ("entries", "bytes")}
            )
    show(
        "lookups: five views, one connection (medians)",
        lookups,
        {
            "entities": ("entities", "d"),
            "engine": ("engine", ""),
            "us": ("us a call", ",.1f"),
            "of_limit": ("of the select", ".2f"),
            "entries": ("entries read", ".1f"),
            "bytes": ("bytes read", ",.0f"),
        },
    )
    print(report.checks)
    report.summary = [*joins, *lookups]
    ours = next(row for row in joins if row["engine"] == "attach, three latest")
    pandas = median_ratio(
        _of(measured, "join"),
        "seconds",
        {"part": "join", "engine": "attach, three latest"},
        {"part": "join", "engine": "pandas"},
    )
    report.goals = [
        Goal("three latest: time beside bare Polars", 1.5, ours["of_limit"], False),
        Goal("three latest: peak memory beside bare Polars", 1.5, ours["memory_of_limit"], False),
        Goal("three latest: time beside pandas", 1.0, pandas, False),
        *(
            Goal(f"lookup, entities {row['entities']}: time beside the select", 3.0, row["of_limit"], False)
            for row in lookups
            if row["engine"] == "lookup"
        ),
    ]


def _of(measurements: list[dict[str, Any]], part: str) -> list[dict[str, Any]]:
    return [one for one in measurements if one["part"] == part]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], Path(sys.argv[3]), sys.argv[4] if len(sys.argv) > 4 else None)
    else:
        main()
