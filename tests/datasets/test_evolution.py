"""Loads that go on from the version before: incremental merging, changed columns, another writer, a full disk."""

from __future__ import annotations

import os
import resource
import signal
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from relevo.contract.model import Source
from relevo.datasets import incremental
from relevo.datasets.child import load
from relevo.datasets.loading import TIME, read_source
from relevo.datasets.model import DatasetVersion, LoadedDataset
from relevo.datasets.schemas import compare
from relevo.datasets.tables import scan_version
from relevo.errors import Conflict, Invalid, JobFailed
from relevo.platform.encoding import parse, to_json
from relevo.platform.jobs import Job

START = datetime(2026, 1, 1, tzinfo=UTC)


def hours(number: float) -> datetime:
    return START + timedelta(hours=number)


class World:
    """A source of Parquet files, its table, and what is recorded as its last version."""

    def __init__(self, folder: Path, **declared: Any) -> None:
        self.folder = folder
        self.tables = folder / "tables"
        self.declared = {"event_time": "at", "known_time": "known_at", "load": "incremental", **declared}
        self.last: DatasetVersion | None = None

    @property
    def source(self) -> Source:
        return Source(name="rows", key=("id",), files=f"{self.folder}/*.parquet", **self.declared)

    def holds(self, frame: pl.DataFrame) -> None:
        frame.write_parquet(self.folder / "rows.parquet")

    def load(self, until: datetime | None = None, snapshot: str = "s", reads: list[str] | None = None) -> LoadedDataset:
        loaded = parse(
            LoadedDataset,
            load(
                to_json(self.source), str(self.folder), None if until is None else until.isoformat(), str(self.tables),
                snapshot, last=None if self.last is None else to_json(self.last), reads=reads,
            ),
        )  # fmt: skip
        fields = {name: getattr(loaded, name) for name in LoadedDataset.__slots__ if name not in ("name", "is_new")}
        self.last = DatasetVersion("m", loaded.name, snapshot=snapshot, workflow_id="w", created_at=START, **fields)
        return loaded

    def rows(self) -> pl.DataFrame:
        assert self.last is not None
        return scan_version(self.tables, "rows", self.last.version).collect()


def frame(*rows: tuple[str, float, float | None, int | None]) -> pl.DataFrame:
    """Rows of id, hour of the event, hour since when it is known, value."""
    return pl.DataFrame(
        {
            "id": [row[0] for row in rows],
            "at": pl.Series([hours(row[1]) for row in rows], dtype=TIME),
            "known_at": pl.Series([None if row[2] is None else hours(row[2]) for row in rows], dtype=TIME),
            "x": pl.Series([row[3] for row in rows], dtype=pl.Int64),
        }
    )  # fmt: skip


def test_an_incremental_load_reads_from_the_last_known_time_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def watched(source: Source, package: Path, **limits: Any) -> pl.DataFrame:
        asked.append((limits.get("since"), limits.get("until")))
        return read_source(source, package, **limits)

    monkeypatch.setattr(incremental, "read_source", watched)
    world = World(tmp_path, lateness=timedelta(hours=2))
    world.holds(frame(("a", 0, 1, 1), ("b", 1, 5, 2)))
    assert world.load(hours(5)).mode == "full"
    world.holds(frame(("a", 0, 1, 1), ("b", 1, 5, 2), ("late", 0, 3, 3), ("c", 6, 6, 4)))
    loaded = world.load(hours(7))
    assert (loaded.mode, loaded.rows, loaded.known_through) == ("incremental", 4, hours(6))
    assert asked == [(None, hours(5)), (hours(3) - timedelta(microseconds=1), hours(7))]


def test_a_changed_row_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.holds(frame(("a", 0, 1, 1), ("b", 1, 2, 2)))
    world.load(hours(2))
    world.holds(frame(("a", 0, 3, 10), ("b", 1, 2, 2)))
    assert world.load(hours(4)).mode == "incremental"
    assert world.rows().select("id", "x").rows() == [("a", 10), ("b", 2)]


