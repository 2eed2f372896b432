"""Runs over real files and databases: every row once and in order, resumable, refused when something has changed."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
from bulk import Bulk, eventually, flights, original
from deltalake import DeltaTable, write_deltalake
from gateway_home import SIGNATURE, Home

from relevo.errors import Conflict, Invalid, NotFound, Unavailable
from relevo.scoring.model import Format, OnError


def expected(rows: int) -> list[float]:
    return [1.0 + 2.0 * i for i in range(rows)]


def check(bulk: Bulk, rows: int) -> None:
    """Every row of ``flights(rows)`` is there once, in order, with its answer."""
    found = bulk.rows()
    assert found["prediction"].to_list() == expected(rows)
    assert found["input_row"].to_list() == list(range(rows))
    assert found["flight"].to_list() == [f"f{i}" for i in range(rows)]
    assert set(found["version"]) == {1}


def test_a_parquet_file_is_scored_row_by_row_in_order(bulk: Bulk) -> None:
    path = bulk.work / "in.parquet"
    flights(1234).write_parquet(path, row_group_size=77)
    outcome = bulk.score(path)
    assert (outcome.rows, outcome.failed, outcome.parts, outcome.version) == (1234, 0, 13, 1)
    check(bulk, 1234)
    assert [pl.read_parquet(part).height for part in bulk.parts()] == [100] * 12 + [34]
    assert bulk.watcher.seen[-1] == (1234, 0, 1234)


@pytest.mark.parametrize("given", ["folder", "glob"])
def test_files_are_scored_in_the_order_of_their_names_and_chunks_span_them(bulk: Bulk, given: str) -> None:
    folder = bulk.work / "in"
    folder.mkdir()
    frame = flights(500)
    for number, (first, rows) in enumerate([(0, 30), (30, 250), (280, 0), (280, 220)]):
        part = frame.slice(first, rows)
        if number == 1:  # narrower numbers widen
            part = part.with_columns(pl.col("distance").cast(pl.Int32))
        part.write_parquet(folder / f"{number}.parquet")
    outcome = bulk.score(folder if given == "folder" else f"{folder}/*.parquet")
    assert (outcome.rows, outcome.parts) == (500, 5)
    check(bulk, 500)


def test_a_delta_table_is_scored_at_the_version_that_is_named(bulk: Bulk) -> None:
    table = bulk.work / "table"
    frame = flights(300)
    write_deltalake(table, frame.head(120))
    write_deltalake(table, frame.tail(180), mode="append")
    write_deltalake(table, frame.head(7), mode="append")
    assert bulk.score(table, input_version=1).rows == 300
    found = bulk.rows()
    assert sorted(found["flight"]) == sorted(frame["flight"])
    assert found["input_row"].to_list() == list(range(300))
    assert (found["prediction"] == 1 + 2 * found["distance"]).all()


def test_a_query_on_sqlite_is_asked_once_and_scored(bulk: Bulk, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bulk.work / "in.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE flights (flight TEXT, distance REAL, carrier TEXT)")
        database.executemany("INSERT INTO flights VALUES (?, ?, ?)", flights(250).rows())
    database.close()
    monkeypatch.setenv("RELEVO_CONNECTION_SHOP", f"sqlite:///{path}")
    assert bulk.score("query:SELECT * FROM flights ORDER BY rowid", connection="shop").rows == 250
    check(bulk, 250)
    assert sorted(each.name for each in (bulk.work / "out.run").iterdir()) == ["lock", "run.json"]


def test_a_query_on_postgresql_is_read_from_a_cursor_and_scored(
    bulk: Bulk, postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = (
        "SELECT 'f' || i AS flight, i::float8 AS distance, CASE WHEN i < 60000 THEN NULL ELSE 'UA' END AS carrier "
        "FROM generate_series(0, 119999) i ORDER BY i"
    )
    monkeypatch.setenv("RELEVO_CONNECTION_SHOP", postgresql)
    assert bulk.score(f"query:{query}", connection="shop", chunk_rows=50_000).rows == 120_000
    check(bulk, 120_000)
    psycopg.connect(postgresql).close()


def test_a_query_without_its_connection_says_what_to_set(bulk: Bulk) -> None:
    with pytest.raises(Invalid, match="needs the connection"):
        bulk.score("query:SELECT 1")
    with pytest.raises(Unavailable, match="RELEVO_CONNECTION_SHOP"):
        bulk.score("query:SELECT 1", connection="shop")


def test_a_delta_table_is_written_as_one_commit_with_all_rows(bulk: Bulk) -> None:
    flights(450, nothing=None).write_parquet(bulk.work / "in.parquet")
    for _ in range(2):  # the second finds it done
        outcome = bulk.score(bulk.work / "in.parquet", format=Format.DELTA)
        assert outcome.rows == 450
    table = DeltaTable(bulk.output)
    assert table.version() == 0
    found = pl.read_delta(str(bulk.output)).sort("input_row")
    assert found["prediction"].to_list() == expected(450)
    with pytest.raises(Conflict, match="a Delta table already"):
        bulk.score(bulk.work / "in.parquet", format=Format.DELTA, output=_copy(bulk.output))


def _copy(table: Path) -> Path:
    return table.rename(table.with_name("other"))


def test_an_empty_input_gives_an_empty_part(bulk: Bulk) -> None:
    flights(0).with_columns(pl.col("distance").cast(pl.Float64), pl.col("flight").cast(pl.String)).write_parquet(
        bulk.work / "in.parquet"
    )
    assert bulk.score(bulk.work / "in.parquet").rows == 0
    assert bulk.rows().schema["prediction"] == pl.Float64


def test_only_the_columns_that_are_named_are_kept(bulk: Bulk) -> None:
    flights(10, prediction=1.0).write_parquet(bulk.work / "in.parquet")
    with pytest.raises(Invalid, match="has a column 'prediction' of its own"):
        bulk.score(bulk.work / "in.parquet")
    with pytest.raises(Invalid) as near:
        bulk.score(bulk.work / "in.parquet", keep=("fligth",))
    assert near.value.hint == "Did you mean 'flight'?"
    bulk.score(bulk.work / "in.parquet", keep=("flight",))
    assert bulk.rows().columns == ["flight", "prediction", "version", "input_row"]


def test_a_column_that_is_missing_or_of_another_type_is_named(bulk: Bulk) -> None:
    flights(10).drop("distance").write_parquet(bulk.work / "in.parquet")
    with pytest.raises(Invalid, match="Missing column 'distance'") as missing:
        bulk.score(bulk.work / "in.parquet")
    assert missing.value.field == "distance"
    flights(10).with_columns(pl.col("distance").cast(pl.String)).write_parquet(bulk.work / "text.parquet")
    with pytest.raises(Exception, match="Column 'distance': expected a number in each row, got a column of String"):
        bulk.score(bulk.work / "text.parquet", output=bulk.work / "other")


def test_a_bad_row_ends_the_run_with_its_number_and_column_or_is_null(bulk: Bulk) -> None:
    distances = [None if i in (203, 390) else float(i) for i in range(500)]
    flights(500, distance=distances).write_parquet(bulk.work / "in.parquet")
    with pytest.raises(Invalid, match="Row 203, column 'distance': expected a number, got null") as refused:
        bulk.score(bulk.work / "in.parquet", workers=1)
    assert refused.value.field == "distance"
    other = bulk.work / "other"
    outcome = bulk.score(bulk.work / "in.parquet", output=other, on_error=OnError.NULL)
    assert (outcome.rows, outcome.failed) == (500, 2)
    assert str(outcome.first_error).startswith("Row 203")
    found = pl.read_parquet(other / "*.parquet")
    bad = found.filter(pl.col("prediction").is_null())
    assert bad["input_row"].to_list() == [203, 390]
    assert bad["error"].to_list() == ["expected a number, got null"] * 2
    assert found["error"].null_count() == 498


def near() -> Any:
    """A model that cannot answer far distances."""

    class Near:
        def predict(self, frame: Any) -> Any:
            if (frame.distance > 1000).any():
                raise ValueError("too far")
            return frame.distance * 2

    return Near()


def test_only_the_rows_that_the_model_refuses_have_no_prediction(bulk: Bulk, home: Home) -> None:
    bulk.control.versions = {2: home.keep(2, "isolated", SIGNATURE, original(near()))}
    distances = [2000.0 if i in (5, 6, 299) else float(i) for i in range(300)]
    flights(300, distance=distances).write_parquet(bulk.work / "in.parquet")
    outcome = bulk.score(bulk.work / "in.parquet", on_error=OnError.NULL)
    found = bulk.rows()
    bad = found.filter(pl.col("prediction").is_null())
    assert outcome.failed == 3
    assert bad["input_row"].to_list() == [5, 6, 299]
    assert set(bad["error"]) == {"ValueError: too far"}
    good = found.filter(pl.col("prediction").is_not_null())
    assert (good["prediction"] == 2 * good["distance"]).all()


def slow(started: str, go: str) -> Any:
    """A model that says that it was asked beyond distance 250, and waits there until it may go on."""

    class Slow:
        def predict(self, frame: Any) -> Any:
            import os
            import time

            if frame.distance.max() > 250:
                with open(started, "a") as file:  # noqa: PTH123
                    file.write(f"{os.getpid()}\n")
                while not os.path.exists(go):  # noqa: PTH110
                    time.sleep(0.01)
            return frame.distance * 2

    return Slow()


def _slow(bulk: Bulk, home: Home) -> tuple[Path, Path, Path]:
    started, go, path = bulk.work / "started", bulk.work / "go", bulk.work / "in.parquet"
    bulk.control.versions = {1: home.keep(1, "isolated", SIGNATURE, original(slow(str(started), str(go))))}
    flights(500).write_parquet(path)
    return started, go, path


def test_a_killed_command_goes_on_with_the_parts_that_are_missing(bulk: Bulk, home: Home) -> None:
    started, go, path = _slow(bulk, home)
    command = bulk.start(path)
    eventually(lambda: started.exists() and len(bulk.parts()) >= 2)
    children = {int(line) for line in started.read_text().split()}
    command.send_signal(signal.SIGKILL)
    command.wait()
    eventually(lambda: not any(_is_alive(pid) for pid in children))
    before = {part.name: part.stat().st_mtime_ns for part in bulk.parts()}
    go.touch()
    outcome = bulk.score(path)
    assert outcome.rows == 500
    assert outcome.resumed_parts == len(before)
    assert before.items() <= {part.name: part.stat().st_mtime_ns for part in bulk.parts()}.items()
    found = bulk.rows()
    assert found["prediction"].to_list() == [2.0 * i for i in range(500)]
    assert found["input_row"].to_list() == list(range(500))
    assert bulk.score(path) == outcome


def test_a_child_that_is_killed_is_replaced_and_no_row_is_lost_or_doubled(bulk: Bulk, home: Home) -> None:
    started, go, path = _slow(bulk, home)
    command = bulk.start(path)
    eventually(lambda: started.exists() and bool(started.read_text().endswith("\n")))
    os.kill(int(started.read_text().split()[0]), signal.SIGKILL)
    go.touch()
    assert command.wait(60) == 0, (bulk.work / "said").read_text()
    assert '"restarts": 1' in (bulk.work / "said").read_text()
    assert bulk.rows()["prediction"].to_list() == [2.0 * i for i in range(500)]


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def test_two_commands_do_not_score_into_one_output_at_once(bulk: Bulk, home: Home) -> None:
    started, go, path = _slow(bulk, home)
    command = bulk.start(path)
    eventually(started.exists)
    with pytest.raises(Conflict, match="Another command"):
        bulk.score(path)
    go.touch()
    assert command.wait(60) == 0


def test_a_run_goes_on_only_with_what_it_was_begun_with(bulk: Bulk, home: Home) -> None:
    path = bulk.work / "in.parquet"
    flights(200).write_parquet(path)
    bulk.score(path)
    with pytest.raises(Conflict, match=r"--on-error was fail, and is null.*"):
        bulk.score(path, on_error=OnError.NULL)
    with pytest.raises(Conflict, match="--chunk-rows was 100, and is 50"):
        bulk.score(path, chunk_rows=50)
    bulk.control.versions = {2: home.seal(2), **bulk.control.versions}
    with pytest.raises(Conflict, match="the version was 1, and is 2"):
        bulk.score(path)
    assert bulk.score(path, version=1).rows == 200
    flights(201).write_parquet(path)
    with pytest.raises(Conflict, match=r"1 files of the input have changed, such as .*in\.parquet"):
        bulk.score(path, version=1)
    with pytest.raises(NotFound, match="got nothing there"):
        bulk.score(bulk.work / "nowhere", version=1)


def test_a_folder_with_something_else_in_it_is_left_alone(bulk: Bulk) -> None:
    flights(10).write_parquet(bulk.work / "in.parquet")
    bulk.output.mkdir()
    (bulk.output / "mine.txt").touch()
    with pytest.raises(Conflict, match="holds something already"):
        bulk.score(bulk.work / "in.parquet")
    assert [each.name for each in bulk.output.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("rows", [1_000, 20_000])
def test_rows_in_memory_do_not_grow_with_the_input(bulk: Bulk, rows: int) -> None:
    flights(rows).write_parquet(bulk.work / "in.parquet")
    outcome = bulk.score(bulk.work / "in.parquet", chunk_rows=500, workers=2)
    assert outcome.rows == rows
    assert outcome.rows_in_flight <= 2 * 500
