"""The collector: moves closed segments and new labels into Delta tables, exactly once. One process a home.

A segment is deleted only after the commit that holds its rows was synced. The commit records the segment's worker boot
and sequence, so a segment that is found again after a crash adds nothing.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from relevo.errors import Conflict
from relevo.platform.processes import die_with_supervisor
from relevo.platform.settings import Settings
from relevo.platform.state import State, Transaction
from relevo.predictions import store
from relevo.predictions.backlog import ClosedSegment, closed_segments
from relevo.predictions.columns import fits, label_rows, prediction_rows
from relevo.predictions.frames import Record, scan
from relevo.predictions.progress import Progress, read_progress, write_progress
from relevo.predictions.segments import rotation_ns
from relevo.predictions.tables import LogTable, is_endpoint_name, table_path

POLL_SECONDS = 0.05
COMMIT_EVERY_SECONDS = 0.5
HEARTBEAT_SECONDS = 1.0
ROUND_BYTES = 32 << 20
ROUND_LABELS = 20_000
_LABELS_APP = "labels"
_ERROR_WAIT_SECONDS = 1.0
_TRIES_WHEN_STOPPING = 3
_LOCK_WAIT_SECONDS = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Read:
    """A segment that was read, and what of it could not be used."""

    segment: ClosedSegment
    torn_bytes: int
    damaged_bytes: int
    misfits: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing is lost with it; a torn tail was never acknowledged."""
        return self.damaged_bytes == 0 and self.misfits == 0


@dataclass(slots=True)
class _Batch:
    """Closed segments that are moved together: their records by endpoint, and up to where these go."""

    read: list[_Read] = field(default_factory=list)
    records: dict[str, list[Record]] = field(default_factory=dict)
    transactions: dict[str, dict[str, int]] = field(default_factory=dict)  # endpoint -> app id -> last sequence


