"""Exact values of windows over rows that stand sorted, entity by entity. Arrays in, arrays out.

A window is rows ``starts[i]`` to ``ends[i]`` (exclusive) of the values. Work and memory grow with rows and windows, and
not with their product; only ``deviations`` looks at each row of each window, a block of windows at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Integers = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]

#: Values that ``deviations`` looks at in one go.
BLOCK = 2_000_000


def extremes(pick: Callable[[Floats, Floats], Floats], values: Floats, starts: Integers, ends: Integers) -> Floats:
    """The least or greatest value of each window: ``pick`` is ``np.fmin`` or ``np.fmax``, NaN is no value.

    A window is covered by two runs of the same power of two; the best of every such run is worked out once a power.
    """
    found = np.full(starts.shape, np.nan)
    powers = np.frexp((ends - starts).astype(np.float64))[1] - 1  # of two; -1 for an empty window
    best = values
    for power in range(int(powers.max(initial=-1)) + 1):
        run = 1 << power
        own = np.flatnonzero(powers == power)
        found[own] = pick(best[starts[own]], best[ends[own] - run])
        best = pick(best[:-run], best[run:])
    return found


def deviations(values: Floats, starts: Integers, ends: Integers) -> Floats:
    """The sample standard deviation of each window in two passes, NaN left out; NaN below two values.

    The second pass takes off what rounding the mean has added (Chan, Golub, LeVeque 1983, equation 1.7).
    """
    found = np.full(starts.shape, np.nan)
    is_there = ~np.isnan(values)
    before = np.concatenate([[0], np.cumsum(is_there)])
    starts, ends, values = before[starts], before[ends], values[is_there]
    own = np.flatnonzero(ends - starts >= 2)
    lengths = (ends - starts)[own]
    reached = np.cumsum(lengths)
    first = 0
    while first < own.size:
        already = reached[first - 1] if first else 0
        after = max(first + 1, int(np.searchsorted(reached, already + BLOCK, side="right")))
        found[own[first:after]] = _deviations(values, starts[own[first:after]], lengths[first:after])
        first = after
    return found


def _deviations(values: Floats, starts: Integers, lengths: Integers) -> Floats:
    offsets = np.cumsum(lengths) - lengths
    inside = values[np.repeat(starts - offsets, lengths) + np.arange(int(lengths.sum()))]
    with np.errstate(over="ignore", invalid="ignore"):
        inside = inside - np.repeat(np.add.reduceat(inside, offsets) / lengths, lengths)
        squares = np.add.reduceat(inside * inside, offsets) - np.add.reduceat(inside, offsets) ** 2 / lengths
        found = np.sqrt(np.maximum(squares, 0.0) / (lengths - 1))
    return np.where(np.isfinite(found), found, np.nan)


def last_places(is_there: np.ndarray[Any, np.dtype[np.bool_]], starts: Integers, ends: Integers) -> Integers:
    """The row of each window whose value is there and that comes last; -1 where there is none."""
    newest = np.maximum.accumulate(np.where(is_there, np.arange(is_there.size), -1))
    newest = np.concatenate([[-1], newest])[ends]
    return np.where(newest >= starts, newest, -1)


def distinct_counts(previous: Integers, starts: Integers, ends: Integers) -> Integers:
    """How many different values each window holds.

    Args:
        previous: For each row the row before it with the same entity and value, -1 when it is the first; the number of
            rows where there is no value. A value is new to a window where its previous row lies before the window.
        starts: First row of each window.
        ends: Row after the last of each window.
    """
    return _count_below(previous + 1, starts, ends, starts + 1)


def _count_below(values: Integers, starts: Integers, ends: Integers, limits: Integers) -> Integers:
    """How many of ``values[start:end]`` are below the limit; all are at least 0. A wavelet matrix, bit by bit.

    Each step sorts the values by one bit, stably, and moves every window to where its values with the limit's bit are;
    those with the lower bit are counted on the way.
    """
    found = np.zeros(starts.shape, dtype=np.int64)
    highest = max(int(values.max(initial=0)), int(limits.max(initial=0)))
    for bit in reversed(range(highest.bit_length())):
        is_low = (values >> bit) & 1 == 0
        lows = np.concatenate([[0], np.cumsum(is_low)])
        low_starts, low_ends = lows[starts], lows[ends]
        takes_high = (limits >> bit) & 1 == 1
        found += np.where(takes_high, low_ends - low_starts, 0)
        starts = np.where(takes_high, lows[-1] + starts - low_starts, low_starts)
        ends = np.where(takes_high, lows[-1] + ends - low_ends, low_ends)
        values = np.concatenate([values[is_low], values[~is_low]])
    return found
