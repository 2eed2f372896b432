"""Queries as sources, on a real SQLite file and a real PostgreSQL."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa

from relevo.contract.model import Source
from relevo.datasets.connections import variables
from relevo.datasets.loading import read_source
from relevo.errors import Invalid, JobFailed, Unavailable
from relevo.platform.encoding import to_json
from relevo.platform.jobs import Job

START = datetime(2026, 1, 1, tzinfo=UTC)
VARIABLE = "RELEVO_CONNECTION_HOUSE"
PASSWORD = "hunter2/with@signs"


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database with the table ``orders``, whose URL is in the environment."""
    rows = [
        (name, START + timedelta(hours=hour), x) for name, hour, x in (("a", 0, 1.5), ("b", 1, None), ("c", 2, 3.0))
    ]
    if request.param == "sqlite":
        path = tmp_path / "house.db"
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE orders (id TEXT, at TEXT, x REAL)")
            database.executemany("INSERT INTO orders VALUES (?, ?, ?)", [(a, b.isoformat(), c) for a, b, c in rows])
        database.close()
        monkeypatch.setenv(VARIABLE, f"sqlite:///{path}")
        yield "sqlite"
        return
    url = sa.make_url(request.getfixturevalue("postgresql"))
    name = f"house_{uuid.uuid4().hex[:12]}"
    server = sa.create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine = sa.create_engine(url.set(drivername="postgresql+psycopg", database=name))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE orders (id text, at timestamptz, x double precision)")
        connection.execute(
            sa.text("INSERT INTO orders VALUES (:id, :at, :x)"),
            [dict(zip(("id", "at", "x"), row, strict=True)) for row in rows],
        )
    engine.dispose()
    monkeypatch.setenv(VARIABLE, url.set(database=name).render_as_string(hide_password=False))
    yield "postgresql"
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    server.dispose()


def _source(query: str = "SELECT id, at, x FROM orders", **declared: object) -> Source:
    return Source(
        **{"name": "orders", "key": ("id",), "event_time": "at", "query": query, "connection": "house"} | declared
    )


def test_a_query_gives_rows_with_their_types(house: str, tmp_path: Path) -> None:
    rows = read_source(_source(), tmp_path)
    assert dict(rows.schema) == {"id": pl.String, "at": pl.Datetime("us", "UTC"), "x": pl.Float64}
    assert rows.rows() == [
        ("a", START, 1.5),
        ("b", START + timedelta(hours=1), None),
        ("c", START + timedelta(hours=2), 3.0),
    ]


def test_a_query_is_given_the_limits_that_it_names(house: str, tmp_path: Path) -> None:
    limits = "at > :since AND at <= :until" if house == "postgresql" else "datetime(at) > datetime(:since)"
    asked = _source(f"SELECT id, at, x, 'read' AS how FROM orders WHERE {limits} AND '12:30' = '12:30'")
    since, until = START, START + timedelta(hours=1)
    assert read_source(asked, tmp_path, since=since, until=until)["id"].to_list() == ["b"]
    assert read_source(asked, tmp_path)["id"].to_list() == ["a", "b", "c"]
    # That the database did it, not only we: by the query alone a row before the limit is not there.
    counting = _source(f"SELECT 'n' AS id, max(at) AS at, count(*) AS n FROM orders WHERE {limits}")
    assert read_source(counting, tmp_path, since=START + timedelta(hours=1))["n"].to_list() == [1]


def test_a_query_without_rows_gives_its_columns(house: str, tmp_path: Path) -> None:
    source = Source(name="orders", key=("id",), query="SELECT id, x FROM orders WHERE id = 'z'", connection="house")
    assert read_source(source, tmp_path).columns == ["id", "x"]


def test_many_rows_come_in_parts(house: str, tmp_path: Path) -> None:
    series = (
        "SELECT n FROM generate_series(1, 120000) AS n"
        if house == "postgresql"
        else "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 120000) SELECT n FROM s"
    )
    source = Source(name="orders", key=("n",), query=series, connection="house")
    assert read_source(source, tmp_path)["n"].to_list() == list(range(1, 120_001))


def test_a_query_cannot_change_the_database(house: str, tmp_path: Path) -> None:
    for statement in ("DELETE FROM orders", "DELETE FROM orders RETURNING id, at, x"):
        with pytest.raises(Invalid, match=r"source orders: the query failed: .*(readonly|read-only|syntax error)"):
            read_source(_source(statement), tmp_path)
    assert read_source(_source(), tmp_path).height == 3


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT id, at, x FROM ordres", "source orders: the query failed: .*ordres"),
        ("SELECT id, at, x, x FROM orders", "expected each column of the query once, got 'x' twice"),
        ("SELECT id, x FROM orders", "event_time column 'at' is not in what the query on connection house gave"),
    ],
)
def test_a_query_that_is_wrong_says_so(query: str, message: str, house: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=message):
        read_source(_source(query), tmp_path)


def test_times_without_a_zone_are_refused(house: str, tmp_path: Path) -> None:
    naive = "at::timestamp" if house == "postgresql" else "datetime(at)"
    with pytest.raises(Invalid, match=r"naive times .* AT TIME ZONE 'UTC'|times with an offset such as"):
        read_source(_source(f"SELECT id, {naive} AS at FROM orders"), tmp_path)


