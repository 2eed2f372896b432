"""What is left when a writer is killed, the disk is full, Redis loses what it had, or readers come in between."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import filling
import pytest
import redis
from filling import ENTITIES, PART_ROWS, VIEW, at, materialiser

from redis_server import OwnRedis
from relevo.errors import Invalid, Unavailable
from relevo.features.model import view_id
from relevo.features.online import OnlineStore
from relevo.features.storage import open_storage

ID = view_id("m", VIEW)


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "online.db") if request.param == "sqlite" else request.getfixturevalue("redis_place")


@pytest.fixture
def store(place: str) -> Iterator[OnlineStore]:
    with closing(OnlineStore(place)) as opened:
        yield opened


def killed(place: str, origin: str, hour: int, method: str, call: int) -> None:
    """A process that materialises until the hour, and is killed on the way."""
    command = [sys.executable, filling.__file__, place, origin, str(hour), method, str(call)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def served(store: OnlineStore, hour: int) -> list[dict[str, Any]]:
    entities = [{"id": entity} for entity in range(ENTITIES)]
    return store.lookup("m", [VIEW], entities, [at(hour)] * ENTITIES)


def test_a_first_fill_that_was_killed_serves_nothing_and_goes_on_where_it_was(place: str, store: OnlineStore) -> None:
    killed(place, "code", 0, "put", 3)
    assert served(store, 0) == [{"hour": None, "n": None}] * ENTITIES
    assert store.progress(ID) is None
    half = store.record("m").filling[0]
    assert (half.parts, half.done) == (ENTITIES // PART_ROWS, 2)
    written: list[int] = []
    original = store.storage.put
    store.storage.put = lambda entries: (written.append(len(entries)), original(entries))[1]  # type: ignore[method-assign]
    materialiser(store).materialise(at(1))
    assert written == [PART_ROWS] * 3  # the two parts that were there are not written again
    assert store.record("m").filled[ID].generation == half.generation
    assert served(store, 1) == [{"hour": 1, "n": 2}] * ENTITIES


def test_a_fill_that_was_killed_before_the_swap_leaves_what_was_served(place: str, store: OnlineStore) -> None:
    materialiser(store, "old").materialise(at(0))
    old = store.record("m").filled[ID].generation
    killed(place, "new", 1, "swap", ENTITIES * 2 // PART_ROWS + 2)
    assert served(store, 0) == [{"hour": 0, "n": 1}] * ENTITIES
    assert store.progress(ID).origin == "old"  # type: ignore[union-attr]
    materialiser(store, "new").materialise(at(1))
    assert served(store, 1) == [{"hour": 1, "n": 2}] * ENTITIES
    assert store.entries([old + b"\x91\x00"]) == [None]  # and nothing of the old code is kept
    assert store.record("m").retired == []


def test_a_fill_for_rows_that_have_changed_since_begins_anew(place: str, store: OnlineStore, monkeypatch) -> None:
    killed(place, "code", 0, "put", 3)
    half = store.record("m").filling[0]
    original = filling.events
    monkeypatch.setattr(filling, "events", lambda until: original(until).filter(~(filling.pl.col("id") == 0)))
    materialiser(store).materialise(at(0))
    assert store.record("m").filled[ID].generation != half.generation
    assert served(store, 0) == [{"hour": None, "n": 0}] + [{"hour": 0, "n": 1}] * (ENTITIES - 1)


def test_a_killed_increment_leaves_what_was_served(place: str, store: OnlineStore) -> None:
    materialiser(store).materialise(at(0))
    killed(place, "code", 1, "swap", 1)
    assert served(store, 1) == [{"hour": 0, "n": 1}] * ENTITIES
    assert store.materialised_through("m") == at(0)
    assert materialiser(store).materialise(at(1)).rows == ENTITIES
    assert served(store, 1) == [{"hour": 1, "n": 2}] * ENTITIES


def test_a_process_that_is_killed_inside_a_transaction_has_written_nothing(tmp_path: Path) -> None:
    place = tmp_path / "online.db"
    program = f"""
import os, signal
from relevo.features.storage import open_storage
def entries():
    for number in range(10_000):
        yield b"name%d" % number, b"value" * 100
    os.kill(os.getpid(), signal.SIGKILL)
open_storage({str(place)!r}).swap(b"record", None, b"after", entries())
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    with closing(open_storage(place)) as storage:
        assert storage.read([b"record", b"name0"]) == [None, None]
        assert storage.swap(b"record", None, b"after")


