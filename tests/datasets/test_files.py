"""Files and Delta tables as sources: each format, many files at once, and what cannot be read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake

from relevo.contract.model import Source
from relevo.datasets.loading import read_source
from relevo.errors import Invalid, NotFound

START = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = pl.DataFrame(
    {
        "id": ["a", "b", "c", "d"],
        "at": [START + timedelta(hours=hour) for hour in range(4)],
        "known_at": [START + timedelta(hours=hour) for hour in (5, 1, 2, 3)],
        "x": [1, None, 3, 4],
    }
)


def _source(**declared: object) -> Source:
    return Source(**{"name": "rows", "key": ("id",), "event_time": "at", "known_time": "known_at", **declared})


def _write(frame: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = pl.col("at", "known_at").dt.strftime("%Y-%m-%dT%H:%M:%S%:z")
    match path.suffix:
        case ".parquet":
            frame.write_parquet(path)
        case ".csv":
            frame.with_columns(times).write_csv(path)
        case _:
            frame.with_columns(times).write_ndjson(path)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".ndjson"])
def test_each_format_gives_the_same_rows(suffix: str, tmp_path: Path) -> None:
    _write(ROWS.head(2), tmp_path / "data" / f"1{suffix}")
    _write(ROWS.tail(2), tmp_path / "data" / "more" / f"2{suffix}")
    for pattern, project in ((f"data/**/*{suffix}", tmp_path), (f"{tmp_path}/data/**/*{suffix}", Path("/nowhere"))):
        assert read_source(_source(files=pattern), project).equals(ROWS)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_files_are_cut_by_when_a_row_is_known(suffix: str, tmp_path: Path) -> None:
    _write(ROWS, tmp_path / f"rows{suffix}")
    known = read_source(
        _source(files=f"rows{suffix}"),
        tmp_path,
        since=START + timedelta(hours=1),
        until=START + timedelta(hours=3),
    )
    assert known["id"].to_list() == ["c", "d"]


def test_a_column_that_older_files_lack_is_null_there_and_numbers_widen(tmp_path: Path) -> None:
    _write(ROWS.head(2), tmp_path / "1.parquet")
    _write(ROWS.tail(2).with_columns(y=pl.lit("new"), x=pl.col("x") + 0.5), tmp_path / "2.parquet")
    rows = read_source(_source(files="*.parquet"), tmp_path)
    assert rows["x"].to_list() == [1.0, None, 3.5, 4.5]
    assert rows["y"].to_list() == [None, None, "new", "new"]


def test_a_type_far_down_a_csv_file_is_found(tmp_path: Path) -> None:
    lines = [f"{number},{number}" for number in range(20_000)]
    (tmp_path / "rows.csv").write_text("\n".join(["id,x", *lines, "20000,0.5"]))
    source = Source(name="rows", key=("id",), files="rows.csv")
    assert read_source(source, tmp_path).schema["x"] == pl.Float64


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.parquet", b"PAR1 is not enough", r"source rows: .*rows\.parquet cannot be read as Parquet"),
        ("rows.csv", b"", r"source rows: .*rows\.csv cannot be read as CSV: empty"),
        ("rows.jsonl", b'{"id": 1}\n{"id":', r"source rows: .*rows\.jsonl cannot be read"),
        (
            "rows.csv",
            b"id,known_at,x\na,2026-01-01T00:00:00Z,1\n",
            "event_time column 'at' is not in what the files rows.csv",
        ),
        (
            "rows.csv",
            b"id,at,known_at\na,2026-01-01T00:00:00,\n",
            "'at' should hold times with an offset such as .*, got ",
        ),
        ("rows.csv", b"id,at,known_at\na,yesterday,\n", "'at' should hold times with an offset such as .*'yesterday'"),
        (
            "rows.csv",
            b"id,at,known_at\na,2026-01-01,\n",
            "'at' should hold times with an offset such as .*'2026-01-01'",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Invalid, match=message):
        read_source(_source(files=name), tmp_path)


def test_a_torn_parquet_file_is_named_although_its_end_is_whole(tmp_path: Path) -> None:
    _write(ROWS, tmp_path / "rows.parquet")
    content = (tmp_path / "rows.parquet").read_bytes()
    (tmp_path / "rows.parquet").write_bytes(b"PAR1" + bytes(60) + content[64:])
    with pytest.raises(Invalid, match=r"source rows: the files rows\.parquet cannot be read"):
        read_source(_source(files="rows.parquet"), tmp_path)


def test_a_pattern_that_matches_nothing_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        NotFound, match=r"source rows: expected at least one file that matches a/\*\.csv in the project"
    ) as e:
        read_source(_source(files="a/*.csv"), tmp_path)
    assert "travels with the project" in str(e.value.hint)


def test_a_delta_table_is_read_at_its_newest_version(tmp_path: Path) -> None:
    path = str(tmp_path / "lake")
    write_deltalake(path, ROWS.head(1))
    write_deltalake(path, ROWS.tail(3), mode="append")
    source = _source(table=path)
    assert read_source(source, tmp_path).equals(ROWS)
    assert read_source(source, tmp_path, until=START + timedelta(hours=2))["id"].to_list() == ["b", "c"]


def test_a_delta_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"source rows: expected a Delta table at .*lake, got none"):
        read_source(_source(table=str(tmp_path / "lake")), tmp_path)
    (tmp_path / "lake" / "_delta_log").mkdir(parents=True)
    (tmp_path / "lake" / "_delta_log" / "00000000000000000000.json").write_text("{")
    with pytest.raises(Invalid, match=r"source rows: the Delta table .*lake cannot be read"):
        read_source(_source(table=str(tmp_path / "lake")), tmp_path)


NOW = START + timedelta(hours=2)


@pytest.mark.parametrize("until", [None, START + timedelta(hours=1)])
def test_a_row_known_only_in_the_future_is_refused(until: datetime | None, tmp_path: Path) -> None:
    _write(ROWS, tmp_path / "rows.parquet")
    with pytest.raises(Invalid) as refused:
        read_source(_source(files="rows.parquet"), tmp_path, until=until, now=NOW)
    assert refused.value.message.startswith(
        "source rows: 2 rows are known only in the future by their known_time 'known_at', for example {at: 2026-01-01 "
        "00:00:00+00:00, id: a, known_at: 2026-01-01 05:00:00+00:00}"
    )
    with pytest.raises(
        Invalid, match=r"1 rows are known only in the future by their event_time 'at', .* declare a known"
    ):
        read_source(_source(files="rows.parquet", known_time=None), tmp_path, until=until, now=NOW)


def test_a_plan_that_is_known_before_it_happens_is_fine(tmp_path: Path) -> None:
    _write(ROWS.with_columns(known_at=pl.lit(START)), tmp_path / "rows.parquet")
    assert read_source(_source(files="rows.parquet"), tmp_path, now=START).height == 4


def test_clocks_may_differ_by_a_minute(tmp_path: Path) -> None:
    _write(ROWS.tail(1), tmp_path / "rows.parquet")
    source = _source(files="rows.parquet")
    assert read_source(source, tmp_path, now=START + timedelta(hours=2, minutes=59)).height == 1
    with pytest.raises(Invalid, match="known only in the future"):
        read_source(source, tmp_path, now=START + timedelta(hours=2, minutes=58, seconds=59))
