"""The online store: answers any view for one entity at any recent time, in microseconds.

``entries`` says what is kept for an entity and how features are read from it, ``progress`` how far each view is
filled, ``storage`` where the bytes are: SQLite embedded, Redis for scale-out. Light to import: the gateway runs it.

Entries stand under the name of a generation, which the record of their model tells. Views of one entity that are filled
anew together share a generation, and so an entry: one read answers all of them. It takes as many steps as there is to
write, and one swap of the record makes the new generation the one that is read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import repeat
from pathlib import Path

import msgspec

from relevo.errors import Conflict
from relevo.features.entries import KEPT_BEFORE, Entry, Reader, decoded, encode_key
from relevo.features.model import FeatureView, Value, view_id
from relevo.features.progress import (
    Progress,
    Record,
    encode_record,
    microseconds,
    read_record,
    record_name,
    time_of,
)
from relevo.features.recent import RecentEntries
from relevo.features.storage import PATIENCE_SECONDS, open_storage

__all__ = ["KEPT_BEFORE", "Found", "OnlineStore", "Progress", "Value"]

_MAX_QUESTIONS = 256
_MAX_ATTEMPTS = 20


class Found(msgspec.Struct, frozen=True):
    """Answers to a lookup. Made in a tenth of the time of a frozen dataclass, which would be a tenth of a lookup.

    Attributes:
        names: The features, in the order of the views.
        values: One list a row, in the order of ``names``.
        materialised_through: The time through which all of the views are up to date; None when one was never filled.
        without_rows: By view, the places of the rows for whose entity it knows no row at the asked time.
    """

    names: tuple[str, ...]
    values: list[list[Value]]
    materialised_through: datetime | None
    without_rows: Mapping[str, Sequence[int]]

    @property
    def rows(self) -> list[dict[str, Value]]:
        """The values by name."""
        return [dict(zip(self.names, row, strict=True)) for row in self.values]


class OnlineStore:
    """Reads and writes the online store. Not thread-safe: one object a thread. Many processes may read, one writes.

    Args:
        place: The path of a SQLite file, made when it is not there; or the URL of a Redis.
        patience_seconds: How long the storage may take to answer.

    Every method raises ``Unavailable`` when the storage cannot be reached or takes no more.
    """

    def __init__(self, place: Path | str, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.storage = open_storage(place, patience_seconds)
        self._recent = RecentEntries(self.storage)
        self._questions: dict[tuple[object, ...], _Question] = {}

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
        question = self._question(model, views)
        if len(keys) == 1:
            return self._find_one(question, keys[0], microseconds(at[0]))
        keys_of = question.keys_of(keys)
        while True:
            record, *values = self.storage.read([question.record_name, *question.names_of(keys_of)])
            if question.is_of(record):
                return question.answer(keys_of, _microseconds(at), values)

    def materialised_through(self, model: str) -> datetime | None:
        """The time through which the views of the model were last filled; None before the first time."""
        return max((progress.through for progress in self.progress_of(model).values()), default=None)

    def progress_of(self, model: str) -> dict[str, Progress]:
        """How far each filled view of the model is, by its id."""
        return {view: filled.progress for view, filled in self.record(model).filled.items()}

    def progress(self, view: str) -> Progress | None:
        """How far the view with this id is filled."""
        return self.progress_of(view.split(":")[0]).get(view)

    def record(self, model: str) -> Record:
        """What is known of the model's views."""
        return read_record(self.storage.read([record_name(model)])[0])

    def entries(self, names: Sequence[bytes]) -> list[Entry | None]:
        """Decoded entries by place in ``names``, each a generation and a key."""
        return list(map(decoded, self.storage.read(names)))

    def update(
        self, model: str, change: Callable[[Record], Record], entries: Sequence[tuple[bytes, bytes]] = ()
    ) -> Record:
        """Replace the model's record and ``entries`` at once; gives the new record.

        Args:
            model: Whose record.
            change: Gives the new record from the one that is there. Raises what it finds to be wrong; nothing is then
                written. Called again when another process was quicker.
            entries: Encoded entries by name.

        Raises:
            Conflict: The record keeps changing.
        """
        name = record_name(model)
        value = self.storage.read([name])[0]
        for _ in range(_MAX_ATTEMPTS):
            after = change(read_record(value))
            encoded = encode_record(after)
            if self.storage.swap(name, value, encoded, entries):
                self._recent.expire()
                return after
            value = self.storage.read([name])[0]
            if value == encoded:  # it was swapped, and only the answer was lost
                return after
        raise Conflict(f"the online store of {model} is changed by others all the time")

    def drop_retired(self, model: str, record: Record) -> Record:
        """Delete the entries of generations that nobody reads any more."""
        if not record.retired:
            return record
        gone = list(record.retired)
        self.storage.drop(gone)
        return self.update(model, lambda now: now.replaced({}, dropped=gone))

    def forget(self, model: str, views: Collection[str]) -> None:
        """Delete what is kept of these views, by their ids. Entries that others share go when the last of them goes."""
        self.drop_retired(model, self.update(model, lambda record: record.without(views)))

    def close(self) -> None:
        """Close the connection."""
        self.storage.close()

    def _find_one(self, question: _Question, row: Mapping[str, object], at: int) -> Found:
        keys = question.keys_of_one(row)
        while True:
            names = [generation + key for generation, which in question.entries if (key := keys[which]) is not None]
            record, entries = self._recent.read(question.record_name, names)
            if question.is_of(record):
                return question.answer_one(keys, at, entries)

    def _question(self, model: str, views: Sequence[FeatureView]) -> _Question:
        # By identity: hashing declarations costs more than a lookup. The question holds the views, so ids stay theirs.
        key = (model, *map(id, views))
        question = self._questions.get(key)
        if question is None:
            if len(self._questions) >= _MAX_QUESTIONS:
                self._questions.clear()
            question = self._questions[key] = _Question(model, views)
        return question


