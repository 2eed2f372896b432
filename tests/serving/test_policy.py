"""Splits, shares and percentiles."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.errors import Invalid
from relevo.serving.counters import Tally
from relevo.serving.model import LATENCY_EDGES_MS, Arm, Counters
from relevo.serving.policy import add, bounds, checked_arms, error_rate, latency_ms, p99_ms, since


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ([], "at least one arm"),
        ([Arm(1, 50), Arm(1, 50)], "one arm only"),
        ([Arm(1, 100), Arm(2, 0)], "above 0"),
        ([Arm(1, 90), Arm(2, 5)], "sum to 100 %, got 95"),
        ([Arm(1, math.nan)], "above 0"),
    ],
)
def test_arms_that_are_no_split_are_refused(arms: list[Arm], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        checked_arms(arms)


def test_shares_that_do_not_sum_to_100_are_rescaled() -> None:
    assert bounds([Arm(1, 25), Arm(2, 25)]) == (0.5, 1.0)


@given(st.lists(st.floats(0, 20_000, allow_nan=False), min_size=1, max_size=300))
def test_a_percentile_lies_in_the_bucket_of_the_exact_one(latencies: list[float]) -> None:
    tally = Tally()
    for value in latencies:
        tally.answered(1, value)
    exact = sorted(latencies)[math.ceil(0.99 * len(latencies)) - 1]
    estimate = p99_ms(tally.frozen())
    assert estimate is not None
    low, high = next((low, high) for low, high in pairwise((0.0, *LATENCY_EDGES_MS, math.inf)) if exact <= high)
    assert low <= estimate <= high


def test_a_difference_and_a_sum_undo_each_other() -> None:
    tally = Tally()
    tally.answered(3, 0.4)
    before = tally.frozen()
    tally.answered(1, 60.0, failed=True)
    tally.refused += 1
    after = tally.frozen()
    change = since(after, before)
    assert (change.requests, change.rows, change.failed, change.refused) == (1, 1, 1, 1)
    assert change.latency_ms_total == pytest.approx(60)
    assert add(before, change).latency == after.latency
    assert since(after, None) == after


def test_nothing_counted_has_no_rate_and_no_percentile() -> None:
    assert error_rate(Counters()) is None
    assert p99_ms(Counters()) is None


def test_what_is_slower_than_the_last_edge_keeps_no_bound() -> None:
    tally = Tally()
    tally.answered(1, 60_000)
    assert latency_ms(tally.frozen(), 0.5) == math.inf
