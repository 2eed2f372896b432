"""Reads what became known since the last version, and merges it, so that the rows are those of a full load."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from relevo.contract.model import Source
from relevo.datasets.loading import known_at, naming, read_source, time_literal
from relevo.datasets.model import DatasetVersion, Mode, quarantine_of
from relevo.datasets.schemas import conform
from relevo.datasets.tables import FAILED_RULES, scan_version
from relevo.platform.encoding import digest

_INSTANT = timedelta(microseconds=1)


def origin_of(source: Source, snapshot: str | None) -> str:
    """Digest of what the rows of a source are read by: its declaration, and the code or files of the snapshot."""
    is_in_snapshot = source.loader is not None or (source.files is not None and not source.files.startswith("/"))
    names = ("loader", "files", "query", "connection", "table", "key", "event_time", "known_time")
    return digest([*(getattr(source, name) for name in names), snapshot if is_in_snapshot else None])


def read_rows(
    source: Source,
    package: Path,
    *,
    until: datetime | None,
    last: DatasetVersion | None,
    origin: str,
    tables_root: Path,
    is_text: bool,
) -> tuple[pl.DataFrame, Mode]:
    """The rows of ``source`` as known at ``until``, and how they were read.

    Incrementally when the source is declared so and the last version can be gone on from: it was read by the same
    declaration and code, has the same columns, and is not newer than ``until``. Else in full.

    Args:
        source: The declared source.
        package: Folder of the code snapshot.
        until: Event time; None: everything.
        last: The last recorded version, None when there is none.
        origin: ``origin_of`` this load.
        tables_root: The folder of the model's tables.
        is_text: Whether the source tells no types of numbers.
    """
    if last is not None and _can_go_on(source, last, until, origin):
        merged = _merged(source, package, until, last, tables_root, is_text=is_text)
        if merged is not None:
            return merged, "incremental"
    return read_source(source, package, until=until), "full"


def _can_go_on(source: Source, last: DatasetVersion, until: datetime | None, origin: str) -> bool:
    return (
        source.load == "incremental"
        and last.origin == origin
        and last.known_through is not None
        and (until is None or until >= last.known_through)
    )


def _merged(
    source: Source, package: Path, until: datetime | None, last: DatasetVersion, tables_root: Path, *, is_text: bool
) -> pl.DataFrame | None:
    """The last version with everything from its edge on read again; None when the columns have changed meanwhile."""
    known = known_at(source)
    assert known is not None
    assert last.known_through is not None
    edge = last.known_through - source.lateness
    kept = _all_rows(source, last, tables_root).filter(known < time_literal(edge)).collect()
    # From the edge on, the edge included: several rows may share the last known time, and come one by one.
    fresh = read_source(source, package, since=edge - _INSTANT, until=until)
    fresh = conform(fresh, kept.schema, is_text=is_text)
    if fresh.height and dict(fresh.schema) != dict(kept.schema):
        return None
    if fresh.is_empty():
        return kept.sort(naming(source))
    names = naming(source)
    # A row that was known before the edge and has changed since is there twice: what was read now is right.
    return pl.concat([kept.join(fresh, on=names, how="anti"), fresh.select(kept.columns)]).sort(names)


def _all_rows(source: Source, last: DatasetVersion, tables_root: Path) -> pl.LazyFrame:
    """What the last load read, rows that it put into quarantine included: the checks judge all of them again."""
    rows = scan_version(tables_root, source.name, last.version)
    if last.quarantine_version is None:
        return rows
    apart = scan_version(tables_root, quarantine_of(source.name), last.quarantine_version)
    return pl.concat([rows, apart.drop(FAILED_RULES)], how="diagonal")
