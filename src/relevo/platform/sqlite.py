"""SQLite files that several processes open at the same moment."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

PATIENCE_SECONDS = 30.0
_POLL_SECONDS = 0.01


def create(path: Path) -> None:
    """Make the file and its folder, its owner's alone, unless they are there.

    SQLite's own default is 0644; its ``-wal`` and ``-shm`` files follow the mode.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)


def prepare(path: Path) -> None:
    """Make the file, in WAL mode, for a library that opens it and leaves its mode as it is."""
    create(path)
    with closing(sqlite3.connect(path, timeout=PATIENCE_SECONDS)) as connection:
        write_ahead(connection)


def write_ahead(connection: sqlite3.Connection, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Put the file in WAL mode, in which readers and a writer do not wait for each other.

    When two connections turn a new file over at the same moment, SQLite tells one of them that the file is locked,
    whatever its timeout (sqlite.org/wal.html, section 8), so it is tried again.

    Raises:
        sqlite3.OperationalError: The file stayed locked for all of the patience, or cannot be written.
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)
        else:
            return
