"""The state store: one SQLAlchemy engine, explicit transactions, aware UTC times, on SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from relevo.platform import sqlite

#: Every table of the state store; each concept declares its own in its ``store.py``.
metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: An open transaction. Services accept one, so that a promotion spans several stores.
Transaction = sa.Connection


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime; refuses naive ones. Text order equals time order on SQLite."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """To aware UTC; without the offset on SQLite, which keeps none."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time must be aware, got the naive {value.isoformat()}")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """To aware UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class State:
    """Opens transactions on the state store. Thread-safe; one per process.

    Args:
        url: SQLAlchemy URL, SQLite or PostgreSQL.
    """

    def __init__(self, url: str) -> None:
        self.url = sa.make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            if self.url.database:
                sqlite.create(Path(self.url.database))
            self.engine = sa.create_engine(self.url, connect_args={"timeout": sqlite.PATIENCE_SECONDS})
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
            sa.event.listen(self.engine, "begin", _begin_sqlite)
        else:
            self.engine = sa.create_engine(_with_psycopg(self.url), pool_pre_ping=True, pool_size=5)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A transaction that writes. On SQLite it takes the write lock at once (``BEGIN IMMEDIATE``)."""
        with self.engine.connect().execution_options(sqlite_begin="IMMEDIATE") as connection, connection.begin():
            yield connection

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A transaction that only reads one consistent view; it is rolled back at the end."""
        with self.engine.connect() as connection:
            if not self.is_sqlite:  # PostgreSQL's default gives each statement a view of its own
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            yield connection

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """WAL, full durability of commits, foreign keys, and transactions begun by us alone."""
    connection.isolation_level = None
    sqlite.write_ahead(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    """Begin as the caller asked: a deferred begin that writes later fails under contention."""
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('sqlite_begin', 'DEFERRED')}")


def _with_psycopg(url: sa.URL) -> sa.URL:
    return url.set(drivername="postgresql+psycopg")
