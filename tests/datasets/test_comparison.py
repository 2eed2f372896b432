from datetime import UTC, datetime

import comparison_reference as reference
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relevo.datasets.comparison import EXAMPLES, compare
from relevo.datasets.differences import CellChange, Comparison, Summary
from relevo.platform.encoding import parse, to_json

AT = datetime(2026, 1, 1, tzinfo=UTC)
OLD = pl.DataFrame({"id": [1, 2, 3, 4], "x": [1.0, None, 3.0, 4.0], "c": ["a", "b", "b", None], "gone": [1, 1, 1, 1]})
NEW = pl.DataFrame({"id": [5, 4, 3, 2], "c": ["n", "d", "b", "b"], "x": [9.0, 4.0, 3.5, 2.0], "when": [AT] * 4})

numbers = st.one_of(st.none(), st.integers(-2, 2).map(float), st.just(float("nan")))
texts = st.one_of(st.none(), st.sampled_from(["", "a", "b"]))
keys = st.one_of(st.none(), st.integers(0, 4))


@st.composite
def tables(draw: st.DrawFn, *, unique: bool) -> pl.DataFrame:
    """Rows with a name of two columns, either of which may be null, and some of the value columns."""
    rows = st.lists(
        st.tuples(keys, texts, numbers, texts, st.booleans()),
        max_size=8,
        unique_by=(lambda row: row[:2]) if unique else None,
    )
    frame = pl.DataFrame(
        draw(rows),
        schema={"k": pl.Int64, "t": pl.String, "x": pl.Float64, "c": pl.String, "b": pl.Boolean},
        orient="row",
    )
    kept = [name for name in ("x", "c", "b") if draw(st.integers(0, 5))]
    frame = frame.select("k", "t", *kept)
    if "x" in kept and not draw(st.integers(0, 5)):
        frame = frame.with_columns(pl.col("x").cast(pl.Float32))
    return frame.select(draw(st.permutations(frame.columns)))


def compared(before: pl.DataFrame, after: pl.DataFrame, *names: str) -> Comparison:
    found = compare(before.lazy(), after.lazy(), names)
    assert parse(Comparison, to_json(found)) == found  # it goes through a pipe
    return found


@settings(max_examples=300, deadline=None)
@given(tables(unique=True), tables(unique=True))
def test_named_rows_are_compared_as_the_slow_reference_does(before: pl.DataFrame, after: pl.DataFrame) -> None:
    found = compared(before, after, "k", "t")
    assert (found.named_by, found.note) == (("k", "t"), None)
    assert reference.named(before, after, ["k", "t"]) == {
        "added": found.added,
        "removed": found.removed,
        "changed": found.changed,
        "cells": {column.name: column.changed for column in found.columns if column.changed is not None},
    }
    assert found.rows_before + found.added - found.removed == found.rows_after
    assert len(found.added_rows) == min(found.added, EXAMPLES)
    for column in found.columns:
        assert len(column.examples) == min(column.changed or 0, EXAMPLES)
    assert found.is_same == (_rows(before) == _rows(after) and dict(before.schema) == dict(after.schema))


@settings(max_examples=300, deadline=None)
@given(tables(unique=False), tables(unique=False))
def test_whole_rows_are_compared_as_the_slow_reference_does(before: pl.DataFrame, after: pl.DataFrame) -> None:
    found = compared(before, after)
    assert reference.whole(before, after) == {"added": found.added, "removed": found.removed}
    assert found.changed is None and found.note == "No column names a row, so whole rows are compared."


@settings(max_examples=200, deadline=None)
@given(tables(unique=False))
def test_columns_are_summed_up_as_the_slow_reference_does(frame: pl.DataFrame) -> None:
    frame = frame.with_columns(pl.col(pl.Float64).fill_nan(None), pl.col(pl.Float32).fill_nan(None))
    for column in compared(frame, frame).columns:
        expected, summary = reference.summary(frame[column.name].to_list()), column.after
        assert summary is not None and summary == column.before
        assert summary.null_rate == expected["null_rate"]
        if frame.schema[column.name].is_numeric():
            assert summary.mean == pytest.approx(expected["mean"])
            assert (summary.minimum, summary.maximum) == (expected["minimum"], expected["maximum"])
        else:
            assert summary.distinct == expected["distinct"]


