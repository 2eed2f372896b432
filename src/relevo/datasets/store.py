"""The tables of dataset versions and of what holds them; the only SQL of this concept."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from relevo.datasets.model import DatasetVersion, Hold
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

#: What holds back a version of a source and every later one from being collected: a run, by the id of its workflow.
_holds = sa.Table(
    "dataset_holds",
    metadata,
    sa.Column("model", sa.String(200), primary_key=True),
    sa.Column("source", sa.String(200), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("holder", sa.String(200), primary_key=True),
    sa.Column("held_at", UtcDateTime, nullable=False),
)


def insert(tx: Transaction, version: DatasetVersion) -> None:
    """Add a version that is not there yet."""
    tx.execute(_versions.insert().values(_values(version, _versions.c.keys())))


def update_last_load(tx: Transaction, version: DatasetVersion) -> None:
    """What the last load found, for a version that is there."""
    names = ["checks", "quarantined", "quarantine_version", "origin"]
    tx.execute(_versions.update().where(_is(version)).values(_values(version, names)))


def update_collected(tx: Transaction, version: DatasetVersion) -> None:
    """When a version was collected, and when its files were gone."""
    tx.execute(_versions.update().where(_is(version)).values(_values(version, ["collected_at", "removed_at"])))


def lock(tx: Transaction, model: str) -> None:
    """Hold back everybody else who holds or collects datasets of the model, until the transaction ends."""
    if tx.dialect.name == "postgresql":  # on SQLite a transaction that writes is alone from its beginning
        tx.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(f"relevo datasets {model}"))))


def insert_hold(tx: Transaction, hold: Hold, held_at: datetime) -> None:
    """Add a hold, in place of an earlier one of the same holder on the same source."""
    tx.execute(
        _holds.delete().where(
            _holds.c.model == hold.model, _holds.c.source == hold.source, _holds.c.holder == hold.holder
        )
    )
    tx.execute(_holds.insert().values(**to_json(hold), held_at=held_at))


def holds(tx: Transaction, model: str) -> list[Hold]:
    """Everything that is held of a model."""
    columns = (_holds.c.model, _holds.c.source, _holds.c.version, _holds.c.holder)
    return [Hold(*row) for row in tx.execute(sa.select(*columns).where(_holds.c.model == model))]


def delete_holds(tx: Transaction, holder: str) -> None:
    """Let go of everything that the holder held."""
    tx.execute(_holds.delete().where(_holds.c.holder == holder))


def find(tx: Transaction, model: str, source: str, version: int) -> DatasetVersion | None:
    """The recorded version, or None."""
    row = tx.execute(
        sa.select(_versions).where(
            _versions.c.model == model, _versions.c.source == source, _versions.c.version == version
        )
    ).one_or_none()
    return None if row is None else _version(row)


def last_version(tx: Transaction, model: str, source: str) -> DatasetVersion | None:
    """The version with the highest number, or None."""
    query = sa.select(_versions).where(_versions.c.model == model, _versions.c.source == source)
    row = tx.execute(query.order_by(_versions.c.version.desc()).limit(1)).one_or_none()
    return None if row is None else _version(row)


def names(tx: Transaction) -> list[tuple[str, str]]:
    """Model and source of each dataset, sorted."""
    query = sa.select(_versions.c.model, _versions.c.source).distinct()
    return [(row.model, row.source) for row in tx.execute(query.order_by(_versions.c.model, _versions.c.source))]


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