class _Question:
    """Some views of a model that are asked for together, and where their items were when last looked.

    Attributes:
        entries: What is read for each row, each once: the generation, and which of the key columns name the entity.
    """

    def __init__(self, model: str, views: Sequence[FeatureView]) -> None:
        self.record_name = record_name(model)
        self.entries: list[tuple[bytes, int]] = []
        self._readers = [Reader(view) for view in views]
        self._key_columns = list(dict.fromkeys(view.entity.key for view in views))
        self._key_of = [self._key_columns.index(view.entity.key) for view in views]
        self._ids = [view_id(model, view) for view in views]
        #: For each view: which of ``entries`` has its items, None when it was never filled, and their place in it.
        self._places: list[tuple[Reader, int | None, int]] = [(reader, None, 0) for reader in self._readers]
        self._names = tuple(name for reader in self._readers for name in reader.names)
        self._record: bytes | None = None
        self._through: datetime | None = None

    def is_of(self, record: bytes | None) -> bool:
        """Whether entries that were read with the record are those that it names; if not, the next will be."""
        if record == self._record:
            return True
        filled = read_record(record).filled
        found = [filled.get(view) for view in self._ids]
        through = [each.through_us for each in found if each is not None]
        self._through = time_of(min(through)) if through and len(through) == len(found) else None
        self._record = record
        before = (self.entries, self._places)
        self.entries, self._places = [], []
        for reader, each, which in zip(self._readers, found, self._key_of, strict=True):
            if each is None:
                self._places.append((reader, None, 0))
                continue
            if (each.generation, which) not in self.entries:
                self.entries.append((each.generation, which))
            self._places.append((reader, self.entries.index((each.generation, which)), each.place))
        return before == (self.entries, self._places)

    def keys_of(self, rows: Sequence[Mapping[str, object]]) -> list[list[bytes | None]]:
        """Each row's entity as bytes, for each of the key columns."""
        return [[encode_key(columns, row) for row in rows] for columns in self._key_columns]

    def keys_of_one(self, row: Mapping[str, object]) -> list[bytes | None]:
        """The row's entity as bytes, for each of the key columns."""
        return [encode_key(columns, row) for columns in self._key_columns]

    def names_of(self, keys_of: Sequence[Sequence[bytes | None]]) -> list[bytes]:
        """Each entry to read, once."""
        return [
            generation + key
            for generation, which in self.entries
            for key in dict.fromkeys(keys_of[which])
            if key is not None
        ]

    def answer(
        self, keys_of: Sequence[Sequence[bytes | None]], at: Sequence[int], values: Iterable[bytes | None]
    ) -> Found:
        """The features of each row, from the values of its entries; an entry is decoded once for all rows."""
        value = iter(values)
        columns: list[list[Entry | tuple[()] | None]] = []
        for _, which in self.entries:
            keys = keys_of[which]
            present = {key: () if key is None else decoded(next(value)) for key in dict.fromkeys(keys)}
            columns.append([present[key] for key in keys])
        entries_of = zip(*columns, strict=True) if columns else repeat(())
        without_rows: dict[str, list[int]] = {}
        rows = [
            self._row(number, entries, moment, without_rows)
            for number, (moment, entries) in enumerate(zip(at, entries_of, strict=False))
        ]
        return Found(self._names, rows, self._through, without_rows)

    def answer_one(self, keys: Sequence[bytes | None], at: int, found: Iterable[Entry | None]) -> Found:
        """As ``answer``, for one row and decoded entries: the usual lookup, without what many rows need."""
        entry = iter(found)
        entries = [() if keys[which] is None else next(entry) for _, which in self.entries]
        without_rows: dict[str, list[int]] = {}
        return Found(self._names, [self._row(0, entries, at, without_rows)], self._through, without_rows)

    def _row(
        self,
        number: int,
        entries: Sequence[Entry | tuple[()] | None],
        at: int,
        without_rows: dict[str, list[int]],
    ) -> list[Value]:
        """The features of a row from its ``entries``, of which one without a key is empty; notes views without rows."""
        row: list[Value] = []
        for reader, which, place in self._places:
            entry = () if which is None else entries[which]
            if entry:
                found = reader.answer(entry[place], at)
            else:
                found = reader.without_rows if entry is None else reader.nothing
            if found is reader.without_rows or found is reader.nothing:
                without_rows.setdefault(reader.view.name, []).append(number)
            row += found
        return row


def _microseconds(times: Sequence[datetime]) -> list[int]:
    if times and times.count(times[0]) == len(times):
        return [microseconds(times[0])] * len(times)
    return [microseconds(time) for time in times]
