"""The table of model versions, and its only SQL."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from relevo.platform.state import Transaction, UtcDateTime, metadata
from relevo.registry.model import ModelVersion, Stage

model_versions = sa.Table(
    "model_versions",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("bundle", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("workflow_id", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("as_of", UtcDateTime, nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),
)

sa.Index(
    "uq_model_versions_production",
    model_versions.c.model,
    unique=True,
    sqlite_where=model_versions.c.stage == Stage.PRODUCTION.value,
    postgresql_where=model_versions.c.stage == Stage.PRODUCTION.value,
)


def insert(tx: Transaction, version: ModelVersion) -> None:
    """Record a sealed version."""
    tx.execute(
        sa.insert(model_versions).values(
            model=version.model,
            number=version.number,
            stage=version.stage.value,
            bundle=version.bundle,
            run_id=version.run_id,
            workflow_id=version.workflow_id,
            created_at=version.created_at,
            as_of=version.as_of,
            facts=version.facts,
        )
    )


def find(tx: Transaction, model: str, number: int) -> ModelVersion | None:
    """The version, or None."""
    where = (model_versions.c.model == model) & (model_versions.c.number == number)
    row = tx.execute(sa.select(model_versions).where(where)).one_or_none()
    return None if row is None else _version(row)


def find_in_stage(tx: Transaction, model: str, stage: Stage) -> list[ModelVersion]:
    """The versions in that stage, newest first."""
    where = (model_versions.c.model == model) & (model_versions.c.stage == stage.value)
    rows = tx.execute(sa.select(model_versions).where(where).order_by(model_versions.c.number.desc()))
    return [_version(row) for row in rows]


def list_versions(tx: Transaction, model: str) -> list[ModelVersion]:
    """Every version, newest first."""
    where = model_versions.c.model == model
    rows = tx.execute(sa.select(model_versions).where(where).order_by(model_versions.c.number.desc()))
    return [_version(row) for row in rows]


def update_stage(tx: Transaction, model: str, number: int, stage: Stage) -> None:
    """Move a version to a stage."""
    where = (model_versions.c.model == model) & (model_versions.c.number == number)
    tx.execute(sa.update(model_versions).where(where).values(stage=stage.value))


def _version(row: sa.Row[Any]) -> ModelVersion:
    return ModelVersion(
        model=row.model,
        number=row.number,
        stage=Stage(row.stage),
        bundle=row.bundle,
        run_id=row.run_id,
        workflow_id=row.workflow_id,
        created_at=row.created_at,
        as_of=row.as_of,
        facts=row.facts,
    )