def test_a_swap_from_a_state_that_has_passed_changes_nothing(store: OnlineStore) -> None:
    storage = store.storage
    assert storage.swap(b"record", None, b"one", [(b"entry", b"1")])
    assert not storage.swap(b"record", None, b"two", [(b"entry", b"2")])
    assert not storage.swap(b"record", b"zero", b"two", [(b"entry", b"2")])
    assert storage.read([b"entry", b"record", b"nothing", b"entry"]) == [b"1", b"one", None, b"1"]
    storage.put([(b"entry", b"3"), (b"entr", b"4")])
    storage.drop([b"entry"])
    assert storage.read([b"entry", b"entr"]) == [None, b"4"]


def test_a_full_disk_leaves_what_was_served(tmp_path: Path) -> None:
    with closing(OnlineStore(tmp_path / "online.db")) as store:
        materialiser(store, "old").materialise(at(0))
        connection: sqlite3.Connection = store.storage._connection  # type: ignore[attr-defined]
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 3}")
        with pytest.raises(Unavailable, match="database or disk is full"):
            materialiser(store, "new").materialise(at(9))
        assert served(store, 0) == [{"hour": 0, "n": 1}] * ENTITIES
        connection.execute("PRAGMA max_page_count = 1000000")
        materialiser(store, "new").materialise(at(9))
        assert served(store, 9) == [{"hour": 9, "n": 10}] * ENTITIES


def test_a_full_redis_leaves_what_was_served() -> None:
    with OwnRedis() as own, closing(OnlineStore(own.url)) as store, redis.Redis.from_url(own.url) as client:
        materialiser(store, "old").materialise(at(0))
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 20_000)
        with pytest.raises(Unavailable, match=r"OOM|maxmemory"):
            materialiser(store, "new").materialise(at(9))
        assert served(store, 0) == [{"hour": 0, "n": 1}] * ENTITIES
        client.config_set("maxmemory", 0)
        materialiser(store, "new").materialise(at(9))
        assert served(store, 9) == [{"hour": 9, "n": 10}] * ENTITIES


def test_a_redis_that_was_killed_has_what_was_acknowledged_and_a_lost_one_is_filled_anew() -> None:
    with OwnRedis() as own, closing(OnlineStore(own.url)) as store:
        running = materialiser(store)
        running.materialise(at(1))
        own.kill()
        with pytest.raises(Unavailable, match="cannot be used"):
            running.materialise(at(2))
        own.start()
        assert served(store, 1) == [{"hour": 1, "n": 2}] * ENTITIES
        with redis.Redis.from_url(own.url) as client:
            client.flushall()
        assert served(store, 1) == [{"hour": None, "n": None}] * ENTITIES
        assert running.materialise(at(2)).rows == 3 * ENTITIES
        assert served(store, 2) == [{"hour": 2, "n": 3}] * ENTITIES


def test_readers_see_features_and_progress_of_one_moment(place: str, store: OnlineStore) -> None:
    materialiser(store, "0").materialise(at(0))
    wrong: list[object] = []
    seen: set[object] = set()
    stop = threading.Event()
    entities = [{"id": 0}, {"id": ENTITIES - 1}]

    def read() -> None:
        with closing(OnlineStore(place)) as own:
            while not stop.is_set():
                found = own.find("m", [VIEW], entities, [at(50)] * 2)
                hours = {row["hour"] for row in found.rows}
                seen.update(hours)
                if {at(hour) for hour in hours} != {found.materialised_through}:  # type: ignore[arg-type]
                    wrong.append((found.rows, found.materialised_through))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for hour in range(1, 9):  # every second time anew, by other code
        materialiser(store, str(hour // 2)).materialise(at(hour))
    stop.set()
    for reader in readers:
        reader.join(timeout=20)
    assert wrong == []
    assert len(seen) > 1


def test_an_old_file_is_filled_anew(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "online.db")) as old:
        old.execute("CREATE TABLE entries (name BLOB PRIMARY KEY, value BLOB NOT NULL)")
        old.execute("CREATE TABLE progress (view TEXT PRIMARY KEY, through_us INTEGER)")
        old.execute("INSERT INTO entries VALUES (x'00', x'00')")
        old.commit()
    with closing(OnlineStore(tmp_path / "online.db")) as store:
        materialiser(store).materialise(at(0))
        assert served(store, 0) == [{"hour": 0, "n": 1}] * ENTITIES


def test_a_place_that_is_none() -> None:
    with pytest.raises(Invalid, match="got memcached://"):
        OnlineStore("memcached://127.0.0.1")
    with pytest.raises(Unavailable, match=r"Redis 127\.0\.0\.1:1 cannot be used"):
        OnlineStore("redis://:hunter2@127.0.0.1:1").record("m")
