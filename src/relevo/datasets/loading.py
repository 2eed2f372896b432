"""Reads a source, and turns what it gives into a frame that the rest may rely on. Runs in child processes only.

What is relied on: the declared columns are there; times are aware, and in UTC with microseconds; a missing number is
null, never NaN; no row was known later than the asked time, or can be known only in the future; key and event time
together name one row.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from relevo.contract.model import Source
from relevo.datasets.files import first_line, read_files
from relevo.datasets.loaders import read_loader
from relevo.errors import Invalid, nearest

TIME = pl.Datetime("us", "UTC")

#: How far clocks may differ: a row that is known later than this after now cannot be known.
MAX_AHEAD = timedelta(seconds=60)

_SAMPLE_ROWS = 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WITH_OFFSET = r":\d{2}(\.\d+)?\s?([Zz]|[+-]\d{2}(:?\d{2})?)$"


def read_source(
    source: Source,
    package: Path,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    now: datetime | None = None,
) -> pl.DataFrame:
    """The rows of ``source`` that became known in ``(since, until]``, sorted by event time and key.

    Files, tables and lazy frames of loaders are filtered while they are read, queries by their own parameters.

    Args:
        source: The declared source.
        package: Folder of the code snapshot, from which the team's package is imported.
        since: Leave out what was known by then; None: from the beginning.
        until: Leave out what became known later; None: everything.
        now: Wall time; default: now. A row known later than 60 s after it is refused.

    Raises:
        Invalid: What the source gave is not as declared. An empty answer is allowed here.
        NotFound: There is no such file or table.
        Unavailable: The database of a query cannot be reached.
    """
    rows = _read(source, package, since, until)
    try:
        return _checked(source, rows, since, until, now or datetime.now(UTC))
    except (pl.exceptions.PolarsError, OSError) as error:
        if source.loader is not None:  # its own lazy frame, and its own error
            raise
        raise Invalid(f"source {source.name}: {source.origin} cannot be read: {first_line(error)}") from None


def _read(source: Source, package: Path, since: datetime | None, until: datetime | None) -> pl.LazyFrame:
    if source.loader is not None:
        return read_loader(source, package, since, until)
    if source.files is not None:
        rows = read_files(source, package)
    elif source.table is not None:
        from relevo.datasets.delta import read_table

        rows = read_table(source)
    else:
        from relevo.datasets.queries import read_query

        rows = read_query(source, since, until)
    return _with_times(source, rows) if is_text(source) else rows


def _checked(
    source: Source, rows: pl.LazyFrame, since: datetime | None, until: datetime | None, now: datetime
) -> pl.DataFrame:
    schema = rows.collect_schema()
    _require_columns(source, schema.names())
    rows = rows.with_columns(_casts(source, rows, schema))
    known, latest = known_at(source), now + MAX_AHEAD
    if known is not None:
        # What is wrong is kept for the checks below to find, however the rows are cut while they are read.
        wanted = _is_between(known, since, until) | _is_future(source, latest)
        for name in naming(source):
            wanted |= pl.col(name).is_null()
        rows = rows.filter(wanted)
    # One pass: materialising reads a few dozen rows at a time, where each pass costs more than the rows.
    frame = rows.sort(naming(source)).collect()
    _require_names(source, frame)
    _require_past(source, frame, latest)
    _require_unique(source, frame)
    return frame


def known_at(source: Source) -> pl.Expr | None:
    """When a row counts: when it has happened *and* is known. Null: not known yet. None: the source has no times."""
    if source.event_time is None or source.known_time is None:
        time = source.event_time or source.known_time
        return None if time is None else pl.col(time)
    known, event = pl.col(source.known_time).cast(TIME), pl.col(source.event_time).cast(TIME)  # zones may differ
    return pl.when(known.is_not_null()).then(pl.max_horizontal(known, event))


def is_text(source: Source) -> bool:
    """Whether what holds the rows tells no types of numbers and has no times: CSV, JSON lines, SQLite."""
    if source.files is not None:
        return not source.files.endswith(".parquet")
    if source.query is None:
        return False
    from relevo.datasets.queries import is_sqlite

    return is_sqlite(source)


def time_literal(time: datetime) -> pl.Expr:
    """The time as a literal; a hundred times faster to make than ``pl.lit`` of an aware datetime."""
    return pl.lit((time - _EPOCH) // timedelta(microseconds=1), dtype=pl.Int64).cast(TIME)


def describe_rows(frame: pl.DataFrame, rows: int = _SAMPLE_ROWS) -> str:
    """The first rows as text for a message, such as ``{id: 7, at: 2013-01-01 00:00:00+00:00}``."""
    texts = (", ".join(f"{name}: {value}" for name, value in row.items()) for row in frame.head(rows).to_dicts())
    return "; ".join(f"{{{text}}}" for text in texts)


def naming(source: Source) -> list[str]:
    """The columns that together name a row: a row of events is named by its time too."""
    return list(dict.fromkeys([*([source.event_time] if source.event_time else []), *source.key]))


def _require_columns(source: Source, columns: list[str]) -> None:
    roles = [*(("key", name) for name in source.key), ("event_time", source.event_time)]
    for role, name in [*roles, ("known_time", source.known_time)]:
        if name is not None and name not in columns:
            raise Invalid(
                f"source {source.name}: the {role} column {name!r} is not in what {source.origin} gave"
                f"{_or_nearest(name, columns)} (columns: {', '.join(columns)})"
            )


def _zone_hint(source: Source, name: str) -> str:
    if source.query is not None:
        return f"give it a zone in the query, such as {name} AT TIME ZONE 'UTC'"
    if source.loader is not None:
        return "give it a zone in the loader, such as .dt.replace_time_zone('UTC')"
    return "write it with a zone, or read the source by a loader that gives it one"


def _with_times(source: Source, rows: pl.LazyFrame) -> pl.LazyFrame:
    """The rows with declared times read from ISO 8601 text, where what holds them has no times."""
    schema = rows.collect_schema()
    for time in dict.fromkeys([source.event_time, source.known_time]):
        if time is None or schema.get(time) != pl.String:
            continue
        text = pl.col(time)
        parsed = text.str.to_datetime(time_zone="UTC", time_unit="us", strict=False)
        is_wrong = text.is_not_null() & (parsed.is_null() | ~text.str.contains(_WITH_OFFSET))
        wrong = rows.filter(is_wrong).select(text).head(_SAMPLE_ROWS).collect()
        if wrong.height:
            raise Invalid(
                f"source {source.name}: column {time!r} should hold times with an offset such as "
                f"2026-01-31T12:00:00+00:00, got {', '.join(repr(value) for value in wrong[time].to_list())}"
            )
        rows = rows.with_columns(parsed)
    return rows


def _is_between(known: pl.Expr, since: datetime | None, until: datetime | None) -> pl.Expr:
    keep = known.is_not_null()
    if since is not None:
        keep &= known > time_literal(since)
    if until is not None:
        keep &= known <= time_literal(until)
    return keep


def _casts(source: Source, rows: pl.LazyFrame, schema: pl.Schema) -> list[pl.Expr]:
    """What brings the rows into plain types; times checked."""
    casts = []
    for name, kind in schema.items():
        if isinstance(kind, pl.Datetime):
            if kind.time_zone is None:
                some = rows.select(pl.col(name).drop_nulls().head(1)).collect().to_series().to_list()
                raise Invalid(
                    f"source {source.name}: column {name!r} holds naive times (without a zone), for example "
                    f"{some}; {_zone_hint(source, name)}"
                )
            if kind != TIME:
                casts.append(pl.col(name).cast(TIME))
        elif kind.is_float():
            casts.append(pl.col(name).fill_nan(None))
        elif kind.is_unsigned_integer():
            casts.append(pl.col(name).cast(pl.Int64))  # Delta has no unsigned integers
        elif isinstance(kind, (pl.Categorical, pl.Enum)) or kind == pl.Null:
            casts.append(pl.col(name).cast(pl.String))
        elif isinstance(kind, (pl.Object, pl.Duration, pl.Time)):
            raise Invalid(f"source {source.name}: column {name!r} has a type that a table cannot keep: {kind}")
    for role, time in (("event_time", source.event_time), ("known_time", source.known_time)):
        kind = schema[time] if time is not None else TIME
        if not isinstance(kind, pl.Datetime):
            raise Invalid(f"source {source.name}: the {role} column {time!r} should hold aware datetimes, got {kind}")
    return casts


def _require_names(source: Source, frame: pl.DataFrame) -> None:
    for name in naming(source):
        if missing := frame[name].null_count():
            raise Invalid(f"source {source.name}: {missing} of {frame.height} rows have no {name!r}, which names a row")


def _is_future(source: Source, latest: datetime) -> pl.Expr:
    """Whether a row says that it became known later than it can have. An event to come is fine: a schedule."""
    return pl.col(str(source.known_time or source.event_time)) > time_literal(latest)


def _require_past(source: Source, frame: pl.DataFrame, latest: datetime) -> None:
    time = source.known_time or source.event_time
    newest = None if time is None else frame[time].max()
    if time is None or not isinstance(newest, datetime) or newest <= latest:
        return
    future = frame.filter(_is_future(source, latest))
    role = "known_time" if source.known_time else "event_time"
    more = "" if source.known_time else "; declare a known_time if these are plans that are known before they happen"
    some = describe_rows(future.select(list(dict.fromkeys([*naming(source), time]))))
    raise Invalid(
        f"source {source.name}: {future.height} rows are known only in the future by their {role} {time!r}, "
        f"for example {some}; it is "
        f"{(latest - MAX_AHEAD).isoformat(timespec='seconds')} now{more}"
    )


def _require_unique(source: Source, frame: pl.DataFrame) -> None:
    names = naming(source)
    distinct = frame.select(pl.struct(names).n_unique()).item() if frame.height > 1 else frame.height
    if distinct == frame.height:
        return
    repeated = frame.select(names).filter(frame.select(names).is_duplicated())
    raise Invalid(
        f"source {source.name}: {frame.height - distinct} of {frame.height} rows repeat another row's "
        f"{' and '.join(names)}, for example {describe_rows(repeated.unique(maintain_order=True))}"
    )


def _or_nearest(name: str, names: Iterable[str]) -> str:
    near = nearest(name, names)
    return f"; did you mean {near!r}?" if near else ""
