"""The online store: what is needed to answer any view for one entity at any recent time, in microseconds.

One row of SQLite (WAL) holds one msgpack value for a (view, entity). A value keeps the rows that were the latest at
some time of the last day, and for windows their times with running counts and sums. So an answer is computed for the
time that is asked: a window empties by itself when nothing new happens. Light to import: it runs inside the gateway.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from struct import Struct
from typing import Any

import msgspec

from relevo.errors import Conflict
from relevo.features.model import Aggregation, Feature, FeatureView, view_id

Value = float | int | str | bool | None

#: How far before ``materialised_through`` an asked time may lie and still be answered exactly.
KEPT_BEFORE = timedelta(hours=24)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MAX_VARIABLES = 900  # of one statement
_MAX_PLANS = 256
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (name BLOB PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS progress (
    view TEXT PRIMARY KEY, model TEXT NOT NULL, through_us INTEGER NOT NULL, origin TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS progress_of_model ON progress (model);
"""


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """What the store keeps for one entity of one view. Arrays are native int64 or float64, oldest first.

    ``known``, ``event`` (microseconds) and ``ends`` have one item a row that was the latest from ``known`` on; ``rows``
    holds its values as msgpack arrays, each up to its end. ``window_known`` and each of ``prefixes`` have one item a
    moment at which rows became known, with the counts and sums since the beginning. ``is_trimmed``: older moments of
    the windows are gone.
    """

    known: bytes = b""
    event: bytes = b""
    ends: bytes = b""
    rows: bytes = b""
    window_known: bytes = b""
    prefixes: tuple[bytes, ...] = ()
    is_trimmed: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """Answers to a lookup, one dict a row, and the time through which they are up to date (None: never filled)."""

    rows: list[dict[str, Value]]
    materialised_through: datetime | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a view is filled, and from which code and sources."""

    through: datetime
    origin: str


class OnlineStore:
    """Reads and writes ``online.db``. Not thread-safe: one object a thread. Many processes may read, one writes.

    Args:
        path: The SQLite file; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        # A power cut may take back the last commits with their progress; they are then materialised again.
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(_SCHEMA)
        self._plans: dict[tuple[object, ...], list[_Plan]] = {}

    def lookup(
        self, model: str, views: Sequence[FeatureView], keys: Sequence[Mapping[str, object]], at: Sequence[datetime]
    ) -> list[dict[str, Value]]:
        """Features of ``views`` for each row: its entity keys by column in ``keys``, its asked time in ``at``.

        A null or missing key gives nulls. So does what the store cannot know: a view that was never filled, or a window
        that starts before what is kept.
        """
        return self.find(model, views, keys, at).rows

    def find(
        self, model: str, views: Sequence[FeatureView], keys: Sequence[Mapping[str, object]], at: Sequence[datetime]
    ) -> Found:
        """As ``lookup``, with the time through which the views were filled at that very moment."""
        plans = self._plans_of(model, views)
        asked = [(time - _EPOCH) // _MICROSECOND for time in at]
        names = [[plan.name_of(key) for plan in plans] for key in keys]
        found = self._read(model, {name for row in names for name in row if name is not None})
        filled = [plan.view_id in found for plan in plans]
        rows: list[dict[str, Value]] = []
        for row_names, moment in zip(names, asked, strict=True):
            row: dict[str, Value] = {}
            for plan, name, is_filled in zip(plans, row_names, filled, strict=True):
                if name is None or not is_filled:
                    row.update(plan.nothing)
                else:
                    plan.answer(found.get(name), moment, row)
            rows.append(row)
        least = min((found[plan.view_id] for plan in plans), default=None) if all(filled) else None
        return Found(rows, None if least is None else _time(least))

    def materialised_through(self, model: str) -> datetime | None:
        """The time through which the views of the model were last filled; None before the first time."""
        (through,) = self._connection.execute(
            "SELECT max(through_us) FROM progress WHERE model = ?", (model,)
        ).fetchone()
        return None if through is None else _time(through)

    def progress(self, view: str) -> Progress | None:
        """How far the view with this id is filled."""
        row = self._connection.execute("SELECT through_us, origin FROM progress WHERE view = ?", (view,)).fetchone()
        return None if row is None else Progress(_time(row[0]), row[1])

    def entries(self, names: Iterable[bytes]) -> dict[bytes, Entry]:
        """The entries that are there, by their names (``entry_name``)."""
        return {name: _decode_entry(value) for name, value in self._values(names).items()}

    def write(
        self,
        model: str,
        entries: Mapping[bytes, Entry],
        *,
        progress: Mapping[str, Progress],
        expected: Mapping[str, Progress | None],
        cleared: Iterable[str] = (),
    ) -> None:
        """Replace entries and set the progress of their views, in one transaction.

        Args:
            model: Whose views.
            entries: New values by name.
            progress: The new progress by view id.
            expected: The progress by view id that the entries were computed from.
            cleared: Ids of views whose old entries go first.

        Raises:
            Conflict: Another process has filled the views in the meantime; nothing is written.
        """
        with self._write_transaction():
            for view, before in expected.items():
                now = self.progress(view)
                if now != before:
                    raise Conflict(f"view {view} was filled by another process through {now and now.through}")
            for view in cleared:
                start, end = entry_name(view), f"{view}\x01".encode()
                self._connection.execute("DELETE FROM entries WHERE name >= ? AND name < ?", (start, end))
            self._connection.executemany(
                "INSERT OR REPLACE INTO entries (name, value) VALUES (?, ?)",
                ((name, msgspec.msgpack.encode(entry)) for name, entry in entries.items()),
            )
            self._connection.executemany(
                "INSERT OR REPLACE INTO progress (view, model, through_us, origin) VALUES (?, ?, ?, ?)",
                ((view, model, microseconds(each.through), each.origin) for view, each in progress.items()),
            )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextmanager
    def _write_transaction(self) -> Any:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _read(self, model: str, names: set[bytes]) -> dict[Any, Any]:
        """Values by entry name, and microseconds by view id for each view of the model, all of one moment."""
        if len(names) <= _MAX_VARIABLES:  # one statement sees one moment
            marks = ",".join("?" * len(names))
            query = (
                f"SELECT name, value FROM entries WHERE name IN ({marks}) "  # noqa: S608 - only question marks
                "UNION ALL SELECT view, through_us FROM progress WHERE model = ?"
            )
            return dict(self._connection.execute(query, (*names, model)))
        self._connection.execute("BEGIN")
        try:
            return {**self._read(model, set()), **self._values(names)}
        finally:
            self._connection.execute("COMMIT")

    def _values(self, names: Iterable[bytes]) -> dict[bytes, bytes]:
        wanted = list(names)
        found: dict[bytes, bytes] = {}
        for start in range(0, len(wanted), _MAX_VARIABLES):
            some = wanted[start : start + _MAX_VARIABLES]
            marks = ",".join("?" * len(some))
            query = f"SELECT name, value FROM entries WHERE name IN ({marks})"  # noqa: S608 - only question marks
            found.update(self._connection.execute(query, some))
        return found

    def _plans_of(self, model: str, views: Sequence[FeatureView]) -> list[_Plan]:
        # By identity: hashing declarations costs more than a lookup. The plans hold the views, so ids stay theirs.
        key = (model, *map(id, views))
        plans = self._plans.get(key)
        if plans is None:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            plans = self._plans[key] = [_Plan(model, view) for view in views]
        return plans


def entry_name(view: str, key: bytes = b"") -> bytes:
    """The name of an entry: the id of its view and the entity's key (``encode_key``)."""
    return view.encode() + b"\0" + key


def encode_key(values: Sequence[object]) -> bytes:
    """The key of an entity as bytes; integers, text and truth values of equal value have equal bytes."""
    return msgspec.msgpack.encode(values)


def microseconds(time: datetime) -> int:
    """Microseconds since 1970, as the store counts time."""
    return (time - _EPOCH) // _MICROSECOND


def prefix_columns(view: FeatureView) -> tuple[bool, tuple[str, ...]]:
    """What a view's prefixes are: whether rows are counted (first), then the columns with a count and a sum each."""
    windowed = [feature for feature in view.features if feature.aggregation.is_windowed]
    counts = any(feature.aggregation is Aggregation.COUNT for feature in windowed)
    return counts, tuple(dict.fromkeys(feature.column for feature in windowed if feature.column))


def value_columns(view: FeatureView) -> tuple[str, ...]:
    """The columns whose latest values an entry's rows hold, in order."""
    latest = (feature for feature in view.features if feature.aggregation is Aggregation.LATEST)
    return tuple(dict.fromkeys(feature.column for feature in latest if feature.column))


_decode_entry = msgspec.msgpack.Decoder(Entry).decode
_decode_row = msgspec.msgpack.Decoder(list[Value]).decode
_encode = msgspec.msgpack.Encoder().encode
_integer, _float = Struct("=q").unpack_from, Struct("=d").unpack_from


class _Plan:
    """How the features of one view are read from an entry; worked out once."""

    def __init__(self, model: str, view: FeatureView) -> None:
        self.view = view
        self.view_id = view_id(model, view)
        self.nothing: dict[str, Value] = {feature.name: None for feature in view.features}
        self._prefix = entry_name(self.view_id)
        self._key = view.entity.key
        self._ttl_us = None if view.ttl is None else view.ttl // _MICROSECOND
        values = value_columns(view)
        latest = [feature for feature in view.features if not feature.aggregation.is_windowed]
        self._latest = [(each.name, values.index(each.column) if each.column else None) for each in latest]
        self._has_values = bool(values)
        self._windows = [
            (over // _MICROSECOND, [_window(view, feature) for feature in view.features if feature.over == over])
            for over in view.windows
        ]
        empty = {window.name: window.empty for _, windows in self._windows for window in windows}
        self._without_rows: dict[str, Value] = {**self.nothing, **empty}

    def name_of(self, key: Mapping[str, object]) -> bytes | None:
        """The name of the entity's entry; None when a part of its key is null."""
        values = [key.get(name) for name in self._key]
        return None if None in values else self._prefix + _encode(values)

    def answer(self, value: bytes | None, at: int, row: dict[str, Value]) -> None:
        """Put the features at the time ``at`` (microseconds) into ``row``."""
        if value is None:
            row.update(self._without_rows)
            return
        entry = _decode_entry(value)
        if self._latest:
            self._answer_latest(entry, at, row)
        if self._windows:
            self._answer_windows(entry, at, row)

    def _answer_latest(self, entry: Entry, at: int, row: dict[str, Value]) -> None:
        place = bisect_right(memoryview(entry.known).cast("q"), at) - 1
        age = at - memoryview(entry.event).cast("q")[place] if place >= 0 else 0
        if place < 0 or (self._ttl_us is not None and age > self._ttl_us):
            for name, _ in self._latest:
                row[name] = None
            return
        values: list[Value] = []
        if self._has_values:
            ends = memoryview(entry.ends).cast("q")
            values = _decode_row(memoryview(entry.rows)[ends[place - 1] if place else 0 : ends[place]])
        for name, index in self._latest:
            row[name] = age / 1e6 if index is None else values[index]

    def _answer_windows(self, entry: Entry, at: int, row: dict[str, Value]) -> None:
        known = memoryview(entry.window_known).cast("q")
        prefixes = entry.prefixes
        end = bisect_right(known, at) - 1
        for over_us, windows in self._windows:
            start = bisect_right(known, at - over_us) - 1
            if start < 0 and entry.is_trimmed:
                for window in windows:
                    row[window.name] = None
                continue
            for window in windows:
                count = _between(_integer, prefixes[window.count], start, end)
                if window.total is None:
                    row[window.name] = count
                elif not count:
                    row[window.name] = window.empty
                else:
                    total = _between(_float, prefixes[window.total], start, end)
                    row[window.name] = total / count if window.is_mean else total


@dataclass(frozen=True, slots=True)
class _Window:
    """One windowed feature: which prefixes it subtracts, and what it is when no row counts."""

    name: str
    count: int
    total: int | None
    is_mean: bool
    empty: Value


def _window(view: FeatureView, feature: Feature) -> _Window:
    is_mean = feature.aggregation is Aggregation.MEAN
    has_count, columns = prefix_columns(view)
    if feature.column is None:
        return _Window(feature.name, 0, None, False, 0)
    first = 2 * columns.index(feature.column) + has_count
    return _Window(feature.name, first, first + 1, is_mean, None if is_mean else 0.0)


def _between(item: Callable[[bytes, int], tuple[Any, ...]], prefix: bytes, start: int, end: int) -> Any:
    """What was added after index ``start`` up to ``end``; -1 stands for the beginning."""
    return (item(prefix, 8 * end)[0] if end >= 0 else 0) - (item(prefix, 8 * start)[0] if start >= 0 else 0)


def _time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