def test_a_type_that_changes_far_down_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite3.connect(tmp_path / "h.db").close()
    monkeypatch.setenv(VARIABLE, f"sqlite:///{tmp_path / 'h.db'}")
    series = "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 60000) SELECT n, "
    for late, ok in (("n + 0.5", True), ("'text'", False)):
        query = f"{series} CASE WHEN n < 55000 THEN n ELSE {late} END AS x FROM s"
        source = Source(name="orders", key=("n",), query=query, connection="house")
        if ok:
            assert read_source(source, tmp_path)["x"].to_list()[-1] == 60_000.5
        else:
            with pytest.raises(Invalid, match="column 'x' of the query should hold values of one type"):
                read_source(source, tmp_path)


def test_postgresql_tells_the_type_of_a_column_without_values(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, request.getfixturevalue("postgresql"))
    kinds = {
        "smallint": pl.Int16, "integer": pl.Int32, "bigint": pl.Int64, "real": pl.Float32, "numeric": pl.Float64,
        "boolean": pl.Boolean, "date": pl.Date, "varchar": pl.String, "uuid": pl.String,
        "timestamptz": pl.Datetime("us", "UTC"),
    }  # fmt: skip
    columns = ", ".join(f"NULL::{kind} AS c_{kind}" for kind in kinds)
    source = Source(name="orders", key=("id",), query=f"SELECT 1 AS id, {columns}", connection="house")
    rows = read_source(source, tmp_path)
    assert {name.removeprefix("c_"): kind for name, kind in rows.schema.items() if name != "id"} == kinds
    values = "SELECT 1.25::numeric AS id, '00000000-0000-0000-0000-000000000001'::uuid AS u"
    one = read_source(Source(name="orders", key=("id",), query=values, connection="house"), tmp_path)
    assert one.rows() == [(1.25, "00000000-0000-0000-0000-000000000001")]


def test_a_sqlite_column_of_whole_and_other_numbers_is_one_of_floats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite3.connect(tmp_path / "h.db").close()
    monkeypatch.setenv(VARIABLE, f"sqlite:///{tmp_path / 'h.db'}")
    mixed = Source(
        name="orders", key=("id",), query="SELECT 1 AS id, 1 AS x UNION ALL SELECT 2, 2.5", connection="house"
    )
    assert read_source(mixed, tmp_path)["x"].to_list() == [1.0, 2.5]
    worse = Source(
        name="orders", key=("id",), query="SELECT 1 AS id, 1 AS x UNION ALL SELECT 2, 'b'", connection="house"
    )
    with pytest.raises(
        Invalid, match=r"column 'x' of the query should hold values of one type .*, got int, str; cast it"
    ):
        read_source(worse, tmp_path)


def test_a_connection_that_is_not_set_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(
        Unavailable, match=f"source orders: the connection house needs a URL .* in {VARIABLE}, got"
    ) as e:
        read_source(_source(), tmp_path)
    assert e.value.hint == f"Set {VARIABLE} in the environment of the control plane, and start it again."


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://me:{}@127.0.0.1:1/house", "source orders: the connection house cannot be reached: "),
        ("postgresql://127.0.0.1:1/house?password={}", "source orders: the connection house cannot be reached: "),
        ("mysql://me:{}@db/house", "should hold a URL such as postgresql.*, got one of mysql"),
        ("me:{}", "should hold a URL such as postgresql.*, got something else"),
        ("sqlite:////nowhere/house.db", "expected a SQLite database at /nowhere/house.db, got no file there"),
    ],
)
def test_a_database_that_cannot_be_reached_is_named_without_its_password(
    url: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, url.format("hunter2"))
    with pytest.raises((Unavailable, Invalid), match=message) as refused:
        read_source(_source(), tmp_path)
    assert "hunter2" not in f"{refused.value.message}{refused.value.hint}"
    assert not Path("/nowhere").exists()


def test_a_job_gets_the_connections_of_its_sources_and_no_other() -> None:
    environment = {VARIABLE: "sqlite:///a.db", "RELEVO_CONNECTION_OTHER": "sqlite:///b.db", "HOME": "/root"}
    loader = Source(name="rows", key=("id",), loader="rows:frame")
    assert variables([loader], environment) == {}
    assert variables([loader, _source()], environment) == {VARIABLE: "sqlite:///a.db"}
    assert variables([_source(connection="lost")], environment) == {}


def test_a_job_that_fails_keeps_the_password_out_of_answer_and_log(tmp_path: Path) -> None:
    import sys

    child = tmp_path / "child.py"
    child.write_text(
        "from relevo.datasets.child import load\n"
        "from relevo.platform.child import serve\n"
        "import os\n"
        "def leak(): raise RuntimeError('asked ' + os.environ['RELEVO_CONNECTION_HOUSE'])\n"
        "serve({'load': load, 'leak': leak})\n"
    )
    url = "postgresql://me:hunter2@127.0.0.1:1/house"
    job = Job("child", python=Path(sys.executable), package=tmp_path, log=tmp_path / "log", environment={VARIABLE: url})
    with job:
        with pytest.raises(JobFailed, match="cannot be reached") as failed:
            job.call(
                "load", source=to_json(_source()), package=str(tmp_path), until=None, tables_root=str(tmp_path / "t")
            )
        with pytest.raises(JobFailed, match=r"RuntimeError: asked \*\*\*") as leaked:
            job.call("leak")
        assert "hunter2" not in Path(f"/proc/{job.pid}/cmdline").read_text()
    said = f"{failed.value.message}{failed.value.hint}{leaked.value.message}{leaked.value.hint}"
    assert "hunter2" not in said + (tmp_path / "log").read_text()
