"""What is kept of the online store between two fills is never older than what is there, and of one moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from filling import VIEW, at, materialiser

from relevo.features import recent
from relevo.features.entries import encode_entry
from relevo.features.online import OnlineStore
from relevo.features.recent import RecentEntries
from relevo.features.sqlite_storage import SqliteStorage

RECORD = b"record"


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "online.db") if request.param == "sqlite" else request.getfixturevalue("redis_place")


@pytest.fixture
def writer(place: str) -> Iterator[OnlineStore]:
    with closing(OnlineStore(place)) as opened:
        yield opened


@pytest.fixture
def reader(place: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnlineStore]:
    """Another process's store, as the gateway has one; it asks each time whether somebody has written."""
    monkeypatch.setattr(recent, "CURRENT_SECONDS", 0.0)
    with closing(OnlineStore(place)) as opened:
        yield opened


def served(store: OnlineStore, hour: int, entity: int = 0) -> Any:
    found = store.find("m", [VIEW], [{"id": entity}], [at(hour)])
    return found.rows[0]["hour"], found.materialised_through


def test_what_another_process_fills_is_served_at_once(writer: OnlineStore, reader: OnlineStore) -> None:
    assert served(reader, 5) == (None, None)
    for hour in range(5):
        materialiser(writer).materialise(at(hour))
        assert served(reader, 5) == (hour, at(hour))
        assert served(reader, 5) == (hour, at(hour))
    writer.forget("m", list(writer.record("m").filled))
    assert served(reader, 5) == (None, None)


def test_what_a_store_fills_itself_is_served_at_once(writer: OnlineStore) -> None:
    assert served(writer, 5) == (None, None)
    materialiser(writer).materialise(at(3))
    assert served(writer, 5) == (3, at(3))
    materialiser(writer).materialise(at(4))
    assert served(writer, 5) == (4, at(4))


class Counted(SqliteStorage):
    """Notes what is read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.reads: list[list[bytes]] = []

    def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        self.reads.append(list(names))
        return super().read(names)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Counted]:
    with closing(Counted(tmp_path / "online.db")) as opened:
        yield opened


@pytest.fixture
def other(storage: Counted, tmp_path: Path) -> Iterator[SqliteStorage]:
    with closing(SqliteStorage(tmp_path / "online.db")) as opened:
        yield opened


def write(storage: SqliteStorage, moment: int) -> None:
    """Everything as of a moment: the record names it, and each entry holds it."""
    before = storage.read([RECORD])[0]
    entries = [(name, encode_entry([[moment]])) for name in (b"a", b"b", b"c")]
    assert storage.swap(RECORD, before, bytes([moment]), entries)


def moments(kept: RecentEntries, *names: bytes) -> list[int | None]:
    """The moment of the record and of each entry."""
    record, entries = kept.read(RECORD, names)
    assert record is not None
    return [record[0], *(None if entry is None else entry[0][0] for entry in entries)]  # type: ignore[index]


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage is asked each time whether somebody has written."""
    monkeypatch.setattr(recent, "CURRENT_SECONDS", 0.0)


@pytest.mark.usefixtures("always")
def test_an_entry_is_read_once_until_somebody_writes(storage: Counted, other: SqliteStorage) -> None:
    kept = RecentEntries(storage)
    for moment in (1, 2):
        write(other, moment)
        for _ in range(3):
            assert moments(kept, b"a", b"unknown") == [moment, moment, None]
    assert moments(kept, b"a", b"b") == [2, 2, 2]
    whole = [RECORD, b"a", b"unknown"]
    assert storage.reads == [whole, [RECORD], whole, [RECORD, b"b"]]


@pytest.mark.usefixtures("always")
def test_what_others_write_for_another_model_costs_one_reading_of_the_record(
    storage: Counted, other: SqliteStorage
) -> None:
    kept = RecentEntries(storage)
    write(other, 1)
    assert moments(kept, b"a") == [1, 1]
    assert other.swap(b"another record", None, b"\x01")
    for _ in range(3):
        assert moments(kept, b"a") == [1, 1]
    assert storage.reads == [[RECORD, b"a"], [RECORD]]


def test_what_is_read_in_parts_is_of_one_moment(
    storage: Counted, other: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "CURRENT_SECONDS", 3600.0)  # the storage is asked once, and not heard when it changes
    kept = RecentEntries(storage)
    write(other, 1)
    assert moments(kept, b"a") == [1, 1]
    write(other, 2)
    assert moments(kept, b"a") == [1, 1]
    assert moments(kept, b"b") == [2, 2]
    assert moments(kept, b"a", b"b") == [2, 2, 2]
    write(other, 3)
    assert moments(kept, b"c", b"b", b"a") == [3, 3, 3, 3]


def test_what_is_kept_has_a_bound_with_unknown_entities_too(storage: Counted, other: SqliteStorage) -> None:
    write(other, 1)
    kept = RecentEntries(storage, max_bytes=10 * recent.ENTRY_BYTES)
    for number in range(1_000):
        assert moments(kept, b"x%d" % number, b"a") == [1, None, 1]
        assert sum(len(one.entries) for one in kept._by_record.values()) <= 10
