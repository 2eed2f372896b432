"""The tables of dataset versions and of what holds them; the only SQL of this concept."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from relevo.datasets.model import DatasetVersion
from relevo.platform.encoding import parse, to_json
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
    sa.Column("checks", sa.JSON, nullable=False),
    sa.Column("changes", sa.JSON, nullable=False),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Column("quarantined", sa.BigInteger, nullable=False),
    sa.Column("quarantine_version", sa.Integer, nullable=True),
    sa.Column("origin", sa.String(64), nullable=False),
    sa.Column("collected_at", UtcDateTime, nullable=True),
    sa.Column("removed_at", UtcDateTime, nullable=True),
)

#: What holds a version back from being collected, until it lets go: a run, by the id of its workflow.
_pins = sa.Table(
    "dataset_pins",
    metadata,
    sa.Column("model", sa.String(200), primary_key=True),
    sa.Column("source", sa.String(200), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("holder", sa.String(200), primary_key=True),
    sa.Column("and_later", sa.Boolean, nullable=False),
    sa.Column("pinned_at", UtcDateTime, nullable=False),
)


def insert(tx: Transaction, version: DatasetVersion) -> None:
    """Add a version that is not there yet."""
    tx.execute(_versions.insert().values(_values(version, _versions.c.keys())))


def update_last_load(tx: Transaction, version: DatasetVersion) -> None:
    """What the last load found, for a version that is there."""
    names = ["checks", "quarantined", "quarantine_version", "origin"]
    tx.execute(_versions.update().where(_is(version)).values(_values(version, names)))


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


def _is(version: DatasetVersion) -> sa.ColumnElement[bool]:
    return sa.and_(
        _versions.c.model == version.model,
        _versions.c.source == version.source,
        _versions.c.version == version.version,
    )


def _values(version: DatasetVersion, names: list[str]) -> dict[str, Any]:
    values = {name: getattr(version, name) for name in names}
    return values | {name: to_json(values[name]) for name in ("checks", "changes") if name in values}


def _version(row: sa.Row[Any]) -> DatasetVersion:
    return parse(DatasetVersion, {str(name): value for name, value in row._mapping.items()})
