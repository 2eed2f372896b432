"""The online store: answers any view for one entity at any recent time, in microseconds.

``entries`` says what is kept for a (view, entity) and how features are read from it, ``progress`` how far each view is
filled, ``storage`` where the bytes are: SQLite embedded, Redis for scale-out. Light to import: the gateway runs it.

The entries of a view stand under the name of a generation, which the record of its model tells. A view is filled anew
under a new generation, in as many steps as it takes, and one swap of the record makes it the one that is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from relevo.errors import Conflict
from relevo.features.entries import KEPT_BEFORE, Items, Reader, decode_entry, encode_keys
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
from relevo.features.storage import PATIENCE_SECONDS, open_storage

__all__ = ["KEPT_BEFORE", "Found", "OnlineStore", "Progress", "Value"]

_MAX_QUESTIONS = 256
_MAX_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Found:
    """Answers to a lookup.

    Attributes:
        names: The features, in the order of the views.
        values: One list a row, in the order of ``names``.
        materialised_through: The time through which all of the views are up to date; None when one was never filled.
        without_rows: By view, the places of the rows for whose entity it knows no row at the asked time.
    """

    names: tuple[str, ...]
    values: list[list[Value]]
    materialised_through: datetime | None
    without_rows: Mapping[str, Sequence[int]] = field(default_factory=dict)

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
            names, bounds = question.names_of(keys_of)
            record, *values = self.storage.read([question.record_name, *names])
            if question.is_of(record):
                return question.answer(keys_of, _microseconds(at), values, bounds)

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

    def entries(self, names: Sequence[bytes]) -> list[Items | None]:
        """Decoded entries by place in ``names``, each a generation and a key."""
        return [None if value is None else decode_entry(value) for value in self.storage.read(names)]

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
        return self.update(model, lambda now: now.replaced({}, {}, gone))

    def close(self) -> None:
        """Close the connection."""
        self.storage.close()

    def _find_one(self, question: _Question, key: Mapping[str, object], at: int) -> Found:
        """The usual lookup, of one row, without what many rows need."""
        own = question.keys_of_one(key)
        while True:
            names = [
                prefix + key
                for prefix, key in zip(question.prefixes, own, strict=True)
                if prefix is not None and key is not None
            ]
            record, *values = self.storage.read([question.record_name, *names])
            if question.is_of(record):
                return question.answer_one(own, at, values)

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
    """Some views of a model that are asked for together, and where their entries were when last looked."""

    def __init__(self, model: str, views: Sequence[FeatureView]) -> None:
        self.readers = [Reader(view) for view in views]
        self.record_name = record_name(model)
        self.prefixes: list[bytes | None] = [None for _ in views]
        self._key_columns = list(dict.fromkeys(view.entity.key for view in views))
        self._key_of = [self._key_columns.index(view.entity.key) for view in views]
        self._ids = [view_id(model, view) for view in views]
        self._names = tuple(name for reader in self.readers for name in reader.names)
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
        before, self.prefixes = self.prefixes, [None if each is None else each.generation for each in found]
        return self.prefixes == before

    def keys_of(self, rows: Sequence[Mapping[str, object]]) -> list[list[bytes | None]]:
        """For each view, each row's entity as bytes; views of the same key columns share the list."""
        found = [encode_keys(columns, rows) for columns in self._key_columns]
        return [found[place] for place in self._key_of]

    def keys_of_one(self, row: Mapping[str, object]) -> list[bytes | None]:
        """For each view, the row's entity as bytes."""
        found = [encode_keys(columns, (row,))[0] for columns in self._key_columns]
        return found * len(self._key_of) if len(found) == 1 else [found[place] for place in self._key_of]

    def names_of(self, keys_of: Sequence[Sequence[bytes | None]]) -> tuple[list[bytes], list[int]]:
        """Each entry to read once, view after view, and where those of each view begin and end."""
        names: list[bytes] = []
        bounds = [0]
        for prefix, keys in zip(self.prefixes, keys_of, strict=True):
            if prefix is not None:
                names += [prefix + key for key in dict.fromkeys(keys) if key is not None]
            bounds.append(len(names))
        return names, bounds

    def answer_one(self, keys: Sequence[bytes | None], at: int, values: Sequence[bytes | None]) -> Found:
        """The features of one row, from the values of its entries."""
        row: list[Value] = []
        without_rows: dict[str, list[int]] = {}
        place = 0
        for reader, key, prefix in zip(self.readers, keys, self.prefixes, strict=True):
            if prefix is None or key is None:
                found = reader.nothing
            else:
                value = values[place]
                place += 1
                found = reader.without_rows if value is None else reader.answer(decode_entry(value), at)
            if found is reader.nothing or found is reader.without_rows:
                without_rows[reader.view.name] = [0]
            row += found
        return Found(self._names, [row], self._through, without_rows)

    def answer(
        self,
        keys_of: Sequence[Sequence[bytes | None]],
        at: Sequence[int],
        values: Sequence[bytes | None],
        bounds: Sequence[int],
    ) -> Found:
        """The features of each row, from the values of its entries; an entry is decoded once for all rows."""
        moment = at[0] if at and at.count(at[0]) == len(at) else None
        columns: list[list[list[Value]]] = []
        without_rows: dict[str, list[int]] = {}
        for reader, keys, prefix, (start, end) in zip(
            self.readers, keys_of, self.prefixes, pairwise(bounds), strict=True
        ):
            nothing, without = reader.nothing, reader.without_rows
            entries = [None if value is None else decode_entry(value) for value in values[start:end]]
            present = dict(
                zip((key for key in dict.fromkeys(keys) if key is not None), entries, strict=prefix is not None)
            )
            answer = reader.answer
            if prefix is None:
                column = [nothing] * len(keys)
            elif moment is not None:
                answers = {key: answer(items, moment) for key, items in present.items()}
                column = [nothing if key is None else answers[key] for key in keys]
            else:
                column = [
                    nothing if key is None else answer(present[key], each) for key, each in zip(keys, at, strict=True)
                ]
            columns.append(column)
            missing = [place for place, found in enumerate(column) if found is without or found is nothing]
            if missing:
                without_rows[reader.view.name] = missing
        rows = [[value for part in parts for value in part] for parts in zip(*columns, strict=True)]
        return Found(self._names, rows if columns else [[] for _ in at], self._through, without_rows)


def _microseconds(times: Sequence[datetime]) -> list[int]:
    if times and times.count(times[0]) == len(times):
        return [microseconds(times[0])] * len(times)
    return [microseconds(time) for time in times]