def test_rows_later_than_the_lateness_are_what_an_incremental_load_misses(tmp_path: Path) -> None:
    world = World(tmp_path, lateness=timedelta(hours=1))
    world.holds(frame(("a", 0, 10, 1)))
    world.load(hours(10))
    world.holds(frame(("a", 0, 10, 1), ("too late", 0, 8.5, 2)))
    assert world.load(hours(11)).rows == 1
    world.load(hours(11), snapshot="another code")  # files outside the project do not depend on the code
    assert world.last is not None and world.last.mode == "incremental"
    world.declared["load"] = "full"
    assert world.load(hours(11)).rows == 2


@pytest.mark.parametrize("what", ["earlier", "declaration", "column"])
def test_a_load_that_cannot_go_on_reads_everything(what: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    rows = frame(("a", 0, 1, 1), ("b", 1, 2, 2))
    world.holds(rows)
    world.load(hours(2))
    until = hours(3)
    if what == "earlier":
        until = hours(1)
    elif what == "declaration":
        world.declared["known_time"] = None
    else:
        world.holds(rows.with_columns(y=pl.lit(7)))
    loaded = world.load(until)
    assert loaded.mode == "full"
    if what == "column":
        assert world.rows()["y"].to_list() == [7, 7]
        assert loaded.changes == ("added y (Int32)",)


def test_the_same_again_makes_no_new_version(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.holds(frame(("a", 0, 1, 1)))
    first = world.load(hours(2))
    again = world.load(hours(3))
    assert (again.version, again.digest, again.is_new, again.mode) == (
        first.version,
        first.digest,
        False,
        "incremental",
    )


ROWS = st.tuples(
    st.sampled_from("abcd"),
    st.integers(0, 6),  # hour of the event
    st.one_of(st.none(), st.integers(0, 12)),  # hour since when it is known
    st.one_of(st.none(), st.integers(0, 3)),
)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(ROWS, st.integers(0, 3)), max_size=14),
    untils=st.lists(st.integers(0, 14), min_size=1, max_size=5),
    lateness=st.integers(0, 4),
    quarantine=st.booleans(),
)
def test_incremental_loads_give_the_table_of_a_full_load(
    rows: list[tuple[Any, int]],
    untils: list[int],
    lateness: int,
    quarantine: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Rows arrive up to ``lateness`` after they say that they are known, and later ones replace earlier ones."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "own_checks.py").write_text("def small(rows):\n    return rows['x'] > 2\n")
    checks = {"checks": "own_checks:small", "on_failure": "quarantine"} if quarantine else {}
    world = World(folder, lateness=timedelta(hours=lateness), **checks)
    try:
        for until in sorted(untils):
            there: dict[Any, Any] = {}
            for row, delay in rows:
                known = row[2]
                arrival = 0 if known is None else max(known, row[1]) + min(delay, lateness)
                if arrival <= until:
                    there[row[:2]] = row
            world.holds(frame(*there.values()))
            whole = read_source(world.source, folder, until=hours(until))
            bad = whole["x"].fill_null(0) > 2 if quarantine else pl.repeat(False, whole.height, eager=True)
            if whole.filter(~bad).is_empty():
                continue
            loaded = world.load(hours(until))
            assert world.rows().equals(whole.filter(~bad))
            assert loaded.quarantined == bad.sum()
            if loaded.quarantine_version is not None:
                apart = scan_version(world.tables, "rows__quarantine", loaded.quarantine_version).collect()
                assert apart.drop("__failed_rules").equals(whole.filter(bad))
    finally:
        sys.modules.pop("own_checks", None)
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


BEFORE = {"id": "String", "x": "Int32", "y": "Float64", "d": "Decimal(precision=10, scale=2)"}


@pytest.mark.parametrize(
    ("after", "changes"),
    [
        ({"z": "Boolean"}, ("added z (Boolean)",)),
        ({"x": "Int64"}, ("widened x from Int32 to Int64",)),
        ({"x": "Float64"}, ("widened x from Int32 to Float64",)),
        ({"d": "Decimal(precision=12, scale=3)"}, ("widened d from Decimal(precision=10, scale=2) to Decimal(prec",)),
    ],
)
def test_added_columns_and_widened_numbers_evolve(after: dict[str, str], changes: tuple[str, ...]) -> None:
    found = compare(Source("rows", key=("id",)), 3, BEFORE, {**BEFORE, **after}, reads=None)
    assert len(found) == 1
    assert found[0].startswith(changes[0])


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ({"x": None}, "source rows: its columns no longer fit version 3: removed x (was Int32)"),
        ({"x": "Int16"}, "changed x from Int32 to Int16"),
        ({"y": "Float32"}, "changed y from Float64 to Float32"),
        ({"y": "String"}, "changed y from Float64 to String"),
        (
            {"d": "Decimal(precision=10, scale=3)"},
            "changed d from Decimal(precision=10, scale=2) to Decimal(precision=10",
        ),
    ],
)
def test_other_changes_stop_unless_nothing_reads_the_column(after: dict[str, Any], message: str) -> None:
    now = {name: kind for name, kind in {**BEFORE, **after}.items() if kind is not None}
    source = Source("rows", key=("id",))
    with pytest.raises(Invalid) as refused:
        compare(source, 3, BEFORE, now, reads=None)
    assert message in refused.value.message
    assert "declare the source under another name" in str(refused.value.hint)
    (change,) = compare(source, 3, BEFORE, now, reads=["id"])
    assert change in refused.value.message
    assert compare(source, 3, BEFORE, now, reads=None, without_value=list(after)) == (change,)


