"""One frame for training, agreement and serving."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from relevo.contract.model import Task
from relevo.runtimes.frames import as_frame, categories_of, frame_of_columns, rows_of_frame
from relevo.runtimes.model import Column, ColumnType, Signature

SIGNATURE = Signature(
    Task.REGRESSION,
    (
        Column("name", ColumnType.TEXT),
        Column("x", ColumnType.FLOAT),
        Column("n", ColumnType.INTEGER),
        Column("is_new", ColumnType.BOOLEAN),
        Column("built_at", ColumnType.TIME),
    ),
)
TIME = datetime(2013, 4, 1, 12, 30, 0, 123456, tzinfo=UTC)
ROWS: list[list[Any]] = [["b", 1.5, 3, True, TIME], [None, None, None, None, None], ["a", -0.0, 2**40, False, TIME]]


def test_rows_become_a_frame_and_come_back() -> None:
    frame = as_frame(ROWS, SIGNATURE, {"name": ["a", "b"]})
    assert [str(dtype) for dtype in frame.dtypes] == ["category", *["float64"] * 3, "datetime64[us, UTC]"]
    assert rows_of_frame(frame, SIGNATURE) == ROWS


def test_an_unseen_category_is_null() -> None:
    frame = as_frame([["z", 1.0, 1, True, TIME]], SIGNATURE, {"name": ["a", "b"]})
    assert frame["name"].isna().all()
    assert list(frame["name"].cat.categories) == ["a", "b"]
    assert rows_of_frame(frame, SIGNATURE)[0][0] is None


def test_a_null_changes_no_type() -> None:
    with_null, without = (as_frame(rows, SIGNATURE, {"name": ["a"]}) for rows in (ROWS, ROWS[:1]))
    assert (with_null.dtypes == without.dtypes).all()
    assert (as_frame([], SIGNATURE, {"name": ["a"]}).dtypes == without.dtypes).all()


def test_columns_of_polars_give_the_same_frame() -> None:
    names = [column.name for column in SIGNATURE.inputs]
    columns = pl.DataFrame(ROWS, schema=names, orient="row").with_columns(pl.col("name").cast(pl.Categorical))
    categories = categories_of({name: columns[name] for name in names}, SIGNATURE)
    assert categories == {"name": ["a", "b"]}
    frame = frame_of_columns({name: columns[name] for name in [*names[::-1]]}, SIGNATURE, categories)
    pd.testing.assert_frame_equal(frame, as_frame(ROWS, SIGNATURE, categories))


def test_categories_come_from_any_sequence() -> None:
    for values in (["b", None, "a", "b"], np.array(["b", None, "a"], dtype=object), pd.Series(["b", None, "a"])):
        assert categories_of({"name": values}, SIGNATURE) == {"name": ["a", "b"]}


FOREIGN = Signature(
    Task.REGRESSION,
    (
        Column("name", ColumnType.TEXT, dtype="str"),
        Column("x", ColumnType.FLOAT, dtype="float64"),
        Column("half", ColumnType.FLOAT, dtype="float32"),
        Column("n", ColumnType.INTEGER, nullable=False, dtype="int64"),
        Column("is_new", ColumnType.BOOLEAN, nullable=False, dtype="bool"),
        Column("built_at", ColumnType.TIME, dtype="datetime64[ns]"),
    ),
)


def test_a_model_made_elsewhere_gets_the_types_of_its_schema() -> None:
    rows: list[list[Any]] = [["b", 1.5, 0.5, 2**53 + 1, True, TIME], [None, None, None, 0, False, None]]
    frame = as_frame(rows, FOREIGN, {})
    expected = pd.DataFrame({"name": ["b", None]}).dtypes["name"], "float64", "float32", "int64", "bool"
    assert [str(dtype) for dtype in frame.dtypes] == [*map(str, expected), "datetime64[ns]"]
    assert frame["n"].tolist() == [2**53 + 1, 0]
    assert frame["built_at"][0] == pd.Timestamp("2013-04-01T12:30:00.123456")
    assert rows_of_frame(frame, FOREIGN) == rows


def test_a_null_where_the_schema_has_no_place_for_it_is_refused() -> None:
    for row in (["b", 1.0, 1.0, None, True, TIME], ["b", 1.0, 1.0, 1, None, TIME]):
        with pytest.raises(ValueError, match="no place for a null"):
            as_frame([row], FOREIGN, {})
    assert as_frame([[None, 1.0, 1.0, 1, True, TIME]], FOREIGN, {})["name"].tolist() == [None]
