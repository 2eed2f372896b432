"""Entries of the online store that were read before, kept decoded. Light to import.

Between two fills a gateway is asked about the same airports and customers again and again. Whoever writes entries
changes the record of their model with them. So what is kept beside one record is of one moment, and a reading of the
record says whether that moment is over. In SQLite a number says cheaply whether anybody has written at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from relevo.features.entries import Entry, decode_entry
from relevo.features.storage import Storage

#: What is kept at most. When it is more, all of it is let go of.
MAX_BYTES = 16 << 20
#: What an entry is counted to take beside its arrays and text: its name, and what Python makes of a few values.
ENTRY_BYTES = 1_000
#: How long the storage's number is taken for current: in a busy gateway asking costs two fifths of a lookup. Whoever
#: has filled features tells it to others later than that.
CURRENT_SECONDS = 0.001


class _Kept:
    """Entries of one moment of a model: that of its record. What was written up to ``changes`` is in them."""

    __slots__ = ("bytes", "changes", "entries", "record")

    def __init__(self, record: bytes | None) -> None:
        self.record = record
        self.entries: dict[bytes, Entry | None] = {}
        self.changes: int | None = None
        self.bytes = 0


class RecentEntries:
    """What one storage gave. Not thread-safe, as the storage.

    Args:
        storage: Where entries and records are read.
        max_bytes: How much is kept.
    """

    def __init__(self, storage: Storage, max_bytes: int = MAX_BYTES) -> None:
        self._storage = storage
        self._max_bytes = max_bytes
        self._bytes = 0
        self._by_record: dict[bytes, _Kept] = {}
        self._changes: int | None = None
        self._ask_at = 0.0

    def read(self, record_name: bytes, names: Sequence[bytes]) -> tuple[bytes | None, list[Entry | None]]:
        """The record and the entries by place in ``names``, all of one moment. Readers may open their items in place.

        Raises:
            Unavailable: The storage cannot be reached.
        """
        now = perf_counter()
        if now >= self._ask_at:
            self._changes, self._ask_at = self._storage.changes(), now + CURRENT_SECONDS
        kept = self._by_record.get(record_name)
        if kept is None:
            return self._read_all(record_name, names)
        entries = kept.entries
        missing = [name for name in names if name not in entries]
        if not missing and kept.changes == self._changes is not None:
            return kept.record, [entries[name] for name in names]
        record, *values = self._storage.read([record_name, *missing])
        if record != kept.record:
            return self._read_all(record_name, names)
        self._keep(kept, missing, values)
        return record, [entries[name] for name in names]

    def expire(self) -> None:
        """Ask the storage for its number again: this process has written."""
        self._ask_at = 0.0

    def _read_all(self, record_name: bytes, names: Sequence[bytes]) -> tuple[bytes | None, list[Entry | None]]:
        record, *values = self._storage.read([record_name, *names])
        before = self._by_record.get(record_name)
        self._bytes -= 0 if before is None else before.bytes
        kept = self._by_record[record_name] = _Kept(record)
        self._keep(kept, names, values)
        return record, [kept.entries[name] for name in names]

    def _keep(self, kept: _Kept, names: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        kept.changes = self._changes
        size = 0
        for name, value in zip(names, values, strict=True):
            if value is None:
                kept.entries[name] = None
                size += ENTRY_BYTES
            else:
                kept.entries[name] = decode_entry(value)
                size += ENTRY_BYTES + len(value)
        kept.bytes += size
        self._bytes += size
        if self._bytes > self._max_bytes:
            self._by_record.clear()
            self._bytes = 0