def test_a_column_that_is_read_stops_the_load_and_the_last_version_stays(tmp_path: Path) -> None:
    world = World(tmp_path, load="full")
    world.holds(frame(("a", 0, 1, 1)))
    world.load()
    before = world.rows()
    world.holds(frame(("a", 0, 1, 1)).drop("x"))
    with pytest.raises(Invalid, match=r"no longer fit version 0: removed x \(was Int64\)"):
        world.load(reads=["id", "x"])
    assert world.rows().equals(before)
    loaded = world.load(reads=["id"])
    assert (loaded.version, loaded.changes) == (1, ("removed x (was Int64)",))


def test_a_column_without_a_value_has_no_type_of_its_own(tmp_path: Path) -> None:
    world = World(tmp_path, load="full")
    world.holds(frame(("a", 0, 1, None)).with_columns(x=pl.lit(None)))
    assert world.load().columns["x"] == "String"
    world.holds(frame(("a", 0, 1, 4)))
    assert world.load().changes == ("changed x from String to Int64",)
    world.holds(frame(("a", 0, 1, None), ("b", 1, 1, None)).with_columns(x=pl.lit(None)))
    loaded = world.load()
    assert (loaded.columns["x"], loaded.changes) == ("Int64", ())


def test_a_csv_file_with_whole_numbers_today_keeps_its_decimals(tmp_path: Path) -> None:
    source = Source("rows", key=("id",), files=f"{tmp_path}/rows.csv")
    (tmp_path / "rows.csv").write_text("id,x\n1,0.5\n")
    first = load(to_json(source), str(tmp_path), None, str(tmp_path / "t"))
    (tmp_path / "rows.csv").write_text("id,x\n1,2\n2,3\n")
    last = DatasetVersion("m", "rows", 0, first["digest"], 1, first["columns"], None, "s", "w", START)
    again = load(to_json(source), str(tmp_path), None, str(tmp_path / "t"), last=to_json(last))
    assert (again["columns"]["x"], tuple(again["changes"])) == ("Float64", ())


def _another_writes(path: Path, how: str) -> None:
    if how == "append":
        write_deltalake(path, pl.read_delta(str(path)).with_columns(id=pl.lit("foreign")), mode="append")
    elif how == "delete":
        DeltaTable(path).delete("id = 'a'")
    elif how == "restore":
        DeltaTable(path).restore(0)
    elif how == "replace":
        import shutil

        shutil.rmtree(path)
        write_deltalake(path, frame(("z", 0, 0, 0)))
    else:
        import shutil

        shutil.rmtree(path)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("append", r"version 2 \(WRITE\) was written by another writer. Version 1 is the last good one"),
        ("delete", r"version 2 \(DELETE\) was written by another writer"),
        ("restore", r"version 2 \(RESTORE\) was written by another writer"),
        ("replace", r"the table ends with version 0"),
        ("remove", r"the table is gone"),
    ],
)
def test_a_table_that_another_writer_has_changed_is_refused(how: str, message: str, tmp_path: Path) -> None:
    world = World(tmp_path, load="full")
    for value in (1, 2):
        world.holds(frame(("a", 0, 1, value)))
        world.load()
    before = world.rows()
    _another_writes(world.tables / "rows", how)
    with pytest.raises(Conflict, match=message):
        world.load()
    if how in ("append", "delete", "restore"):
        assert world.rows().equals(before)


