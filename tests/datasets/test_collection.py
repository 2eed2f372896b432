"""Old versions are collected when nothing refers to them, and only then."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
from deltalake import DeltaTable

from relevo.contract.model import Source
from relevo.datasets import collection as collections
from relevo.datasets.collection import LEFT_FOR, Retention
from relevo.datasets.model import LoadedDataset, quarantine_of
from relevo.datasets.service import Datasets
from relevo.datasets.tables import scan_version, write_version
from relevo.platform.state import State

START = datetime(2026, 1, 1, tzinfo=UTC)
SOURCES = [
    Source("rows", "m:rows", ("id",), keep=timedelta(days=10)),
    Source("plain", "m:plain", ("id",)),
]

LARGE_LOAD = """
import sys
from pathlib import Path

import polars as pl

from relevo.datasets.tables import write_version

write_version(Path(sys.argv[1]), pl.DataFrame({"id": pl.arange(0, 8_000_000, eager=True)}), {})
"""


class World:
    """Datasets of one model with their tables; each version of ``rows`` is a day older than the next."""

    def __init__(self, state: State, folder: Path) -> None:
        self.state, self.tables, self.datasets = state, folder / "tables", Datasets(state)
        self.referred: set[tuple[str, int]] = set()
        self.over: set[str] = set()
        self.retention = Retention(
            state,
            self.tables,
            references=lambda model: self.referred,
            is_over=lambda workflow: workflow in self.over,
        )

    def load(self, day: int, source: str = "rows", quarantined: int = 0) -> int:
        path = self.tables / "m" / source
        apart = None
        if quarantined:
            apart, _, _ = write_version(
                self.tables / "m" / quarantine_of(source), pl.DataFrame({"id": [day] * quarantined}), {}
            )
        version, digest, is_new = write_version(path, pl.DataFrame({"id": [day], "x": [day * 2]}), {})
        loaded = LoadedDataset(
            source, version, digest, 1, {"id": "Int64"}, None, is_new,
            quarantined=quarantined, quarantine_version=apart,
        )  # fmt: skip
        with self.state.transaction() as tx:
            at = START + timedelta(days=day)
            self.datasets.record(tx, "m", loaded, snapshot="s", workflow_id="w", created_at=at)
        return version

    def hold(self, holder: str) -> int:
        with self.state.transaction() as tx:
            return self.datasets.hold(tx, "m", ["rows"], holder=holder)["rows"].version

    def collect(self, day: float) -> list[int]:
        found = self.retention.collect("m", SOURCES, START + timedelta(days=day))
        return sorted(version.version for version in found)

    def readable(self, source: str = "rows") -> list[int]:
        """The versions whose rows are there."""
        found = []
        for version in range(DeltaTable(self.tables / "m" / source).version() + 1):
            try:
                scan_version(self.tables / "m", source, version).collect()
            except FileNotFoundError:
                continue
            found.append(version)
        return found


@pytest.fixture
def world(state: State, tmp_path: Path) -> World:
    return World(state, tmp_path)


def test_what_is_older_than_keep_goes_and_stays_in_the_records(world: World) -> None:
    for day in range(5):
        world.load(day)
        world.load(day, "plain")
    assert world.collect(10) == []
    assert world.collect(12.5) == [0, 1, 2]
    assert world.readable() == [3, 4]
    assert world.readable("plain") == [0, 1, 2, 3, 4]
    recorded = {version.version: version for version in world.datasets.versions("m", "rows")}
    at = START + timedelta(days=12.5)
    assert [(n, recorded[n].collected_at, recorded[n].removed_at) for n in range(4)] == [
        (0, at, at), (1, at, at), (2, at, at), (3, None, None),
    ]  # fmt: skip
    assert recorded[0].rows == 1


def test_the_last_version_stays_however_old_it_is(world: World) -> None:
    world.load(0)
    world.load(1)
    assert world.collect(1000) == [0]
    assert world.readable() == [1]
    assert scan_version(world.tables / "m", "rows", 1).collect().rows() == [(1, 2)]


def test_what_a_model_version_refers_to_stays_and_can_be_read(world: World) -> None:
    for day in range(5):
        world.load(day)
    world.referred = {("rows", 1), ("plain", 2)}
    assert world.collect(100) == [0, 2, 3]
    assert scan_version(world.tables / "m", "rows", 1).collect().rows() == [(1, 2)]
    assert world.readable() == [1, 4]


def test_what_a_run_found_and_later_versions_stay_until_it_ends(world: World) -> None:
    for day in range(2):
        world.load(day)
    assert world.hold("run") == 1
    for day in range(2, 4):
        world.load(day)
    assert world.collect(100) == [0]
    world.over = {"another run"}
    assert world.collect(100) == []
    with world.state.transaction() as tx:
        world.datasets.let_go(tx, "run")
    assert world.collect(100) == [1, 2]


def test_a_run_that_was_killed_holds_nothing_once_its_workflow_is_over(world: World) -> None:
    world.load(0)
    world.hold("killed")
    world.load(1)
    assert world.collect(100) == []
    world.over = {"killed"}
    assert world.collect(100) == [0]


def test_a_run_that_begins_before_there_is_a_version_holds_its_first(world: World) -> None:
    with world.state.transaction() as tx:
        assert world.datasets.hold(tx, "m", ["rows"], holder="run") == {}
    world.load(0)
    world.load(1)
    assert world.collect(100) == []


def test_quarantined_rows_go_with_the_last_version_that_has_them(world: World) -> None:
    for day in range(4):
        world.load(day, quarantined=1 + (day > 1))
    assert world.collect(11.5) == [0, 1]
    assert world.readable() == [2, 3]
    apart = {v.version: v.quarantine_version for v in world.datasets.versions("m", "rows")}
    assert world.readable(quarantine_of("rows")) == sorted({apart[2], apart[3]} - {None})


def test_a_collection_that_was_killed_is_finished_by_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(3):
        world.load(day)
    with monkeypatch.context() as patch:
        patch.setattr(Retention, "_remove_files", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            world.collect(100)
    assert world.readable() == [0, 1, 2]
    marked = world.datasets.versions("m", "rows")[-1]
    assert (marked.version, marked.removed_at) == (0, None)
    assert marked.collected_at is not None
    assert world.collect(101) == []
    assert world.readable() == [2]
    assert world.datasets.versions("m", "rows")[-1].removed_at == START + timedelta(days=101)


def test_a_load_under_way_keeps_its_files(world: World) -> None:
    for day in range(3):
        world.load(day)
    written = left_behind(world, "rows", day=99)
    assert world.collect(100) == [0, 1]
    assert written.exists()


def left_behind(world: World, table: str, day: float) -> Path:
    """A whole file that no version has, written that day: its load died before the commit."""
    path = world.tables / "m" / table / f"part-00000-{uuid4()}-c000.snappy.parquet"
    pl.DataFrame({"id": [-1], "x": [-2]}).write_parquet(path)
    return aged(path, day)


def aged(path: Path, day: float) -> Path:
    at = (START + timedelta(days=day)).timestamp()
    os.utime(path, (at, at))
    return path


def test_what_loads_left_that_died_before_their_commit_goes_when_it_is_old(world: World) -> None:
    for day in range(3):
        world.load(day, quarantined=1 + day)
        world.load(day, "plain")
    rows, plain, apart = (left_behind(world, table, day=10) for table in ("rows", "plain", quarantine_of("rows")))
    files = [aged(file, day=0) for file in world.tables.rglob("part-*") if file not in (rows, plain, apart)]
    assert world.collect(10 + LEFT_FOR.days) == [0, 1]
    assert all(file.exists() for file in (rows, plain, apart))
    world.collect(10.1 + LEFT_FOR.days)
    assert not any(file.exists() for file in (rows, plain, apart))
    assert world.readable() == [2]
    assert world.readable("plain") == [0, 1, 2]
    assert sum(file.exists() for file in files) == len(files) - 2 * 2  # rows and their quarantine, of two versions


def test_nothing_that_was_left_goes_while_a_run_may_load_the_table(world: World) -> None:
    world.load(0, quarantined=1)
    world.load(0, "plain")
    world.hold("run")
    rows, plain, apart = (left_behind(world, table, day=1) for table in ("rows", "plain", quarantine_of("rows")))
    world.collect(100)
    assert (rows.exists(), plain.exists(), apart.exists()) == (True, False, True)
    world.over = {"run"}
    world.collect(100)
    assert not any(file.exists() for file in (rows, apart))


def test_what_kill_9_leaves_of_a_load_is_collected(world: World) -> None:
    world.load(0)
    folder = world.tables / "m" / "rows"
    before, left = set(folder.glob("part-*")), set[Path]()
    load = subprocess.Popen([sys.executable, "-c", LARGE_LOAD, str(folder)])
    deadline = time.monotonic() + 60
    while not left and time.monotonic() < deadline:
        left = set(folder.glob("part-*")) - before
    load.kill()
    load.wait()
    left = set(folder.glob("part-*")) - before
    assert left
    assert DeltaTable(folder).version() == 0
    for file in (*before, *left):
        aged(file, day=1)
    world.collect(100)
    assert set(folder.glob("part-*")) == before
    assert world.readable() == [0]


def test_a_table_whose_log_has_lost_versions_keeps_every_file(world: World) -> None:
    for day in range(3):
        world.load(day)
    files = [aged(file, day=0) for file in (world.tables / "m" / "rows").glob("part-*")]
    (world.tables / "m" / "rows" / "_delta_log" / f"{2:020}.json").unlink()  # an older backup was put back
    world.retention.collect("m", [], START + timedelta(days=100))
    assert all(file.exists() for file in files)


def test_files_that_cannot_be_deleted_are_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(3):
        world.load(day)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError("read-only")))
        world.collect(100)
    assert world.readable() == [0, 1, 2]
    world.collect(101)
    assert world.readable() == [2]


def test_collecting_leaves_the_table_to_its_writer(world: World) -> None:
    for day in range(3):
        world.load(day)
    world.collect(100)
    last = world.datasets.versions("m", "rows")[0]
    path = world.tables / "m" / "rows"
    assert DeltaTable(path).version() == 2
    version, _, is_new = write_version(path, pl.DataFrame({"id": [9]}), {}, (last.version, last.digest))
    assert (version, is_new) == (3, True)


def test_a_run_that_starts_while_collection_runs_keeps_what_it_was_given(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run holds while the collection has judged, and not committed: one waits for the other, and both are right."""
    for day in range(3):
        world.load(day)
    given: list[int] = []
    run = threading.Thread(target=lambda: given.append(world.hold("run")))
    judge: Callable[..., Any] = collections.due

    def judged(*arguments: Any) -> Any:
        found = judge(*arguments)
        run.start()  # it cannot come in between: the collection holds the lock until its marks are committed
        run.join(0.3)
        assert not given
        return found

    monkeypatch.setattr(collections, "due", judged)
    assert world.collect(100) == [0, 1]
    run.join(30)
    assert given == [2]
    monkeypatch.setattr(collections, "due", judge)
    world.load(3)
    world.load(4)
    assert world.collect(200) == []
    assert set(world.readable()) == {2, 3, 4}


