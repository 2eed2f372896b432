"""Retention as the control plane composes it: what model versions and workflows under way refer to stays."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from relevo.app.installation import migrate
from relevo.app.schedule import Schedule
from relevo.app.services import Services, compose
from relevo.contract.model import Source
from relevo.datasets.model import LoadedDataset
from relevo.datasets.tables import scan_version, write_version
from relevo.platform.settings import Settings
from relevo.registry import store as registry_store
from relevo.registry.model import ModelVersion, Stage

START = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = Source("rows", "m:rows", ("id",), keep=timedelta(days=1))


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    services = compose(Settings(home=tmp_path / "home"))
    with services.state.transaction() as tx:
        migrate(tx)
    yield services
    services.close()


def _load(services: Services, versions: int) -> Path:
    tables = services.settings.folder("tables", "delay")
    for number in range(versions):
        version, digest, is_new = write_version(tables / "rows", pl.DataFrame({"id": [number]}), {})
        with services.state.transaction() as tx:
            loaded = LoadedDataset("rows", version, digest, 1, {"id": "Int64"}, None, is_new)
            services.datasets.record(tx, "delay", loaded, snapshot="s", workflow_id="w", created_at=START)
    return tables


def test_a_dataset_that_a_model_version_was_trained_on_stays(services: Services) -> None:
    tables = _load(services, 4)
    facts: dict[str, object] = {"datasets": {"rows": {"version": 1, "digest": "d", "rows": 1}}}
    trained = ModelVersion("delay", 7, Stage.ARCHIVED, "b" * 64, "run", "w", START, START, facts)
    with services.state.transaction() as tx:
        registry_store.insert(tx, trained)
    collected = services.retention.collect("delay", [ROWS], START + timedelta(days=9))
    assert sorted(version.version for version in collected) == [0, 2]
    assert scan_version(tables, "rows", 1).collect().rows() == [(1,)]
    assert scan_version(tables, "rows", 3).collect().rows() == [(3,)]


def test_a_hold_of_a_workflow_that_nobody_knows_is_let_go(services: Services) -> None:
    services.workflows.launch()
    _load(services, 1)
    with services.state.transaction() as tx:
        services.datasets.hold(tx, "delay", ["rows"], holder="deliver-lost")
    _load(services, 3)
    collected = services.retention.collect("delay", [ROWS], START + timedelta(days=9))
    assert sorted(version.version for version in collected) == [0, 1]


def test_the_schedule_collects_once_a_day(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, collected = [1000.0], []
    monkeypatch.setattr("relevo.app.schedule.time.monotonic", lambda: seconds[0])
    schedule = Schedule(services)
    monkeypatch.setattr(Services, "collect", lambda _: collected.append(seconds[0]))
    for now in (1000.0, 1001.0, 1000.0 + 86_399, 1000.0 + 86_400, 1000.0 + 86_401):
        seconds[0] = now
        schedule._collect()
    assert collected == [1000.0, 87_400.0]


def test_collecting_without_any_model_does_nothing(services: Services) -> None:
    services.collect()
