"""What the control plane does by itself on the wall clock, over real services in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from team import Project

from relevo.app.schedule import Schedule
from relevo.app.services import Services, compose
from relevo.contract.upload import read_project
from relevo.identity.model import Principal, Role
from relevo.platform.settings import Settings
from relevo.platform.state import metadata
from relevo.serving import heartbeats
from relevo.serving.model import Counters, Heartbeat, LogHealth


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = compose(Settings(home=tmp_path / "home"))
    with made.state.transaction() as tx:
        metadata.create_all(tx)
    yield made
    made.features.close()
    made.log.close()
    made.state.close()


def test_a_dead_loader_is_an_alert_and_windows_are_judged_all_the_same(
    services: Services, make_project: Callable[[str], Project]
) -> None:
    project = make_project("unloaded")
    project.change("parcels/sources.py", "    hours = np.arange", "    raise OSError('gone')\n    hours = np.arange")
    services.contracts.apply(read_project(project.folder), Principal("maya", Role.ENGINEER))
    with services.state.transaction() as tx:
        services.serving.ensure_endpoint(tx, "unloaded")
    schedule = Schedule(services)
    schedule._look("unloaded")  # raises nothing: the look goes on to the windows
    assert schedule.failures == 1
    (alert,) = services.monitoring.alerts(open_only=True, endpoint="unloaded")
    assert alert.kind == "features"
    assert "OSError: gone" in alert.message
    schedule._look("unloaded")  # right after the last try, it is not tried again
    assert schedule.failures == 1


def test_a_full_log_is_an_alert_at_once_and_ends_when_rows_are_logged_again(services: Services) -> None:
    with services.state.transaction() as tx:
        services.serving.ensure_endpoint(tx, "parcels")

    def report(missed: int, error: str | None) -> None:
        heartbeats.write(
            services.settings.folder("gateway"),
            Heartbeat(
                worker=0,
                pid=os.getpid(),
                boot="1",
                at=datetime.now(UTC),
                counters={"parcels": {1: Counters(rows=100, missed_rows=missed)}},
                log=LogHealth(error=error),
            ),
        )

    report(7, "No space left on device")
    schedule = Schedule(services)
    schedule._look_at_the_log()
    (alert,) = services.monitoring.alerts(open_only=True)
    assert (alert.kind, alert.endpoint) == ("log", "parcels")
    assert "7 answered rows were not logged" in alert.message
    assert "No space left on device" in alert.message
    report(7, None)
    for _ in range(3):
        schedule._look_at_the_log()
    assert services.monitoring.alerts(open_only=True) == []
