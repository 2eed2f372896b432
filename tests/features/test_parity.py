"""Comparing what was served with what the sources give: exact, close, different, sent, behind, and why."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.features import Entity, FeatureView, latest
from relevo.features.parity import (
    AT,
    CURRENT,
    EXAMPLES,
    ID,
    KNOWN,
    LOGGED,
    LOOKED_UP,
    ONLINE,
    ROW,
    THROUGH,
    Cause,
    Comparison,
    FeatureParity,
    added,
    explain,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
VIEW = FeatureView("at_place", entity=Entity("place", "place"), source="trips", features={"x": latest("x")})


def frame(logged: list[Any], known: list[Any], current: list[Any] | None = None, **columns: Any) -> pl.DataFrame:
    n = len(logged)
    made = {
        ROW: list(range(n)), ID: [f"p{i}" for i in range(n)], AT: [NOW] * n, THROUGH: [NOW] * n,
        LOOKED_UP: [["x"]] * n, "place": ["a"] * n,
    } | columns  # fmt: skip
    values = {LOGGED + "x": logged, KNOWN + "x": known, CURRENT + "x": known if current is None else current}
    times = {AT: pl.Datetime("us", "UTC"), THROUGH: pl.Datetime("us", "UTC")}
    return pl.DataFrame(made | values, schema_overrides=times, strict=False)


def counted(found: pl.DataFrame) -> tuple[int, int, int]:
    """Exact, close, different."""
    (one,) = Comparison(found, [VIEW]).counts()
    assert one.compared == one.exact + one.close + one.different
    assert Comparison(found, [VIEW]).differing("x").height == one.different
    return one.exact, one.close, one.different


@pytest.mark.parametrize(
    ("logged", "known", "expected"),
    [
        (1.0, 1.0, (1, 0, 0)),
        (None, None, (1, 0, 0)),
        (None, 0.0, (0, 0, 1)),
        (0.0, None, (0, 0, 1)),
        (1.0, 1.0 + 1e-10, (0, 1, 0)),
        (1.0, 1.0 + 1e-8, (0, 0, 1)),
        (1e12, 1e12 + 100, (0, 1, 0)),
        (0.0, 1e-13, (0, 1, 0)),
        (0.0, 1e-6, (0, 0, 1)),
        (math.inf, math.inf, (1, 0, 0)),
        (math.inf, 1.0, (0, 0, 1)),
        (-0.5, 0.5, (0, 0, 1)),
        ("a", "a", (1, 0, 0)),
        ("a", "b", (0, 0, 1)),
        (True, True, (1, 0, 0)),
        (True, False, (0, 0, 1)),
    ],
)
def test_values_are_equal_close_or_different(logged: object, known: object, expected: tuple[int, int, int]) -> None:
    kind = float if None in (logged, known) else type(logged)
    types = {LOGGED + "x": kind, KNOWN + "x": kind, CURRENT + "x": kind}
    assert counted(frame([logged], [known]).cast(types)) == expected


@pytest.mark.parametrize(
    ("logged", "known"),
    [
        (pl.Series([3]), pl.Series([3.0])),
        (pl.Series(["3.5"]), pl.Series([3.5])),
        (pl.Series(["true"]), pl.Series([True])),
    ],
)
def test_a_column_that_the_log_keeps_in_another_type_is_read_as_what_it_was(
    logged: pl.Series, known: pl.Series
) -> None:
    found = frame([None], [None]).with_columns(
        logged.alias(LOGGED + "x"), known.alias(KNOWN + "x"), known.alias(CURRENT + "x")
    )
    assert counted(found) == (1, 0, 0)


@given(st.lists(st.tuples(st.one_of(st.none(), st.floats(-1e9, 1e9)), st.booleans()), min_size=1, max_size=30))
def test_a_value_that_was_moved_is_always_found_and_no_other(rows: list[tuple[float | None, bool]]) -> None:
    known = [value for value, _ in rows]
    moved = [(0.0 if value is None else value + 1 + abs(value)) if is_moved else value for value, is_moved in rows]
    exact, close, different = counted(
        frame(moved, known).cast({LOGGED + "x": float, KNOWN + "x": float, CURRENT + "x": float})
    )
    assert (close, different) == (0, sum(is_moved for _, is_moved in rows))
    assert exact == len(rows) - different


def test_what_the_caller_sent_is_counted_and_not_compared() -> None:
    (one,) = Comparison(frame([1.0, 2.0], [9.0, 2.0], **{LOOKED_UP: [[], ["x"]]}), [VIEW]).counts()
    assert (one.compared, one.exact, one.different, one.sent) == (1, 1, 0, 1)


def test_a_store_that_lags_is_no_difference_and_is_told_apart() -> None:
    found = frame([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [2.0, 2.0, 2.0], **{THROUGH: [NOW - HOUR] * 3})
    (one,) = Comparison(found, [VIEW]).counts()
    # The second was served by a view that was filled further than the logged time, the least of all views.
    assert (one.exact, one.different, one.behind) == (2, 1, 3)


def causes(found: pl.DataFrame, online: list[Any], **changed: Any) -> dict[Cause, int]:
    usual: dict[str, Any] = {"other_code": None, "filled_through": NOW, "source_is_same": None}
    differing = Comparison(found, [VIEW]).differing("x").with_columns(pl.Series(ONLINE + "x", online, dtype=pl.Float64))
    counts, examples = explain(differing, VIEW, "x", **(usual | changed))
    assert sum(counts.values()) == differing.height
    assert len(examples) == min(EXAMPLES, differing.height)
    return counts


def test_each_difference_has_its_cause() -> None:
    skew = frame([1.0], [2.0])
    assert causes(skew, [1.0], source_is_same=True) == {Cause.STORED: 1}
    assert causes(skew, [1.0], source_is_same=False) == {Cause.SOURCE: 1}
    assert causes(skew, [1.0]) == {Cause.UNEXPLAINED: 1}
    assert causes(skew, [2.0], source_is_same=True) == {Cause.REPLACED: 1}
    assert causes(skew, [2.0], filled_through=NOW + 25 * HOUR) == {Cause.UNEXPLAINED: 1}  # it cannot be asked any more
    assert causes(skew, [2.0], filled_through=None) == {Cause.UNEXPLAINED: 1}
    assert causes(skew, [1.0], other_code=pl.Series([1.0])) == {Cause.CODE: 1}
    assert causes(skew, [1.0], other_code=pl.Series([3.0]), source_is_same=True) == {Cause.STORED: 1}
    assert causes(frame([None], [2.0], **{THROUGH: [NOW + 25 * HOUR]}).cast({LOGGED + "x": float}), [None]) == {
        Cause.NOT_KEPT: 1
    }


def test_examples_show_each_cause_before_another_of_the_same() -> None:
    through = [NOW] * 9 + [NOW + 25 * HOUR]
    differing = frame([1.0] * 10, [2.0] * 10, **{THROUGH: through}).with_columns(pl.lit(1.0).alias(ONLINE + "x"))
    _, examples = explain(differing, VIEW, "x", other_code=None, filled_through=NOW, source_is_same=True)
    assert {example.cause for example in examples[:2]} == {Cause.STORED, Cause.NOT_KEPT}
    assert examples[0].entity == {"place": "a"}


def test_results_of_versions_add_up() -> None:
    one = FeatureParity("v", "x", 3, 2, 0, 1, 4, 5, {Cause.CODE: 1})
    other = FeatureParity("v", "x", 2, 1, 0, 1, causes={Cause.CODE: 1})
    third = FeatureParity("v", "y", 1, 1)
    assert added([one, third, other]) == (FeatureParity("v", "x", 5, 3, 0, 2, 4, 5, {Cause.CODE: 2}), third)
