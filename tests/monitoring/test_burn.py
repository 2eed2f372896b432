"""Error budgets: the numbers of the rules, what callers saw, counters that begin anew."""

from __future__ import annotations

from bisect import bisect_left
from datetime import timedelta

import pytest

from relevo.contract.model import ServiceLevel
from relevo.monitoring import burn
from relevo.monitoring.burn import PERIOD, RULES, Counted
from relevo.monitoring.model import AlertKind, Severity
from relevo.serving.model import LATENCY_EDGES_MS, Counters

SLO = ServiceLevel(p99_ms=50, error_rate=0.001)
ERRORS, LATENCY = burn.objectives(SLO)


NOTHING = Counted()


def windows(default: Counted = NOTHING, **by_window: Counted) -> dict[timedelta, Counted]:
    named = {burn.format_duration(window): window for window in burn.WINDOWS}
    return dict.fromkeys(burn.WINDOWS, default) | {named[name]: counted for name, counted in by_window.items()}


def answered(
    requests: int, *, failed: int = 0, slow_ms: float | None = None, slow: int = 0, unlogged: int = 0
) -> Counters:
    buckets = [0] * (len(LATENCY_EDGES_MS) + 1)
    buckets[bisect_left(LATENCY_EDGES_MS, 1.0)] = requests - slow
    if slow_ms is not None:
        buckets[bisect_left(LATENCY_EDGES_MS, slow_ms)] += slow
    return Counters(requests=requests, failed=failed, unlogged=unlogged, latency=tuple(buckets))


def test_each_rule_uses_the_share_of_the_budget_that_the_workbook_names() -> None:
    spent = [rule.factor * (rule.long / PERIOD) for rule in RULES]
    assert spent == pytest.approx([0.02, 0.05, 0.10])
    assert [rule.long / rule.short for rule in RULES] == [12, 12, 12]


@pytest.mark.parametrize(
    ("long", "short", "rate", "severity"),
    [
        ("1h", "5m", 0.0144, Severity.CRITICAL),
        ("6h", "30m", 0.006, Severity.CRITICAL),
        ("3d", "6h", 0.001, Severity.WARNING),
    ],
)
def test_a_rule_holds_from_its_factor_on_in_both_windows(
    long: str, short: str, rate: float, severity: Severity
) -> None:
    at = Counted(100_000, round(rate * 100_000))
    below = Counted(100_000, round(rate * 100_000) - 1)
    found = burn.judge("delay", ERRORS, windows(**{long: at, short: at}))
    assert (found.is_raised, found.severity, found.kind) == (True, severity, AlertKind.ERROR_BUDGET)
    assert burn.judge("delay", ERRORS, windows(**{long: below, short: at})).is_raised is False
    assert burn.judge("delay", ERRORS, windows(**{long: at, short: below})).is_raised is False


def test_an_alert_ends_with_the_short_window_though_the_long_one_still_shows_the_failures() -> None:
    long = Counted(10_000, 500)
    assert burn.judge("delay", ERRORS, windows(**{"1h": long, "5m": Counted(800, 40)})).is_raised is True
    assert burn.judge("delay", ERRORS, windows(**{"1h": long, "5m": Counted(800, 0)})).is_raised is False


@pytest.mark.parametrize(
    ("counted", "is_raised"),
    [
        (Counted(10, 1), False),  # one of ten
        (Counted(49, 49), False),  # too few requests to be a rate
        (Counted(1000, 4), False),  # too few failures
        (Counted(50, 5), True),
        (Counted(60, 60), True),  # an outage at low traffic
    ],
)
def test_little_traffic_is_no_page(counted: Counted, is_raised: bool) -> None:
    assert burn.judge("delay", ERRORS, windows(**{"1h": counted, "5m": counted})).is_raised is is_raised


def test_slow_requests_use_a_budget_of_one_in_a_hundred() -> None:
    slow = Counted(1000, 0, 144)
    found = burn.judge("delay", LATENCY, windows(Counted(1000, 0, 100), **{"1h": slow, "5m": slow}))
    assert (found.is_raised, found.kind) == (True, AlertKind.LATENCY_BUDGET)
    assert found.message == (
        "delay burns its budget 14.4 times as fast as it may: 14.40% of 1,000 requests in 1h took more than 50 ms, "
        "allowed are 1.00% (14.4 times in the last 5m). Of the 30 days' budget, it is spent 10.0 times over."
    )
    assert burn.judge("delay", ERRORS, windows(slow)).is_raised is False


def test_an_error_rate_of_zero_burns_at_the_first_failures() -> None:
    errors, _ = burn.objectives(ServiceLevel(50, 0.0))
    counted = Counted(1000, 5)
    assert burn.judge("delay", errors, windows(counted)).is_raised is True
    assert burn.judge("delay", errors, windows(Counted(1000, 0))).is_raised is False


def test_what_is_left_of_the_budget_is_of_the_whole_period() -> None:
    state = burn.state_of(ERRORS, windows(**{"30d": Counted(100_000, 25), "1h": Counted(100, 1)}))
    assert (state.left, state.bad, state.requests) == (pytest.approx(0.75), 25, 100_000)
    assert state.burn == {"5m": None, "30m": None, "1h": pytest.approx(10.0), "6h": None, "3d": None}


def test_callers_did_not_see_what_a_canary_failed_and_did_see_what_was_turned_away() -> None:
    counted = {1: answered(95, failed=1, unlogged=3, slow=2, slow_ms=80), 2: answered(10, failed=5)}
    assert burn.seen_by_callers(counted, {2}, 50) == Counted(requests=103, failed=4, slow=2)
    assert burn.seen_by_callers(counted, set(), 50) == Counted(requests=108, failed=9, slow=2)


def test_counters_begin_at_the_first_reading_and_go_on_when_reports_were_deleted() -> None:
    before = {1: answered(100, failed=10)}
    assert burn.increase(before, None) == {}
    assert burn.increase({1: answered(150, failed=11), 2: answered(7)}, before) == {
        1: answered(50, failed=1),
        2: answered(7),
    }
    assert burn.increase({1: answered(40)}, before) == {}
    assert burn.increase({2: answered(7)}, before) == {}
