"""How types, values and differences of datasets are said, in the terminal and on pages alike. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

from relevo.datasets.differences import ColumnDifference, Comparison, Summary

ARROW = " → "
_ARGUMENT = re.compile(r"\w+='?([^',)]*)'?")


def kind(name: str) -> str:
    """A Polars type as people write it.

    >>> kind("Datetime(time_unit='us', time_zone='UTC')"), kind("List(Int64)")
    ('Datetime(us, UTC)', 'List(Int64)')
    """
    return _ARGUMENT.sub(r"\1", name)


def figure(value: float | str | None) -> str:
    """A value of a summary: whole numbers in full, others to four digits, times to the minute.

    >>> figure(336776), figure(7.0211), figure(12345.678), figure("2013-01-01T05:00:00+00:00"), figure(None)
    ('336,776', '7.021', '12,346', '2013-01-01 05:00', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, str):
        return _moment(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.4g}"
    return f"{value:.4g}"


def from_to(before: str, after: str) -> str:
    """Both, or one when they are the same.

    >>> from_to("3", "4"), from_to("3", "3")
    ('3 → 4', '3')
    """
    return before if before == after else f"{before}{ARROW}{after}"


def schema_words(column: ColumnDifference) -> str:
    """What became of a column: ``added, Float64``, or its type alone when it stayed."""
    if column.schema == "same":
        return kind(column.type_after or "")
    if column.schema == "retyped":
        return f"retyped, {kind(column.type_before or '')}{ARROW}{kind(column.type_after or '')}"
    return f"{column.schema}, {kind(column.type_after or column.type_before or '')}"


def null_words(column: ColumnDifference) -> str:
    """The share of nulls in both versions."""
    return _each(column, lambda summary: f"{100 * summary.null_rate:.3g} %")


def mean_words(column: ColumnDifference) -> str:
    """The mean of both, or the number of different values of both."""
    return _each(column, _mean)


def range_words(column: ColumnDifference) -> str:
    """The smallest and the greatest value of both."""
    return _each(column, _range)


def row_words(found: Comparison) -> str:
    """How many rows were added, removed and changed, in one sentence.

    With names: ``3 added, 1 removed, 2 changed, told by id``.
    """
    parts = [f"{found.added:,} added", f"{found.removed:,} removed"]
    if found.changed is None:
        return ", ".join(parts)
    return ", ".join([*parts, f"{found.changed:,} changed"]) + f", told by {' and '.join(found.named_by)}"


def differs(column: ColumnDifference) -> bool:
    """Whether anything about the column is another."""
    return column.schema != "same" or bool(column.changed) or column.before != column.after


def differences(column: ColumnDifference) -> list[str]:
    """What differs in the values of a column, each in a few words."""
    cells = "cell" if column.changed == 1 else "cells"
    changed = [f"{column.changed:,} {cells} changed"] if column.changed else []
    mean = "" if column.after and column.after.distinct is not None else "mean "
    facts = {"nulls ": null_words(column), mean: mean_words(column), "from ": range_words(column)}
    is_alone = column.schema in {"added", "removed"}
    return changed + [f"{name}{fact}" for name, fact in facts.items() if ARROW in fact or (is_alone and fact != "–")]


def _each(column: ColumnDifference, say: Callable[[Summary], str]) -> str:
    sides = [say(summary) for summary in (column.before, column.after) if summary is not None]
    return from_to(sides[0], sides[-1]) if sides else "–"


def _mean(summary: Summary) -> str:
    if summary.distinct is not None:
        return f"{summary.distinct:,} different"
    return figure(summary.mean)


def _range(summary: Summary) -> str:
    if summary.minimum is None:
        return "–"
    return f"{figure(summary.minimum)} to {figure(summary.maximum)}"


def _moment(text: str) -> str:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text
    return text if len(text) == len("2013-01-01") else f"{at:%Y-%m-%d %H:%M}"
