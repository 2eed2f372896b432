"""The joins, one function an engine, each measured in a process of its own (``children.serve``) from files to frame.

A child imports only what its engine needs, and only the library of its own environment.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from children import peak_mb, seconds_of, serve

Told = dict[str, Any]
Join = Callable[[], Any]


def relevo(tables: Told) -> Join:
    """``attach``, with all that it checks, restores and decides."""
    import polars as pl

    return _relevo(tables, lambda name: pl.scan_parquet(_file(tables, name)))


def relevo_pinned(tables: Told) -> Join:
    """``attach`` from versions of Delta tables, each read by its number (``keep_versions`` has written them)."""
    from relevo.datasets.tables import scan_version

    def scan(name: str) -> Any:
        return scan_version(Path(tables["folder"]), name, 0)

    scan("spine").collect_schema()  # Polars imports what it needs for Delta when a schema is first asked for
    return _relevo(tables, scan)


def _relevo(tables: Told, scan: Callable[[str], Any]) -> Join:
    from relevo.contract.model import Source
    from relevo.features import Entity, FeatureView, latest
    from relevo.features.point_in_time import attach

    views, sources = [], []
    for view in tables["views"]:
        features = {_feature(view): latest(view["columns"][0])}
        entity = Entity(view["key"], view["key"])
        ttl = None if view["ttl_hours"] is None else f"{view['ttl_hours']}h"
        views.append(FeatureView(view["source"], entity=entity, source=view["source"], features=features, ttl=ttl))
        known = view["known"] if view["event"] else None
        event = view["event"] or view["known"]
        sources.append(
            Source(name=view["source"], loader="bench:none", key=(view["key"],), event_time=event, known_time=known)
        )

    def join() -> Any:
        found = {view["source"]: scan(view["source"]) for view in tables["views"]}
        return attach(scan("spine"), views, found, sources=sources, at=tables["at"]).collect()

    return join


def polars(tables: Told) -> Join:
    """As-of on known time. Knows nothing of late rows, and leaves the rows in the order of time."""
    return _polars(tables, is_as_known=False)


def polars_as_known(tables: Told) -> Join:
    """As ``polars``, without rows that are older than what was known of their key already."""
    return _polars(tables, is_as_known=True)


def _polars(tables: Told, *, is_as_known: bool) -> Join:
    import polars as pl

    at = tables["at"]

    def join() -> Any:
        spine = pl.scan_parquet(_file(tables, "spine")).sort(at)
        for view in tables["views"]:
            value = pl.col(view["columns"][0]).alias(_feature(view))
            rows = pl.scan_parquet(_file(tables, view["source"]))
            if is_as_known:
                event = pl.col(view["event"])
                rows = rows.select(view["key"], pl.col(view["known"]).alias(at), event.alias("event"), value)
                rows = rows.sort(at, "event", maintain_order=True)
                rows = rows.filter((pl.col("event") >= pl.col("event").cum_max()).over(view["key"])).drop("event")
            else:
                rows = rows.select(view["key"], pl.col(view["known"]).alias(at), value).sort(at, maintain_order=True)
            hours = _known_hours(view)
            tolerance = None if hours is None else f"{hours}h"
            spine = spine.join_asof(rows, on=at, by=view["key"], tolerance=tolerance, check_sortedness=False)
        return spine.collect()

    return join


def duckdb(tables: Told) -> Join:
    """ASOF join on known time. Knows nothing of late rows; the order of the rows is its own."""
    import duckdb as database

    at = tables["at"]
    columns = ", ".join(f"{_duckdb_value(view, at)} AS {_feature(view)}" for view in tables["views"])
    joins = " ".join(
        f"ASOF LEFT JOIN (SELECT {view['key']} AS key, {view['known']} AS known, {view['columns'][0]} AS value "
        f"FROM read_parquet('{_file(tables, view['source'])}')) {_feature(view)} "
        f"ON spine.{view['key']} = {_feature(view)}.key AND spine.{at} >= {_feature(view)}.known"
        for view in tables["views"]
    )
    query = f"SELECT spine.*, {columns} FROM read_parquet('{_file(tables, 'spine')}') spine {joins}"

    def join() -> Any:
        return database.connect().execute(query).to_arrow_table()

    return join


def pandas(tables: Told) -> Join:
    """``merge_asof`` on known time. Knows nothing of late rows, and leaves the rows in the order of time."""
    import pandas as pd

    at = tables["at"]

    def join() -> Any:
        spine = pd.read_parquet(_file(tables, "spine")).sort_values(at)
        for view in tables["views"]:
            column = view["columns"][0]
            rows = pd.read_parquet(_file(tables, view["source"]), columns=[view["key"], view["known"], column])
            rows = rows.rename(columns={column: _feature(view), view["known"]: at}).sort_values(at, kind="stable")
            hours = _known_hours(view)
            tolerance = None if hours is None else pd.Timedelta(hours=hours)
            spine = pd.merge_asof(spine, rows, on=at, by=view["key"], tolerance=tolerance)
        return spine

    return join


def as_defined(tables: Told) -> Join:
    """The definition of a view without a ttl: of the rows known by then, that of the newest event, known last."""
    import duckdb as database

    def join() -> Any:
        connection = database.connect()
        columns = ", ".join(
            f"""(SELECT arg_max(value, (happened, known)) FROM (
                SELECT {view["columns"][0]} AS value, {view["event"] or view["known"]} AS happened,
                    {view["known"]} AS known, {view["key"]} AS key
                FROM read_parquet('{_file(tables, view["source"])}')
            ) WHERE key = spine.{view["key"]} AND known <= spine.{tables["at"]}
            ) AS {_feature(view)}"""
            for view in tables["views"]
        )
        query = f"SELECT spine.row, {columns} FROM read_parquet('{_file(tables, 'spine')}') spine"
        return connection.execute(query).to_arrow_table()

    return join


ENGINES = {one.__name__: one for one in (relevo, relevo_pinned, polars, polars_as_known, duckdb, pandas, as_defined)}


def keep_versions(tables: Told) -> None:
    """Each table as the first version of a Delta table, beside its file."""
    import polars as pl
    from deltalake import write_deltalake

    for name in ("spine", *(view["source"] for view in tables["views"])):
        write_deltalake(Path(tables["folder"]) / name, pl.read_parquet(_file(tables, name)))


def run(engine: str, tables: Told, output: str | None = None) -> dict[str, Any]:
    """One join, timed without the imports; with ``output`` row numbers and features are kept there."""
    join = ENGINES[engine](tables)
    before = peak_mb()
    seconds, frame = seconds_of(join)
    found = {"seconds": seconds, "before_mb": before, "peak_mb": peak_mb(), "rows": len(frame)}
    if output is not None:
        _keep(frame, ["row", *map(_feature, tables["views"])], output)
    return found


def _keep(frame: Any, columns: list[str], output: str) -> None:
    if hasattr(frame, "write_parquet"):
        frame.select(columns).write_parquet(output)
    elif hasattr(frame, "to_parquet"):
        frame[columns].to_parquet(output)
    else:
        import pyarrow.parquet

        pyarrow.parquet.write_table(frame.select(columns), output)


def _feature(view: Told) -> str:
    return f"latest_{view['columns'][0]}"


def _known_hours(view: Told) -> int | None:
    """The time to live counted from when a row is known, for engines that know of that time alone."""
    return None if view["ttl_hours"] is None else int(view["ttl_hours"] - (view["lag_hours"] or 0))


def _duckdb_value(view: Told, at: str) -> str:
    row, hours = _feature(view), _known_hours(view)
    if hours is None:
        return f"{row}.value"
    return f"CASE WHEN spine.{at} - {row}.known <= INTERVAL {hours} HOUR THEN {row}.value END"


def _file(tables: Told, name: str) -> str:
    return f"{tables['folder']}/{name}.parquet"


if __name__ == "__main__":
    serve({"keep_versions": keep_versions, "run": run})
