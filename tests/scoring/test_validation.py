"""Columns are taken as the endpoint takes values: typed, or refused with the row's own words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from relevo.contract.model import Task
from relevo.errors import Invalid
from relevo.runtimes.model import Column, ColumnType, Signature
from relevo.scoring.validation import sent_columns, typed

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)


def judged(kind: ColumnType, values: pl.Series, *, nullable: bool = True) -> tuple[list[Any], list[str | None]]:
    signature = Signature(Task.REGRESSION, (Column("x", kind, nullable=nullable),))
    frame = values.alias("x").to_frame()
    found, refusals = typed(frame, sent_columns(signature, ["x"]), signature, AS_OF)
    return found["x"].to_list(), refusals.message.to_list()


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (ColumnType.FLOAT, pl.Series([1, None, 3], dtype=pl.Int16), [1.0, None, 3.0]),
        (ColumnType.FLOAT, pl.Series([1.5, float("nan")]), [1.5, None]),
        (ColumnType.FLOAT, pl.Series([None, None]), [None, None]),
        (ColumnType.INTEGER, pl.Series([3.0, None, float("nan")]), [3, None, None]),
        (ColumnType.INTEGER, pl.Series([7], dtype=pl.UInt64), [7]),
        (ColumnType.TEXT, pl.Series(["a", None], dtype=pl.Categorical), ["a", None]),
        (ColumnType.BOOLEAN, pl.Series([True, None]), [True, None]),
        (ColumnType.BOOLEAN, pl.Series([1, 0, None]), [True, False, None]),
        (ColumnType.TIME, pl.Series(["2026-01-01T01:00:00+01:00", None]), [AS_OF, None]),
        (ColumnType.TIME, pl.Series([AS_OF]).dt.convert_time_zone("America/New_York"), [AS_OF]),
    ],
)
def test_values_that_mean_the_same_are_taken(kind: ColumnType, given: pl.Series, expected: list[Any]) -> None:
    values, refused = judged(kind, given)
    assert values == expected
    assert refused == [None] * len(expected)


@pytest.mark.parametrize(
    ("kind", "given", "got"),
    [
        (ColumnType.FLOAT, pl.Series([1.0, float("inf")]), "expected a number, got inf"),
        (ColumnType.INTEGER, pl.Series([1.0, 2.5]), "expected an integer, got 2.5"),
        (ColumnType.INTEGER, pl.Series([1, 2**63], dtype=pl.UInt64), "expected an integer, got 9223372036854775808"),
        (ColumnType.BOOLEAN, pl.Series([1, 2]), "expected true or false, got 2"),
        (
            ColumnType.TIME,
            pl.Series(["2026-01-01T00:00:00Z", "2026-01-01T00:00:00"]),
            "expected an ISO 8601 time with offset, got 2026-01-01T00:00:00",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_refused_alone(kind: ColumnType, given: pl.Series, got: str) -> None:
    values, refused = judged(kind, given)
    assert values[0] is not None
    assert values[1] is None
    assert refused == [None, got]


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (ColumnType.FLOAT, pl.Series(["1.5"])),
        (ColumnType.FLOAT, pl.Series([True])),
        (ColumnType.TEXT, pl.Series([1])),
        (ColumnType.BOOLEAN, pl.Series(["true"])),
        (ColumnType.TIME, pl.Series([datetime(2026, 1, 1)])),  # noqa: DTZ001 - naive on purpose
    ],
)
def test_a_column_of_another_type_is_refused_as_a_whole(kind: ColumnType, given: pl.Series) -> None:
    with pytest.raises(Invalid, match=r"Column 'x': expected .* in each row, got a column of") as refused:
        judged(kind, given)
    assert refused.value.field == "x"


def test_null_is_refused_where_the_model_needs_a_value() -> None:
    assert judged(ColumnType.FLOAT, pl.Series([1.0, None]), nullable=False)[1] == [None, "expected a number, got null"]


def test_a_row_is_asked_when_it_says_else_at_the_event_time_and_never_later() -> None:
    signature = Signature(Task.REGRESSION, (Column("x", ColumnType.FLOAT),), at="at")
    times = [None, AS_OF - timedelta(days=400), AS_OF + timedelta(seconds=59), AS_OF + timedelta(seconds=61)]
    frame = pl.DataFrame({"x": [1.0] * 4, "at": times})
    found, refusals = typed(frame, sent_columns(signature, frame.columns), signature, AS_OF)
    assert found["at"].to_list() == [AS_OF, *times[1:]]
    assert refusals.message.is_null().to_list() == [True, True, True, False]
    assert refusals.field.to_list()[3] == "at"
    without, _ = typed(frame.select("x"), sent_columns(signature, ["x"]), signature, AS_OF)
    assert without["at"].to_list() == [AS_OF] * 4
