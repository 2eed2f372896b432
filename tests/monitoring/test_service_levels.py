"""Counts by minute and hour from the gateway's reports, and alerts that are raised and resolved by them."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from relevo.contract.model import Release, ServiceLevel
from relevo.monitoring import store
from relevo.monitoring.burn import Counted
from relevo.monitoring.model import Alert, AlertKind, Severity
from relevo.monitoring.service_levels import HOUR, ServiceLevels
from relevo.serving import heartbeats
from relevo.serving.model import LATENCY_EDGES_MS, Arm, Counters, Heartbeat
from relevo.serving.policy import add

from .conftest import BEGIN, ENDPOINT, World

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


class Gateway:
    """Reports as workers write them, boot by boot."""

    def __init__(self, world: World) -> None:
        self._folder = world.settings.folder("gateway")
        self._boots: dict[str, dict[int, Counters]] = {}

    def answer(self, requests: int, *, boot: str = "a", version: int = 1, failed: int = 0, slow: int = 0) -> None:
        buckets = [0] * (len(LATENCY_EDGES_MS) + 1)
        buckets[bisect_left(LATENCY_EDGES_MS, 1.0)] = requests - slow
        buckets[bisect_left(LATENCY_EDGES_MS, 200.0)] += slow
        counted = Counters(requests=requests, failed=failed, latency=tuple(buckets))
        versions = self._boots.setdefault(boot, {})
        versions[version] = add(versions.get(version, Counters()), counted)
        heartbeats.write(self._folder, Heartbeat(0, 1, boot, datetime.now(UTC), counters={ENDPOINT: versions}))


@pytest.fixture
def gateway(world: World) -> Gateway:
    return Gateway(world)


@pytest.fixture
def levels(world: World, contract: Any) -> ServiceLevels:
    world.apply(replace(contract, release=Release(slo=ServiceLevel(p99_ms=50, error_rate=0.001))))
    return again(world)


def again(world: World) -> ServiceLevels:
    """As after a restart of the control plane."""
    return ServiceLevels(world.state, monitoring=world.monitoring, serving=world.serving)


def total(levels: ServiceLevels) -> Counted:
    hours = [counted for _, counted in levels.hours(ENDPOINT, START - timedelta(days=40))]
    return Counted(*(sum(each) for each in zip(*hours, strict=True))) if hours else Counted()


def open_alerts(world: World) -> list[Alert]:
    return list(world.monitoring.alerts(open_only=True, endpoint=ENDPOINT))


def test_requests_are_counted_once_over_boots_and_restarts(
    world: World, gateway: Gateway, levels: ServiceLevels
) -> None:
    gateway.answer(500, failed=500)
    levels.look(START)  # what came before the first look is not counted
    assert total(levels) == Counted()
    gateway.answer(100, failed=2, slow=3)
    levels.look(START + timedelta(minutes=1))
    levels.look(START + timedelta(minutes=2))
    gateway.answer(50, boot="b", failed=1)
    levels = again(world)
    levels.look(START + timedelta(hours=1))
    assert levels.hours(ENDPOINT, START) == [
        (START, Counted(100, 2, 3)),
        (START + timedelta(hours=1), Counted(50, 1, 0)),
    ]


def test_a_burning_budget_is_an_alert_that_ends_after_the_failures(
    world: World, gateway: Gateway, levels: ServiceLevels
) -> None:
    gateway.answer(0)
    levels.look(START)
    gateway.answer(1000, failed=30)
    levels.look(START + timedelta(minutes=1))
    (alert,) = open_alerts(world)
    assert (alert.kind, alert.severity) == (AlertKind.ERROR_BUDGET, Severity.CRITICAL)
    assert "30.0 times as fast as it may: 3.00% of 1,000 requests in 1h failed" in alert.message
    levels.look(START + timedelta(minutes=2))
    assert [one.id for one in open_alerts(world)] == [alert.id]
    gateway.answer(50_000)  # and none of them failed
    levels.look(START + timedelta(hours=2))
    levels.look(START + timedelta(hours=9))
    assert open_alerts(world) == []


def test_an_alert_is_stated_anew_when_a_page_becomes_a_ticket(
    world: World, gateway: Gateway, levels: ServiceLevels
) -> None:
    gateway.answer(0)
    levels.look(START)
    gateway.answer(1000, failed=30)
    levels.look(START + timedelta(minutes=1))
    levels.look(START + timedelta(hours=2))
    (alert,) = open_alerts(world)
    assert alert.severity is Severity.WARNING
    assert len(world.monitoring.alerts(endpoint=ENDPOINT)) == 2


def test_slow_requests_burn_a_budget_of_their_own(world: World, gateway: Gateway, levels: ServiceLevels) -> None:
    gateway.answer(0)
    levels.look(START)
    gateway.answer(1000, slow=300)
    levels.look(START + timedelta(minutes=1))
    assert [alert.kind for alert in open_alerts(world)] == [AlertKind.LATENCY_BUDGET]
    errors, latency = levels.states(ENDPOINT, START + timedelta(minutes=1))
    assert (errors.left, latency.left) == (1.0, pytest.approx(-29.0))
    assert latency.burn["1h"] == pytest.approx(30.0)


def test_what_a_canary_failed_does_not_burn_the_budget(world: World, gateway: Gateway, levels: ServiceLevels) -> None:
    with world.state.transaction() as tx:
        for version in (2,):
            world.serving.place(tx, ENDPOINT, version, "b" * 64)
        arms = (Arm(1, 50.0), Arm(2, 50.0))
        world.serving.set_route(tx, ENDPOINT, arms, reason="canary", set_by="relevo", effective_event_at=BEGIN)
    gateway.answer(0)
    gateway.answer(0, version=2)
    levels.look(START)
    gateway.answer(500, version=2, failed=500)
    gateway.answer(1000)
    levels.look(START + timedelta(minutes=1))
    assert total(levels) == Counted(1000, 0, 0)
    assert open_alerts(world) == []


def test_what_is_kept_is_bounded(world: World, gateway: Gateway, levels: ServiceLevels) -> None:
    gateway.answer(0)
    levels.look(START)
    for hour in range(0, 40 * 24, 5):
        gateway.answer(10)
        levels.look(START + timedelta(hours=hour))
    with world.state.read() as tx:
        rows = tx.execute(sa.select(store.service_level_counts)).all()
    assert len([row for row in rows if row.seconds == HOUR]) <= 30 * 24 / 5 + 2
    assert len([row for row in rows if row.seconds != HOUR]) <= 3
