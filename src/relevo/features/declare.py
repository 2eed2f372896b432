"""The words that a team's package declares features with. Light to import.

``over`` is a window ``(asked - over, asked]`` of the time since when rows count. Nulls and NaN are left out of every
window. ``default`` stands wherever the value would be null.
"""

from __future__ import annotations

from datetime import timedelta

from relevo.features.model import Aggregation, Calculation, Value, duration


def latest(column: str, *, default: Value = None) -> Calculation:
    """The column of the latest row that was known; null when there is none, or when it is older than the view's ttl."""
    return Calculation(Aggregation.LATEST, column, None, default)


def since_latest(*, default: float | None = None) -> Calculation:
    """Seconds from the latest row's event time to the asked time; null where ``latest`` finds no row."""
    return Calculation(Aggregation.SINCE_LATEST, None, None, default)


def count(*, over: str | timedelta, default: int | None = None) -> Calculation:
    """The number of rows that became known in the window; 0 when there are none, null for a null key."""
    return Calculation(Aggregation.COUNT, None, duration(over), default)


def total(column: str, *, over: str | timedelta, default: float | None = None) -> Calculation:
    """The sum of the column over the window, infinities left out; 0 when there are no rows, null for a null key."""
    return Calculation(Aggregation.SUM, column, duration(over), default)


def mean(column: str, *, over: str | timedelta, default: float | None = None) -> Calculation:
    """The mean of the column over the window, infinities left out; null when nothing is left."""
    return Calculation(Aggregation.MEAN, column, duration(over), default)


def minimum(column: str, *, over: str | timedelta, default: float | None = None) -> Calculation:
    """The least number of the column in the window; null when there is none."""
    return Calculation(Aggregation.MINIMUM, column, duration(over), default)


def maximum(column: str, *, over: str | timedelta, default: float | None = None) -> Calculation:
    """The greatest number of the column in the window; null when there is none."""
    return Calculation(Aggregation.MAXIMUM, column, duration(over), default)


def deviation(column: str, *, over: str | timedelta, default: float | None = None) -> Calculation:
    """The sample standard deviation (n - 1) over the window, infinities left out; null below two values."""
    return Calculation(Aggregation.DEVIATION, column, duration(over), default)


def last(column: str, *, over: str | timedelta, default: Value = None) -> Calculation:
    """The value that began to count last in the window; null when there is none.

    ``latest`` looks at one row, the newest event, and gives null where its value is null.
    """
    return Calculation(Aggregation.LAST, column, duration(over), default)


def distinct(column: str, *, over: str | timedelta, default: int | None = None) -> Calculation:
    """The number of different values in the window; 0 when there are none, null for a null key."""
    return Calculation(Aggregation.DISTINCT, column, duration(over), default)
