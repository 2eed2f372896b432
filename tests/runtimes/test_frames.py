"""One frame for training, agreement and serving."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

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
