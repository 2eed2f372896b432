"""The table of dataset versions; the only SQL of this concept."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from relevo.datasets.model import DatasetVersion
from relevo.platform.state import Transaction, UtcDateTime, metadata

_versions = sa.Table(
    "dataset_versions",
    metadata,
    sa.Column("model", sa.String(200), primary_key=True),
    sa.Column("source", sa.String(200), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("columns", sa.JSON, nullable=False),
    sa.Column("known_through", UtcDateTime, nullable=True),
    sa.Column("snapshot", sa.String(64), nullable=False),
    sa.Column("workflow_id", sa.String(200), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)


def insert(tx: Transaction, version: DatasetVersion) -> None:
    """Add a version that is not there yet."""
    tx.execute(_versions.insert().values({name: getattr(version, name) for name in _versions.c.keys()}))  # noqa: SIM118


def find(tx: Transaction, model: str, source: str, version: int) -> DatasetVersion | None:
    """The recorded version, or None."""
    row = tx.execute(
        sa.select(_versions).where(
            _versions.c.model == model, _versions.c.source == source, _versions.c.version == version
        )
    ).one_or_none()
    return None if row is None else _version(row)


def versions(tx: Transaction, model: str, source: str | None) -> list[DatasetVersion]:
    """Versions of a model's sources, by source, newest first."""
    query = sa.select(_versions).where(_versions.c.model == model)
    if source is not None:
        query = query.where(_versions.c.source == source)
    return [_version(row) for row in tx.execute(query.order_by(_versions.c.source, _versions.c.version.desc()))]


def _version(row: sa.Row[Any]) -> DatasetVersion:
    return DatasetVersion(**row._mapping)
