"""The event loop's lag, and the share of requests that goes: simulated, in a real loop, and at the real gateway."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_home import ENDPOINT, Home, live_home

from relevo.serving.pressure import Controller, Pressure

INTERVAL = 0.1


def settled(load: float, cost: float = 0.002, refusal: float = 0.0001) -> tuple[float, float]:
    """Queue in seconds and share after two minutes of ``load`` times the capacity."""
    controller, queue = Controller(0.1), 0.0
    for _ in range(1_200):
        work = load / cost * INTERVAL * ((1 - controller.share) * cost + controller.share * refusal)
        queue = max(0.0, queue + work - INTERVAL)
        controller.update(queue)
    return queue, controller.share


@pytest.mark.parametrize("load", [0.1, 0.5, 0.95])
def test_nobody_is_sent_away_below_the_capacity(load: float) -> None:
    assert settled(load) == (0.0, 0.0)


@pytest.mark.parametrize("load", [1.2, 1.5, 2.0, 4.0])
def test_above_it_the_queue_stands_at_its_target(load: float) -> None:
    queue, share = settled(load)
    assert queue == pytest.approx(0.1, rel=0.1)
    assert share == pytest.approx((1 - 1 / load) / (1 - 0.05), rel=0.05)


@pytest.mark.parametrize("load", [6.0, 8.0])
def test_far_above_it_the_queue_stays_near_its_target(load: float) -> None:
    assert 0.05 < settled(load)[0] < 0.2


def test_one_late_interval_is_forgotten() -> None:
    controller = Controller(0.1)
    controller.update(0.3)
    for _ in range(20):
        controller.update(0.0)
    assert controller.share == 0.0


def test_the_share_is_spread_evenly() -> None:
    pressure = Pressure(0.1)
    pressure.share = 0.25
    assert [pressure.turns_away() for _ in range(8)] == [False, False, False, True] * 2


def test_a_loop_that_is_held_up_is_under_pressure_until_it_is_not() -> None:
    async def run() -> None:
        pressure = Pressure(0.005)
        watching = asyncio.create_task(pressure.watch())
        while pressure.share < 0.3:
            await asyncio.sleep(0)
            time.sleep(0.03)  # as a slow model in the loop would
        assert pressure.lag_seconds > 0.005
        while pressure.share > 0.0:
            await asyncio.sleep(0.05)
        watching.cancel()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_lag_that_may_stand_sends_nobody_away_however_it_grows() -> None:
    async def run() -> None:
        pressure = Pressure(1.0)
        watching = asyncio.create_task(pressure.watch())
        for held_up_seconds in (0.0, 0.05, 0.1, 0.05):  # growing by twofold, and far from a second
            pressure.lag_seconds = -1.0
            while pressure.lag_seconds < 0:
                await asyncio.sleep(0)
                time.sleep(held_up_seconds)
            assert pressure.share == 0.0
        watching.cancel()

    asyncio.run(asyncio.wait_for(run(), 60))


@pytest.fixture
def hurried(tmp_path: Path) -> Iterator[Home]:
    with live_home(tmp_path / "home", gateway_lag_ms=10) as home:
        yield home


def test_a_worker_that_gets_no_processor_sends_a_share_away_until_it_keeps_up(hurried: Home) -> None:
    worker, is_over = hurried.workers[0], threading.Event()

    def hold_up() -> None:
        while not is_over.is_set():
            os.kill(worker.pid, signal.SIGSTOP)
            time.sleep(0.1)
            os.kill(worker.pid, signal.SIGCONT)
            time.sleep(0.002)

    holding = threading.Thread(target=hold_up)
    with hurried.client() as client:
        assert hurried.predict(client).status_code == 200
        holding.start()
        try:
            hurried.eventually(lambda: hurried.predict(client).status_code == 429, 60)
            refused: list[str] = []

            def is_refused() -> bool:
                answer = hurried.predict(client)
                refused.append(answer.headers.get("retry-after", ""))
                return answer.status_code == 429

            hurried.eventually(is_refused, 60)
            assert refused[-1] == "1"
            assert client.get("/health").status_code == 200
        finally:
            is_over.set()
            holding.join()
        hurried.eventually(lambda: [hurried.predict(client).status_code for _ in range(50)] == [200] * 50, 60)
        lines = client.get("/metrics").text.splitlines()
    shed = f'relevo_shed_requests_total{{endpoint="{ENDPOINT}",reason="lag"}}'
    assert any(line.startswith(shed) for line in lines)
