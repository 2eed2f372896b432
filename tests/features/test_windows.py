"""Windows over arrays agree with looking at each row of each window."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relevo.features import windows

numbers = st.lists(st.one_of(st.just(np.nan), st.integers(-4, 4).map(float)), max_size=40)


@st.composite
def rows_and_windows(draw):
    values = np.array(draw(numbers), dtype=np.float64)
    bounds = st.tuples(st.integers(0, len(values)), st.integers(0, len(values))).map(sorted)
    pairs = draw(st.lists(bounds, min_size=1, max_size=12))
    return values, *np.array(pairs, dtype=np.int64).T


def inside(values, starts, ends):
    for start, end in zip(starts, ends, strict=True):
        window = values[start:end]
        yield window[~np.isnan(window)]


@settings(deadline=None)
@given(rows_and_windows())
def test_extremes(case):
    values, starts, ends = case
    found = windows.extremes(np.fmin, values, starts, ends)
    assert found.tolist() == pytest.approx([min(own, default=np.nan) for own in inside(*case)], nan_ok=True)
    found = windows.extremes(np.fmax, values, starts, ends)
    assert found.tolist() == pytest.approx([max(own, default=np.nan) for own in inside(*case)], nan_ok=True)


@settings(deadline=None)
@given(rows_and_windows(), st.integers(1, 50))
def test_deviations_in_blocks_of_any_size(case, block):
    usual = windows.BLOCK
    windows.BLOCK = block
    try:
        found = windows.deviations(*case)
    finally:
        windows.BLOCK = usual
    expected = [np.std(own, ddof=1) if len(own) > 1 else np.nan for own in inside(*case)]
    assert found.tolist() == pytest.approx(expected, nan_ok=True, abs=1e-12)


@settings(deadline=None)
@given(rows_and_windows())
def test_distinct_counts_and_last_places(case):
    values, starts, ends = case
    previous = np.full(len(values), len(values))
    for place, value in enumerate(values):
        if not np.isnan(value):
            same = np.flatnonzero(values[:place] == value)
            previous[place] = same[-1] if same.size else -1
    found = windows.distinct_counts(previous, starts, ends)
    assert found.tolist() == [len(set(own)) for own in inside(*case)]
    places = windows.last_places(~np.isnan(values), starts, ends)
    assert [None if place < 0 else values[place] for place in places] == [
        own[-1] if own.size else None for own in inside(*case)
    ]


def test_a_small_spread_around_a_large_number_is_not_lost():
    values = 1e9 + np.array([0.001, 0.002, 0.003, 0.004])
    found = windows.deviations(values, np.array([0]), np.array([4]))
    assert found[0] == pytest.approx(np.std(values - 1e9, ddof=1), rel=1e-9)
    assert windows.deviations(np.array([0.1, 0.1, 0.1]), np.array([0]), np.array([3])).tolist() == [0.0]
