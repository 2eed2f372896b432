"""Looks at features: when their alerts are raised and when they are over."""

from __future__ import annotations

from relevo.monitoring.looks import Looks
from relevo.monitoring.model import AlertKind


def verdicts(kind: AlertKind, *looks: bool) -> list[bool | None]:
    seen = Looks()
    return [seen.judge("delay", kind, is_bad) for is_bad in looks]


def test_stale_features_are_an_alert_on_two_of_three_looks_and_over_after_two_fresh_ones() -> None:
    found = verdicts(AlertKind.FRESHNESS, True, False, True, False, False, True)
    assert found == [None, None, True, None, False, None]


def test_a_failure_to_fill_is_an_alert_at_once_and_over_after_three_looks_without_one() -> None:
    assert verdicts(AlertKind.FEATURES, False, True, False, False, False) == [False, True, True, True, False]


def test_endpoints_and_kinds_are_looked_at_apart() -> None:
    looks = Looks()
    assert looks.judge("a", AlertKind.FRESHNESS, True) is None
    assert looks.judge("b", AlertKind.FRESHNESS, True) is None
    assert looks.judge("a", AlertKind.FEATURES, True) is True
    assert looks.judge("a", AlertKind.FRESHNESS, True) is True
