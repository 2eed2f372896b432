"""How long a call will take, from those before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.runtimes.call_times import CallTimes


def test_nothing_is_said_before_the_first_call() -> None:
    assert CallTimes(1_024).expected(500) == 0.0


def test_calls_of_one_size_say_nothing_of_others() -> None:
    times = CallTimes(1_024)
    for _ in range(30):
        times.add(1, 0.002)
    assert times.expected(500) == pytest.approx(0.002)


@given(
    once=st.floats(0.0, 1.0), each=st.floats(0.0, 0.1), sizes=st.lists(st.integers(1, 1_024), min_size=2, max_size=50)
)
def test_a_line_is_found_again(once: float, each: float, sizes: list[int]) -> None:
    times = CallTimes(1_024)
    for rows in sizes:
        times.add(rows, once + each * rows)
    if len(set(sizes)) > 1:
        assert times.expected(100) == pytest.approx(once + each * 100, rel=1e-3, abs=1e-4)


@given(st.lists(st.tuples(st.integers(1, 20_000), st.floats(0.0, 100.0)), max_size=50), st.integers(1, 20_000))
def test_what_is_expected_is_never_negative(calls: list[tuple[int, float]], rows: int) -> None:
    times = CallTimes(1_024)
    for each in calls:
        times.add(*each)
    assert times.expected(rows) >= 0.0


def test_a_model_that_became_slower_is_believed_within_some_calls() -> None:
    times = CallTimes(1_024)
    for rows in (1, 5, 9) * 20:
        times.add(rows, 0.001 * rows)
    for rows in (1, 5, 9) * 20:
        times.add(rows, 0.1 * rows)
    assert times.expected(10) == pytest.approx(1.0, rel=0.1)


def test_calls_grow_twofold_at_most() -> None:
    times = CallTimes(1_024)
    assert times.largest_rows == 32
    sizes = []
    for _ in range(7):
        times.add(times.largest_rows, 0.001)
        sizes.append(times.largest_rows)
    assert sizes == [64, 128, 256, 512, 1_024, 1_024, 1_024]


def test_sizes_are_known_up_to_the_largest_that_was_seen() -> None:
    times = CallTimes(1_024)
    assert times.knows(16) and not times.knows(17)
    times.add(100, 0.1)
    assert times.knows(100) and not times.knows(101)
