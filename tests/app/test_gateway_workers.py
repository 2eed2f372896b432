"""Several gateway workers behind one port, kept alive by ``relevo up``."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from running import MODULES, Relevo, descendants, eventually


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Relevo]:
    """A Relevo with two gateway workers."""
    made = Relevo(tmp_path / "home", workers=2)
    try:
        made.start()
        yield made
    finally:
        made.close()


def who_answers(relevo: Relevo, _: int = 0) -> int:
    """The worker that takes a new connection."""
    answer = httpx.get(f"{relevo.gateway}/health", timeout=60)
    assert answer.status_code == 200
    worker: int = answer.json()["worker"]
    return worker


def who_answer(relevo: Relevo) -> set[int]:
    """The workers that take sixteen connections at once."""
    with ThreadPoolExecutor(16) as callers:
        return set(callers.map(lambda number: who_answers(relevo, number), range(16)))


def workers(relevo: Relevo) -> dict[int, psutil.Process]:
    """The processes of the gateway, by their number."""
    assert relevo.process is not None
    found = {}
    for process in descendants(relevo.process.pid):
        command = process.cmdline()
        if MODULES["gateway"] in command:
            found[int(command[command.index("--worker") + 1])] = process
    return found


def test_two_workers_share_the_port_and_a_killed_one_is_missed_by_nobody(pair: Relevo) -> None:
    eventually(lambda: who_answer(pair) == {0, 1}, "both workers to take connections")
    killed = workers(pair)[0]
    os.kill(killed.pid, signal.SIGKILL)
    eventually(lambda: not killed.is_running() or killed.status() == psutil.STATUS_ZOMBIE, "the worker to be dead")
    assert {who_answers(pair) for _ in range(30)} <= {0, 1}
    eventually(lambda: workers(pair).get(0, killed).pid != killed.pid, "the worker to be started again")
    eventually(lambda: who_answer(pair) == {0, 1}, "both workers to take connections again")
    assert "gateway-0 ended with status -9; starting it again in 0.5 s" in pair.said()
    assert "gateway-1 ended" not in pair.said()
