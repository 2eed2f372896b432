"""The words that a team's package declares features with. Light to import."""

from __future__ import annotations

from datetime import timedelta

from relevo.features.model import Aggregation, Calculation, duration


def latest(column: str) -> Calculation:
    """The column of the latest row that was known; null when there is none, or when it is older than the view's ttl."""
    return Calculation(Aggregation.LATEST, column, None)


def since_latest() -> Calculation:
    """Seconds from the latest row's event time to the asked time; null where ``latest`` finds no row."""
    return Calculation(Aggregation.SINCE_LATEST, None, None)


def count(*, over: str | timedelta) -> Calculation:
    """The number of rows that became known in the window ``(asked - over, asked]``; 0 when there are none."""
    return Calculation(Aggregation.COUNT, None, duration(over))


def total(column: str, *, over: str | timedelta) -> Calculation:
    """The sum of the column over the window, nulls left out; 0 when there are no rows."""
    return Calculation(Aggregation.SUM, column, duration(over))


def mean(column: str, *, over: str | timedelta) -> Calculation:
    """The mean of the column over the window, nulls left out; null when nothing is left."""
    return Calculation(Aggregation.MEAN, column, duration(over))