class Collector:
    """Moves what is waiting, one round a call. Not thread-safe; there is one at a time.

    Args:
        settings: Home folder and label database.
    """

    def __init__(self, settings: Settings) -> None:
        self._root = settings.root
        self._log = settings.folder("log")
        self._state = State(settings.database("labels"))
        self._tables: dict[tuple[str, str], LogTable] = {}
        with self._state.transaction() as tx:
            store.create_tables(tx)
        self._last_label: int | None = None
        self._written_at = 0.0
        self.progress = read_progress(self._log) or Progress()
        self.progress.pid = os.getpid()

    def round(self) -> bool:
        """Move the oldest closed segments and labels; whether there was anything to move.

        Raises:
            Exception: Whatever stopped it. Nothing is lost: the next round begins where the last commit ended.
        """
        try:
            moved = self._move_segments() + self._move_labels()
        except Exception as error:
            self._tables.clear()  # what they hold may not be what is on disk
            self._last_label = None
            self.progress.errors += 1
            self.progress.last_error = f"{type(error).__name__}: {error}"
            self._write_progress()
            raise
        self.progress.last_error = None
        if moved:
            self._write_progress()
        return moved > 0

    def beat(self) -> None:
        """Write the progress file when the last one is a second old."""
        if time.monotonic() - self._written_at >= HEARTBEAT_SECONDS:
            self._write_progress()

    def close(self) -> None:
        """Write the last progress and close the label database."""
        self._write_progress()
        self._state.close()

    def _write_progress(self) -> None:
        self.progress.at = datetime.now(UTC)
        write_progress(self._log, self.progress)
        self._written_at = time.monotonic()

    def _table(self, kind: str, endpoint: str) -> LogTable:
        key = (kind, endpoint)
        if key not in self._tables:
            self._tables[key] = LogTable(table_path(self._root, kind, endpoint))
        return self._tables[key]

    def _move_segments(self) -> int:
        """Move segments up to 32 MiB; gives how many. An endpoint that fails does not hold up the others."""
        batch = self._read_batch(closed_segments(self._log))
        failures = []
        for endpoint, records in batch.records.items():
            try:
                self._append(endpoint, records, batch.transactions[endpoint])
            except Exception as error:
                logger.exception("predictions of %s cannot be moved", endpoint)
                failures.append(error)
        if failures:
            raise failures[0]
        for read in batch.read:
            self._dispose(read)
        return len(batch.read)

    def _dispose(self, read: _Read) -> None:
        """Delete or keep aside a segment whose rows are in the tables, and count it."""
        if read.is_whole:
            read.segment.remove()
        else:
            kept = read.segment.set_aside(self._log)
            logger.warning("segment %s has damaged bytes; kept as %s", read.segment.path, kept)
        self.progress.segments += 1
        self.progress.torn_tails += read.torn_bytes > 0
        self.progress.torn_bytes += read.torn_bytes
        self.progress.damaged_segments += not read.is_whole
        self.progress.damaged_bytes += read.damaged_bytes
        self.progress.misfits += read.misfits

    def _read_batch(self, closed: Sequence[ClosedSegment]) -> _Batch:
        batch, size = _Batch(), 0
        for segment in closed:
            if size >= ROUND_BYTES:
                break
            data = segment.read()
            size += len(data)
            batch.read.append(self._read_segment(segment, data, batch))
        return batch

    def _read_segment(self, segment: ClosedSegment, data: bytes, batch: _Batch) -> _Read:
        """Add the records of ``data`` that no table holds yet to ``batch``."""
        found, misfits = scan(data), 0
        is_new: dict[str, bool] = {}
        for record in found:
            endpoint = record.endpoint
            if not is_endpoint_name(endpoint) or not fits(record):
                misfits += 1
                continue
            if endpoint not in is_new:
                table = self._table("predictions", endpoint)
                is_new[endpoint] = table.transaction(segment.app_id) < segment.name.sequence
            if is_new[endpoint]:
                batch.records.setdefault(endpoint, []).append(record)
        for endpoint in (name for name, new in is_new.items() if new):
            batch.transactions.setdefault(endpoint, {})[segment.app_id] = segment.name.sequence
        torn = found.torn_bytes if segment.was_abandoned else 0
        return _Read(segment, torn, found.damaged_bytes + found.torn_bytes - torn, misfits)

    def _append(self, endpoint: str, records: list[Record], transactions: dict[str, int]) -> None:
        table = self._table("predictions", endpoint)
        rows = prediction_rows(records, table.columns())
        table.append(rows, transactions)
        self.progress.frames += len(records)
        self.progress.rows += rows.height
        self.progress.rows_failed += rows.filter(pl.col("status") == "failed").height

    def _move_labels(self) -> int:
        """Move labels up to 20,000; gives how many. The last id is the application version of the commit."""
        with self._state.read() as tx:
            if self._last_label is None:
                self._last_label = self._first_missing(tx)
            labels = store.after(tx, self._last_label, ROUND_LABELS)
        by_endpoint: dict[str, list[store.LabelRow]] = {}
        for label in labels:
            by_endpoint.setdefault(label.endpoint, []).append(label)
        for endpoint, rows in by_endpoint.items():
            table = self._table("labels", endpoint)
            last = table.transaction(_LABELS_APP)
            new = [row for row in rows if row.id > last]
            if new:
                table.append(label_rows(new), {_LABELS_APP: new[-1].id})
                self.progress.labels += len(new)
        if labels:
            self._last_label = labels[-1].id
        self.progress.labels_through = self._last_label
        return len(labels)

    def _first_missing(self, tx: Transaction) -> int:
        """The id up to which the labels of every endpoint are in its table."""
        done = [self._table("labels", name).transaction(_LABELS_APP) for name in store.endpoints(tx)]
        return min(done, default=0)


def run(settings: Settings, stop: threading.Event) -> None:
    """Collect until ``stop`` is set, then until nothing is waiting.

    Raises:
        Conflict: Another collector works in this home.
    """
    lock = _lock(settings)
    collector = Collector(settings)
    failed_when_stopping = 0
    try:
        while True:
            is_stopping = stop.is_set()
            try:
                moved = collector.round()
            except Exception:
                logger.exception("the collector could not finish a round; it tries again")
                failed_when_stopping += is_stopping
                if failed_when_stopping >= _TRIES_WHEN_STOPPING:
                    return
                stop.wait(_ERROR_WAIT_SECONDS)
                continue
            if is_stopping and not moved:
                return
            collector.beat()
            if moved:
                _rest(settings.folder("log"), stop)
            else:
                stop.wait(POLL_SECONDS)
    finally:
        collector.close()
        os.close(lock)


def _rest(log: Path, stop: threading.Event) -> None:
    """Let more come together before the next commit, which costs the same for one row; a flush ends it at once."""
    asked, deadline = rotation_ns(log), time.monotonic() + COMMIT_EVERY_SECONDS
    while time.monotonic() < deadline and rotation_ns(log) == asked:
        if stop.wait(POLL_SECONDS):
            return


def _lock(settings: Settings) -> int:
    """The lock of the one collector; waits a little for the last one to end."""
    path = settings.folder("log") / "collector.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _LOCK_WAIT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise Conflict(f"Another collector works in {settings.root}; stop it first.") from None
            time.sleep(0.1)
        else:
            return descriptor


def main() -> int:
    """The process: settings from the environment, SIGTERM and SIGINT drain."""
    settings = Settings()
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    die_with_supervisor()
    try:
        run(settings, stop)
    except Conflict as error:
        logger.error("%s", error)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
