"""The migrations make what the code declares, on both databases, and can be run again."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import relevo.app.services  # noqa: F401  # imports every table
from relevo.app.installation import configuration, current_revision, migrate, newest_revision
from relevo.datasets.service import Datasets
from relevo.platform.settings import Settings
from relevo.platform.state import State, metadata
from relevo.serving.model import EndpointSettings
from relevo.serving.service import Serving


def _differences(state: State) -> list[object]:
    labels_are_elsewhere = state.is_sqlite

    def counts(_: object, name: str | None, kind: str, *__: object) -> bool:
        return not (labels_are_elsewhere and kind == "table" and (name or "").startswith("prediction_label"))

    with state.read() as tx:
        options = {"compare_type": True, "include_object": counts}
        return list(compare_metadata(MigrationContext.configure(tx, opts=options), metadata))


def test_the_migrations_make_the_declared_tables(empty_state: State) -> None:
    with empty_state.transaction() as tx:
        migrate(tx)
    assert _differences(empty_state) == []


def test_migrating_again_changes_nothing(empty_state: State) -> None:
    for _ in range(2):
        with empty_state.transaction() as tx:
            migrate(tx)
            assert current_revision(tx) == newest_revision()


def test_a_migrated_ledger_refuses_changes(empty_state: State) -> None:
    with empty_state.transaction() as tx:
        migrate(tx)
        columns = "sequence, recorded_at, actor, role, action, subject, reason, facts, previous_hash, hash"
        tx.exec_driver_sql(
            f"INSERT INTO ledger ({columns}) VALUES (1, '2026-01-01', 'a', 'r', 'x', 's', '', '{{}}', '', '')"
        )
    for change in ("DELETE FROM ledger", "UPDATE ledger SET reason = 'another'"):
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), empty_state.transaction() as tx:
            tx.exec_driver_sql(change)


def test_a_dataset_version_of_the_first_tables_is_kept(empty_state: State) -> None:
    with empty_state.transaction() as tx:
        command.upgrade(configuration(tx), "0001")
        columns = "model, source, version, digest, rows, columns, snapshot, workflow_id, created_at"
        values = "'delay', 'flights', 3, 'd', 7, '{\"id\": \"String\"}', 's', 'w', '2026-01-01 00:00:00'"
        tx.exec_driver_sql(f"INSERT INTO dataset_versions ({columns}) VALUES ({values})")
        migrate(tx)
    (kept,) = Datasets(empty_state).versions("delay")
    assert (kept.version, kept.rows, kept.columns) == (3, 7, {"id": "String"})
    assert (kept.checks, kept.changes, kept.mode, kept.quarantined, kept.collected_at) == ((), (), "full", 0, None)


def test_an_endpoint_of_the_first_tables_keeps_how_it_logs(empty_state: State, tmp_path: Path) -> None:
    with empty_state.transaction() as tx:
        command.upgrade(configuration(tx), "0003")
        tx.exec_driver_sql(
            "INSERT INTO endpoints (name, number, log, created_at) "
            "VALUES ('delay', 1, 'buffered', '2026-01-01 00:00:00')"
        )
        migrate(tx)
    kept = Serving(empty_state, Settings(home=tmp_path)).endpoint("delay")
    assert (kept.number, kept.settings) == (1, EndpointSettings(log="buffered"))
