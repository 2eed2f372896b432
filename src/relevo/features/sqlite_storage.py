"""The online store's bytes in one SQLite file (WAL)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from relevo.errors import Unavailable
from relevo.features.storage import PATIENCE_SECONDS
from relevo.platform import sqlite

_VERSION = 2  # of the schema
_MAX_VARIABLES = 900  # of one statement
_IN_ONE_ROW = 16  # names; for so few a subquery each is a fifth faster than a join
_MAPPED_BYTES = 1 << 30  # read without copying through a buffer; a limit of addresses, not of memory
_DROPPED_AT_ONCE = 20_000  # entries, so that no transaction is long
_DROP = "DELETE FROM entries WHERE name IN (SELECT name FROM entries WHERE name >= ? AND name < ? LIMIT ?)"
_SCHEMA = "CREATE TABLE entries (name BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"


class SqliteStorage:
    """A ``Storage`` in the file at ``path``, which is made when it is not there, for its owner alone."""

    def __init__(self, path: Path, patience_seconds: float = PATIENCE_SECONDS) -> None:
        sqlite.create(path)
        self._path = path
        self._selects: dict[int, str] = {}
        self._connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=patience_seconds, cached_statements=256
        )
        # A power cut may take back the last commits with their progress; they are then materialised again.
        sqlite.write_ahead(self._connection, patience_seconds)
        for pragma in ("synchronous=NORMAL", f"mmap_size={_MAPPED_BYTES}"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._make_schema()

    def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        """See ``Storage``."""
        if not names:
            return []
        try:
            if len(names) <= _MAX_VARIABLES:  # one statement sees one moment
                return self._select(names)
            self._connection.execute("BEGIN")
            try:
                starts = range(0, len(names), _MAX_VARIABLES)
                return [value for start in starts for value in self._select(names[start : start + _MAX_VARIABLES])]
            finally:
                self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def changes(self) -> int:
        """See ``Storage``."""
        try:
            (by_others,) = self._connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            raise self._unreadable(error) from error
        return int(by_others) + self._connection.total_changes

    def put(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """See ``Storage``."""
        with self._transaction():
            self._replace(entries)

    def swap(
        self, name: bytes, before: bytes | None, after: bytes, entries: Sequence[tuple[bytes, bytes]] = ()
    ) -> bool:
        """See ``Storage``."""
        with self._transaction():
            if self._select([name]) != [before]:
                return False
            self._replace(entries)
            self._replace([(name, after)])
            return True

    def drop(self, prefixes: Iterable[bytes]) -> None:
        """See ``Storage``."""
        for prefix in prefixes:
            bounds = (prefix, _after(prefix), _DROPPED_AT_ONCE)
            while True:
                with self._transaction():
                    if self._connection.execute(_DROP, bounds).rowcount < _DROPPED_AT_ONCE:
                        break

    def describe(self) -> Mapping[str, str]:
        """See ``Storage``."""
        return {"sqlite_version": sqlite3.sqlite_version}

    def close(self) -> None:
        """See ``Storage``."""
        self._connection.close()

    def _select(self, names: Sequence[bytes]) -> list[bytes | None]:
        query = self._selects.get(len(names)) or self._query(len(names))
        return list(chain.from_iterable(self._connection.execute(query, names)))

    def _query(self, count: int) -> str:
        """Gives the values of so many names in their order, as one row if they are few, else as one row a value."""
        if count <= _IN_ONE_ROW:
            query = f"SELECT {','.join(['(SELECT value FROM entries WHERE name = ?)'] * count)}"  # noqa: S608 - marks
        else:
            # The left side of a LEFT JOIN is the outer loop, so values come in the order of the names. A third faster
            # than IN, which sorts its list first.
            marks = ",".join(["(?)"] * count)
            query = f"SELECT value FROM (VALUES {marks}) LEFT JOIN entries ON name = column1"  # noqa: S608 - marks
        self._selects[count] = query
        return query

    def _unreadable(self, error: sqlite3.Error) -> Unavailable:
        return Unavailable(f"The online store {self._path} cannot be read: {error}.")

    def _replace(self, entries: Sequence[tuple[bytes, bytes]]) -> None:
        self._connection.executemany("INSERT OR REPLACE INTO entries (name, value) VALUES (?, ?)", entries)

    def _make_schema(self) -> None:
        if self._version() == _VERSION:
            return
        with self._transaction():
            if self._version() != _VERSION:  # another process may have made it meanwhile
                for table in ("entries", "progress"):  # of an earlier version; they can be filled anew
                    self._connection.execute(f"DROP TABLE IF EXISTS {table}")
                self._connection.execute(_SCHEMA)
                self._connection.execute(f"PRAGMA user_version = {_VERSION}")

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk has ended it already
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise Unavailable(
                f"The online store {self._path} cannot be written: {error}.",
                hint="What it held before is still there. Make room on its disk, then materialise again.",
            ) from error


def _after(prefix: bytes) -> bytes:
    """The first name after all that begin with ``prefix``, whose last byte may be 255."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1])
