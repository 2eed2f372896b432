"""Asks a query on PostgreSQL or SQLite. Runs in child processes, and in the command that scores in bulk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import sqlalchemy as sa

from relevo.contract.model import Source
from relevo.datasets.connections import variable
from relevo.errors import Invalid, Unavailable

_ROWS_AT_ONCE = 50_000
_CONNECT_SECONDS = 10
#: What stands in for a limit that a load does not have.
_EARLIEST, _LATEST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)

#: Types by PostgreSQL's own numbers for them, so that a column without a value has its type too.
_POSTGRESQL: dict[int, pl.DataType] = {
    16: pl.Boolean(),
    20: pl.Int64(),
    21: pl.Int16(),
    23: pl.Int32(),
    25: pl.String(),
    700: pl.Float32(),
    701: pl.Float64(),
    1042: pl.String(),
    1043: pl.String(),
    1082: pl.Date(),
    1114: pl.Datetime("us"),
    1184: pl.Datetime("us", "UTC"),
    1700: pl.Float64(),
    2950: pl.String(),
}


def read_query(source: Source, since: datetime | None, until: datetime | None) -> pl.LazyFrame:
    """The rows that the query gives, with ``:since`` and ``:until`` bound where it uses them.

    Integers, floats, text, booleans, dates and zoned times keep their type; ``numeric`` becomes Float64 and ``uuid``
    text. SQLite has no times: there they are text, and the limits are bound as ISO 8601 with an offset.

    Raises:
        Unavailable: The connection is not set, or the database cannot be reached.
        Invalid: The URL is none, the query fails, or a column holds values of several types.
    """
    parts = list(stream_query(source, since, until))
    for name in parts[0].columns:
        kinds = {part.schema[name] for part in parts} - {pl.Null()}
        if len(kinds) > 1 and not all(kind.is_numeric() for kind in kinds):
            raise _mixed(source, name, map(str, kinds))
    return pl.concat(parts, how="vertical_relaxed").lazy()


def stream_query(
    source: Source, since: datetime | None = None, until: datetime | None = None
) -> Iterator[pl.DataFrame]:
    """As ``read_query``, some rows at a time as the database sends them: first a frame of no row, then the rows.

    Where the database tells no types, those of a column can differ between frames.
    """
    url = _url(source)
    try:
        yield from _frames(source, url, since, until)
    except sa.exc.SQLAlchemyError as error:
        raise Invalid(f"source {source.name}: the query failed: {_reason(error, url)}") from None


def is_sqlite(source: Source) -> bool:
    """Whether the database tells no types, and gives times as text."""
    return _url(source).get_backend_name() == "sqlite"


def _url(source: Source) -> sa.URL:
    name = variable(str(source.connection))
    expected = "a URL such as postgresql://user:password@host/database or sqlite:////absolute/path.db"
    text = os.environ.get(name)
    if not text:
        raise Unavailable(
            f"source {source.name}: the connection {source.connection} needs {expected} in {name}, got nothing",
            hint=f"Set {name} in the environment of the control plane, and start it again.",
        )
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise Invalid(f"source {source.name}: {name} should hold {expected}, got something else") from None
    if url.get_backend_name() not in ("postgresql", "sqlite"):
        raise Invalid(f"source {source.name}: {name} should hold {expected}, got one of {url.get_backend_name()}")
    return url


def _engine(source: Source, url: sa.URL) -> sa.Engine:
    if url.get_backend_name() == "postgresql":
        return sa.create_engine(
            url.set(drivername="postgresql+psycopg"), connect_args={"connect_timeout": _CONNECT_SECONDS}
        )
    if not url.database or not Path(url.database).is_file():  # SQLite would make an empty one
        raise Unavailable(f"source {source.name}: expected a SQLite database at {url.database}, got no file there")
    return sa.create_engine(url)


def _frames(source: Source, url: sa.URL, since: datetime | None, until: datetime | None) -> Iterator[pl.DataFrame]:
    engine = _engine(source, url)
    try:
        try:
            connection = engine.connect()
        except sa.exc.SQLAlchemyError as error:
            raise Unavailable(
                f"source {source.name}: the connection {source.connection} cannot be reached: {_reason(error, url)}",
                hint=f"Check the URL in {variable(str(source.connection))}, and whether the database runs.",
            ) from None
        with connection:
            read_only = ("SET TRANSACTION READ ONLY", "SET LOCAL TIME ZONE 'UTC'")
            for statement in read_only if engine.dialect.name == "postgresql" else ("PRAGMA query_only = ON",):
                connection.exec_driver_sql(statement)
            yield from _asked(source, connection, since, until)
    finally:
        engine.dispose()


def _asked(
    source: Source, connection: sa.Connection, since: datetime | None, until: datetime | None
) -> Iterator[pl.DataFrame]:
    query = sa.text(str(source.query))
    limits: dict[str, Any] = {"since": since or _EARLIEST, "until": until or _LATEST}
    if connection.dialect.name == "sqlite":
        limits = {name: time.astimezone(UTC).isoformat(timespec="microseconds") for name, time in limits.items()}
    used = {name: value for name, value in limits.items() if name in query.compile().params}
    streaming = connection.execution_options(stream_results=True, yield_per=_ROWS_AT_ONCE)
    with closing(streaming.execute(query, used)) as result:
        if not result.returns_rows:
            raise Invalid(f"source {source.name}: expected a query that gives rows, got a statement that gives none")
        names, types = _described(source, result)
        yield pl.DataFrame(schema={name: types.get(name, pl.Null()) for name in names})
        for rows in result.partitions(_ROWS_AT_ONCE):
            yield _frame(source, names, types, rows)


def _described(source: Source, result: sa.CursorResult[Any]) -> tuple[list[str], dict[str, pl.DataType]]:
    """The columns in order, and the types that the database tells."""
    names = list(result.keys())
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise Invalid(f"source {source.name}: expected each column of the query once, got {repeated!r} twice")
    if result.dialect.name != "postgresql":
        return names, {}
    described = zip(names, result.cursor.description, strict=True)
    return names, {name: _POSTGRESQL[column[1]] for name, column in described if column[1] in _POSTGRESQL}


def _frame(
    source: Source, names: list[str], types: dict[str, pl.DataType], rows: Sequence[Sequence[Any]]
) -> pl.DataFrame:
    columns = zip(names, zip(*rows, strict=True), strict=True)
    return pl.DataFrame([_column(source, name, types.get(name), values) for name, values in columns])


def _column(source: Source, name: str, kind: pl.DataType | None, values: Sequence[Any]) -> pl.Series:
    first = next((value for value in values if value is not None), None)
    if isinstance(first, Decimal):
        values = [None if value is None else float(value) for value in values]
    elif isinstance(first, UUID):
        values = [None if value is None else str(value) for value in values]
    try:
        return pl.Series(name, values, dtype=kind, strict=True)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        kinds = {type(value) for value in values if value is not None}
        if kinds <= {int, float}:  # SQLite decides by the value, not by the column
            return pl.Series(name, [None if value is None else float(value) for value in values])
        raise _mixed(source, name, (each.__name__ for each in kinds)) from None


def _mixed(source: Source, name: str, kinds: Iterable[str]) -> Invalid:
    return Invalid(
        f"source {source.name}: column {name!r} of the query should hold values of one type that a table can keep, "
        f"got {', '.join(sorted(kinds))}; cast it in the query"
    )


def _reason(error: sa.exc.SQLAlchemyError, url: sa.URL) -> str:
    """What the database said, in one line, without what is secret in the URL."""
    said = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
    text = said[0]
    query = [value for values in url.query.values() for value in ([values] if isinstance(values, str) else values)]
    for secret in (url.render_as_string(hide_password=False), url.password, *query):
        text = text.replace(str(secret), "***") if secret else text
    return text