def test_runs_racing_collections_never_lose_their_version(world: World) -> None:
    """Loads, runs and collections at once: what a run was given can be read for as long as it holds it."""
    world.load(0)
    lost: list[object] = []
    stop = threading.Event()

    def collecting() -> None:
        while not stop.is_set():
            world.collect(1000)

    def running(name: str) -> None:
        for number in range(6):
            holder = f"{name}-{number}"
            try:
                version = world.hold(holder)
                for _ in range(3):
                    scan_version(world.tables / "m", "rows", version).collect()
            except Exception as error:
                lost.append(error)
            with world.state.transaction() as tx:
                world.datasets.let_go(tx, holder)

    collector = threading.Thread(target=collecting)
    runs = [threading.Thread(target=running, args=(name,)) for name in "ab"]
    for thread in (collector, *runs):
        thread.start()
    for day in range(1, 12):
        world.load(day)
    for thread in runs:
        thread.join(60)
    stop.set()
    collector.join(60)
    assert lost == []
    world.collect(1000)
    assert world.readable() == [11]


def test_a_version_is_not_collected_twice(world: World) -> None:
    for day in range(3):
        world.load(day)
    versions = world.datasets.versions("m", "rows")
    marked = [replace(version, collected_at=START) for version in versions]
    now = START + timedelta(days=100)
    keep = {"rows": timedelta(days=1)}
    assert [v.version for v in collections.due(versions, keep, [], (), now)] == [1, 0]
    assert collections.due(marked, keep, [], (), now) == []
    assert collections.due(versions, {}, [], (), now) == []


def test_a_version_can_be_read_after_its_log_entry_has_grown_old(tmp_path: Path) -> None:
    """By itself, delta-rs removes log entries older than 30 days at a checkpoint, every hundredth version."""
    path = tmp_path / "rows"
    for number in range(102):
        write_version(path, pl.DataFrame({"id": [number]}), {})
        if number == 98:
            for entry in (path / "_delta_log").iterdir():
                os.utime(entry, (time.time() - 40 * 86_400,) * 2)
    assert list((path / "_delta_log").glob("*.checkpoint.parquet"))
    assert scan_version(tmp_path, "rows", 3).collect().rows() == [(3,)]
