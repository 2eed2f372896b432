"""Rows to compare runtimes on where there is no holdout."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from relevo.contract.model import Task
from relevo.imports.rows import GENERATED, example_rows, generated_rows
from relevo.runtimes.model import Column, ColumnType, Signature

SIGNATURE = Signature(
    Task.REGRESSION,
    (
        Column("x", ColumnType.FLOAT, dtype="float64"),
        Column("n", ColumnType.INTEGER, nullable=False, dtype="int64"),
        Column("city", ColumnType.TEXT, dtype="str"),
        Column("is_new", ColumnType.BOOLEAN, nullable=False, dtype="bool"),
        Column("at", ColumnType.TIME, dtype="datetime64[ns]"),
    ),
)
AT = datetime(2020, 1, 1, 12, tzinfo=UTC)


def test_an_example_gives_its_rows_that_fit_in_the_signatures_order(tmp_path: Path) -> None:
    path = tmp_path / "input_example.json"
    good = ["2020-01-01T12:00:00", True, "Oslo", 3, 1]
    data = [good, [None, None, None, None, None], ["soon", True, "Oslo", 3, 1.5]]
    path.write_text(json.dumps({"columns": ["at", "is_new", "city", "n", "x"], "data": data}))
    assert example_rows(path, SIGNATURE) == [[1.0, 3, "Oslo", True, AT]]


@pytest.mark.parametrize("content", ["[[1, 2]]", "{}", "no JSON", '{"columns": null, "data": []}'])
def test_an_example_that_is_no_table_gives_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "input_example.json"
    path.write_text(content)
    assert example_rows(path, SIGNATURE) == []
    assert example_rows(tmp_path / "absent.json", SIGNATURE) == []


def test_generated_rows_are_the_same_every_time_and_vary_every_input() -> None:
    rows = generated_rows(SIGNATURE, [], {"city": ["Oslo", "Bergen"]})
    assert rows == generated_rows(SIGNATURE, [], {"city": ["Oslo", "Bergen"]})
    assert len(rows) == GENERATED
    columns = list(zip(*rows, strict=True))
    assert {"Oslo", "Bergen"} == set(columns[2]) and set(columns[3]) == {True, False}
    sizes = sorted(abs(float(str(x))) for x in columns[0])
    assert sizes[0] < 0.1 and sizes[-1] > 100_000 and min(map(float, map(str, columns[0]))) < 0


def test_generated_numbers_spread_around_those_of_the_example() -> None:
    rows = generated_rows(SIGNATURE, [[10.0, 5, "Oslo", True, AT], [20.0, 5, "Oslo", True, AT]], {})
    assert all(0.0 <= float(str(row[0])) <= 30.0 and 0 <= int(str(row[1])) <= 10 for row in rows)
    assert {row[2] for row in rows} == {"Oslo"}