def test_each_difference_is_named_with_examples() -> None:
    found = compared(OLD, NEW, "id")
    assert (found.rows_before, found.rows_after, found.added, found.removed, found.changed) == (4, 4, 1, 1, 3)
    assert (found.added_rows, found.removed_rows) == (("id: 5",), ("id: 1",))
    columns = {column.name: column for column in found.columns}
    assert {name: column.schema for name, column in columns.items()} == {
        "id": "same", "c": "same", "x": "same", "when": "added", "gone": "removed",
    }  # fmt: skip
    assert columns["x"].examples == (CellChange("id: 2", "null", "2.0"), CellChange("id: 3", "3.0", "3.5"))
    assert columns["c"].examples == (CellChange("id: 4", "null", "d"),)
    assert columns["x"].before == Summary(0.25, mean=pytest.approx(8 / 3), minimum=1.0, maximum=4.0)
    assert columns["c"].after == Summary(0.0, distinct=3)
    assert columns["when"].after == Summary(0.0, minimum=AT.isoformat(), maximum=AT.isoformat())
    assert columns["gone"].after is None and columns["when"].before is None


@pytest.mark.parametrize(
    ("before", "after", "note"),
    [
        (OLD.drop("id"), NEW, "'id', which names a row, is not in the version before"),
        (OLD, NEW.drop("id"), "'id', which names a row, is not in the version after"),
        (OLD, NEW.cast({"id": pl.String}), "'id', which names a row, is Int64 before and String after"),
        (OLD.with_columns(id=pl.lit(1, pl.Int64)), NEW, "Rows of the version before share the same id"),
        (OLD, NEW.with_columns(id=pl.lit(1, pl.Int64)), "Rows of the version after share the same id"),
    ],
)
def test_rows_without_a_name_are_compared_whole_and_said_so(
    before: pl.DataFrame, after: pl.DataFrame, note: str
) -> None:
    found = compared(before, after, "id")
    assert (found.named_by, found.changed) == ((), None)
    assert found.note == f"{note}, so whole rows are compared."


def test_versions_without_a_common_column_differ_in_their_numbers_of_rows() -> None:
    found = compared(OLD.select(a="id"), NEW.select(b="id").head(3))
    assert (found.added, found.removed, found.rows_after) == (0, 1, 3)
    assert [column.schema for column in found.columns] == ["added", "removed"]


def test_an_empty_version_is_compared_too() -> None:
    found = compared(OLD.clear(), OLD, "id")
    assert (found.added, found.removed, found.changed) == (4, 0, 0)
    assert found.columns[0].before == Summary(0.0)
    assert compared(pl.DataFrame(), pl.DataFrame()).is_same


def test_lists_days_large_numbers_and_infinities_are_compared() -> None:
    day = AT.date()
    rows = pl.DataFrame({"id": [1, 2], "l": [[1, 2], None], "d": [day, day], "n": [2**60 + 1, 0], "f": [1.0, 2.0]})
    later = rows.with_columns(l=pl.Series([[1], None], dtype=pl.List(pl.Int64)), f=float("inf"), n=pl.col("n") + 1)
    found = {column.name: column for column in compared(rows, later, "id").columns}
    assert {name: column.changed for name, column in found.items()} == {"id": None, "l": 1, "d": 0, "n": 2, "f": 2}
    assert found["l"].examples == (CellChange("id: 1", "[1, 2]", "[1]"),)
    assert found["n"].after.maximum == 2**60 + 2
    assert (found["f"].after.maximum, found["f"].after.mean) == ("inf", None)
    assert found["d"].after.minimum == "2026-01-01"
    whole = compared(rows, later)
    assert (whole.added, whole.removed) == (2, 2)


def _rows(frame: pl.DataFrame) -> list[str]:
    return sorted(repr(sorted(row.items())) for row in frame.to_dicts())
