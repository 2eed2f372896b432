"""How far each view of a model is filled, and where its entries are: one value of the online store for each model.

A lookup reads it together with the entries, so both are of one moment. Whoever fills a view replaces it only if it is
still what it was read as. Light to import.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

#: Raised when entries are encoded in another way: what was filled before is then filled anew.
FORMAT = 3

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a view is filled.

    Attributes:
        through: Event time through which its rows are in.
        origin: Digest of the code and sources that they came from.
        newest_at: When the newest of all rows read so far began to count; None without rows, or without times.
        recorded_at: Wall time at which this was written.
        content: Digest of all rows that were read, by which a source that gives other rows later is found out; None
            when it is not known. Digests of different versions of Polars cannot be compared, and begin differently.
    """

    through: datetime
    origin: str
    newest_at: datetime | None
    recorded_at: datetime
    content: str | None = None


class Filled(msgspec.Struct, array_like=True, frozen=True):
    """A ``Progress`` as it is kept, with where the view's items are: entries under a generation, place in each."""

    generation: bytes
    through_us: int
    origin: str
    newest_us: int | None
    recorded_us: int
    content: str | None = None
    place: int = 0

    @property
    def progress(self) -> Progress:
        """The same for people."""
        newest_at = None if self.newest_us is None else time_of(self.newest_us)
        return Progress(time_of(self.through_us), self.origin, newest_at, time_of(self.recorded_us), self.content)


class Filling(msgspec.Struct, array_like=True, frozen=True):
    """A first fill of some views that is under way, under a generation that nobody reads yet.

    ``rows`` has a digest of the rows of each view that are filled in; ``done`` of the ``parts`` are written.
    """

    generation: bytes
    views: tuple[str, ...]
    origin: str
    until_us: int
    rows: tuple[int, ...]
    parts: int
    done: int


class Record(msgspec.Struct, array_like=True, frozen=True):
    """All that is known of a model's views. ``retired`` generations are to be deleted, and never read again."""

    format: int = FORMAT
    filled: dict[str, Filled] = msgspec.field(default_factory=dict)
    filling: list[Filling] = msgspec.field(default_factory=list)
    retired: list[bytes] = msgspec.field(default_factory=list)

    @property
    def generations(self) -> list[bytes]:
        """Those that are read, and those that will be."""
        return [*(each.generation for each in self.filled.values()), *(each.generation for each in self.filling)]

    def filling_of(self, views: Iterable[str]) -> Filling | None:
        """The fill of exactly these views that is under way."""
        return next((each for each in self.filling if each.views == tuple(views)), None)

    def replaced(
        self, filled: dict[str, Filled], filling: Filling | None = None, dropped: Sequence[bytes] = ()
    ) -> Record:
        """With these views filled or being filled, which ends other fills of them.

        Generations that are no longer used are retired; ``dropped`` ones were deleted.
        """
        changed = {*filled, *(filling.views if filling else ())}
        still = [each for each in self.filling if changed.isdisjoint(each.views)]
        after = Record(FORMAT, self.filled | filled, [*still, *([filling] if filling else [])], [])
        return self._retiring(after, dropped)

    def without(self, views: Collection[str]) -> Record:
        """As if these views had never been filled. Generations that only they use are retired."""
        filled = {view: each for view, each in self.filled.items() if view not in views}
        return self._retiring(msgspec.structs.replace(self, filled=filled))

    def _retiring(self, after: Record, dropped: Sequence[bytes] = ()) -> Record:
        used = {*after.generations, *dropped}
        retired = dict.fromkeys(each for each in (*self.retired, *self.generations) if each not in used)
        return msgspec.structs.replace(after, retired=list(retired))


_decode = msgspec.msgpack.Decoder(Record).decode
_decode_format = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def read_record(value: bytes | None) -> Record:
    """The record in ``value``; an empty one when there is none, or when its format is another."""
    if value is None or int(msgspec.msgpack.decode(_decode_format(value)[0])) != FORMAT:
        return Record()
    return _decode(value)


def encode_record(record: Record) -> bytes:
    """The record as the store keeps it."""
    return msgspec.msgpack.encode(record)


def record_name(model: str) -> bytes:
    """The name of the model's record."""
    return b"model:" + model.encode()


def new_generation() -> bytes:
    """The beginning of the names of entries that belong together; never given twice, and no record's name."""
    return b"\xff" + secrets.token_bytes(7)


def microseconds(time: datetime) -> int:
    """Microseconds since 1970, as the store counts time."""
    return (time - _EPOCH) // _MICROSECOND


def time_of(microseconds: int) -> datetime:
    """The time that ``microseconds`` names."""
    return _EPOCH + timedelta(microseconds=microseconds)