def test_a_writer_that_comes_while_the_source_is_read_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import relevo.datasets.tables as tables

    world = World(tmp_path, load="full")
    world.holds(frame(("a", 0, 1, 1)))
    world.load()
    before = world.rows()
    world.holds(frame(("a", 0, 1, 2)))
    write = tables.write_deltalake

    def second(*arguments: Any, **options: Any) -> None:
        _another_writes(world.tables / "rows", "append")
        write(*arguments, **options)

    monkeypatch.setattr(tables, "write_deltalake", second)
    with pytest.raises(Conflict, match="was written by another writer at the same time; what it had stays"):
        world.load()
    assert world.rows().equals(before)


def test_a_load_that_died_before_it_was_recorded_is_found_again(tmp_path: Path) -> None:
    world = World(tmp_path, load="full")
    world.holds(frame(("a", 0, 1, 1)))
    world.load()
    recorded = world.last
    world.holds(frame(("a", 0, 1, 2)))
    died = world.load()
    world.last = recorded
    again = world.load()
    assert (again.version, again.digest, again.is_new) == (died.version, died.digest, True)
    world.last = recorded
    world.holds(frame(("a", 0, 1, 3)))
    assert world.load().version == 2
    assert world.rows()["x"].to_list() == [3]


def _filled(tables: str, source: dict[str, Any], last: dict[str, Any], limit: int) -> dict[str, Any]:
    """In a process that cannot write a file beyond ``limit`` bytes, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    return load(source, tables, None, tables, last=last)


@pytest.mark.parametrize("limit", [700, 4096])
def test_a_full_disk_leaves_the_last_version(limit: int, tmp_path: Path) -> None:
    world = World(tmp_path, load="full")
    world.holds(frame(("a", 0, 1, 1)))
    world.load()
    before = world.rows()
    many = frame(*((f"row {number} {os.urandom(9).hex()}", number % 99, 1, number) for number in range(3000)))
    world.holds(many)
    child = tmp_path / "filling.py"
    child.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_evolution import _filled\n"
        "from relevo.platform.child import serve\n"
        "serve({'filled': _filled})\n"
    )
    log = tmp_path / "log"
    # Or Python would leave cut byte code of what this process is the first to import.
    no_byte_code = {"PYTHONDONTWRITEBYTECODE": "1"}
    job = Job("filling", python=Path(sys.executable), package=tmp_path, log=log, environment=no_byte_code)
    with job, pytest.raises(JobFailed, match=r"table .* could not be written: .*Its last version stays as it was"):
        job.call("filled", tables=str(world.tables), source=world.source, last=world.last, limit=limit)
    assert world.rows().equals(before)
    assert world.load().version == 1  # and goes on once there is room
    assert world.rows().height == 3000


def test_a_killed_writer_leaves_the_last_version(tmp_path: Path) -> None:
    world = World(tmp_path, load="full")
    world.holds(frame(("a", 0, 1, 1)))
    world.load()
    before = world.rows()
    orphan = world.tables / "rows" / "part-00000-torn.snappy.parquet"
    orphan.write_bytes(b"PAR1 half a file")  # what a writer leaves that was killed before its commit
    assert world.rows().equals(before)
    world.holds(frame(("a", 0, 1, 2)))
    assert world.load().version == 1
    assert world.rows()["x"].to_list() == [2]


def test_the_last_version_is_named_by_its_own_digest(tmp_path: Path) -> None:
    world = World(tmp_path, load="full")
    world.holds(frame(("a", 0, 1, 1)))
    world.load()
    assert world.last is not None
    world.last = replace(world.last, digest="0" * 64)
    with pytest.raises(Conflict, match="version 0 has other content than is recorded"):
        world.load()
