"""Tables of the label intake, and the only SQL on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from relevo.platform.state import Transaction, UtcDateTime, metadata

_ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_IDS_A_QUERY = 500
_WRITER_LOCK = 0x7265_6C61  # any number that no other part of the platform locks

labels = sa.Table(
    "prediction_labels",
    metadata,
    sa.Column("id", _ROW_ID, primary_key=True, autoincrement=True),
    sa.Column("endpoint", sa.String(200), nullable=False),
    sa.Column("prediction_id", sa.String(64), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("value", sa.Float, nullable=True),
    sa.Column("known_at", UtcDateTime, nullable=False),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sa.UniqueConstraint("prediction_id", "revision"),
    sqlite_autoincrement=True,
)

conflicts = sa.Table(
    "prediction_label_conflicts",
    metadata,
    sa.Column("id", _ROW_ID, primary_key=True, autoincrement=True),
    sa.Column("endpoint", sa.String(200), nullable=False, index=True),
    sa.Column("prediction_id", sa.String(64), nullable=False),
    sa.Column("value", sa.Float, nullable=True),
    sa.Column("known_at", UtcDateTime, nullable=False),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sqlite_autoincrement=True,
)

tallies = sa.Table(
    "prediction_label_tallies",
    metadata,
    sa.Column("endpoint", sa.String(200), primary_key=True),
    sa.Column("duplicates", sa.BigInteger, nullable=False, default=0),
    sa.Column("conflicts", sa.BigInteger, nullable=False, default=0),
    sa.Column("unknown", sa.BigInteger, nullable=False, default=0),
)

TABLES = (labels, conflicts, tallies)


@dataclass(frozen=True, slots=True)
class LabelRow:
    """A stored label. ``id`` grows in the order of the commits; ``value`` None says that there is no outcome."""

    id: int
    endpoint: str
    prediction_id: str
    revision: int
    value: float | None
    known_at: datetime
    received_at: datetime


def create_tables(tx: Transaction) -> None:
    """Make the tables that are missing in a label file of its own; in one PostgreSQL the migrations make them."""
    if tx.dialect.name == "sqlite":
        metadata.create_all(tx, tables=TABLES)


def lock_writers(tx: Transaction) -> None:
    """Let one transaction write labels at a time, so that ids are committed in their order (SQLite does so anyway)."""
    if tx.dialect.name == "postgresql":
        tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_WRITER_LOCK)))


def newest(tx: Transaction, prediction_ids: Sequence[str]) -> dict[str, tuple[int, float | None]]:
    """The newest revision and its value for each of the ids that has a label."""
    found: dict[str, tuple[int, float | None]] = {}
    for start in range(0, len(prediction_ids), _IDS_A_QUERY):
        some = prediction_ids[start : start + _IDS_A_QUERY]
        query = sa.select(labels.c.prediction_id, labels.c.revision, labels.c.value).where(
            labels.c.prediction_id.in_(some)
        )
        for prediction_id, revision, value in tx.execute(query.order_by(labels.c.revision)):
            found[prediction_id] = (revision, value)
    return found


def insert(tx: Transaction, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add ``rows`` to ``labels`` or ``conflicts`` in their order."""
    if rows:
        tx.execute(table.insert(), list(rows))


def count(tx: Transaction, endpoint: str, *, duplicates: int, conflicting: int, unknown: int) -> None:
    """Add to what was answered to the senders of labels."""
    if not (duplicates or conflicting or unknown):
        return
    added = tx.execute(
        tallies.update()
        .where(tallies.c.endpoint == endpoint)
        .values(
            duplicates=tallies.c.duplicates + duplicates,
            conflicts=tallies.c.conflicts + conflicting,
            unknown=tallies.c.unknown + unknown,
        )
    )
    if added.rowcount == 0:
        row = {"endpoint": endpoint, "duplicates": duplicates, "conflicts": conflicting, "unknown": unknown}
        tx.execute(tallies.insert(), row)


def counted(tx: Transaction, endpoint: str) -> dict[str, int]:
    """``{"duplicates", "conflicts", "unknown"}`` of the endpoint."""
    row = tx.execute(sa.select(tallies).where(tallies.c.endpoint == endpoint)).one_or_none()
    names = ("duplicates", "conflicts", "unknown")
    return {name: 0 if row is None else int(row._mapping[name]) for name in names}


def last_id(tx: Transaction) -> int:
    """The id of the last committed label, 0 when there is none."""
    return int(tx.execute(sa.select(sa.func.coalesce(sa.func.max(labels.c.id), 0))).scalar_one())


def endpoints(tx: Transaction) -> list[str]:
    """The endpoints that have labels."""
    return list(tx.execute(sa.select(labels.c.endpoint).distinct()).scalars())


def after(tx: Transaction, row_id: int, limit: int) -> list[LabelRow]:
    """At most ``limit`` labels with ids above ``row_id``, in the order of their ids."""
    query = sa.select(labels).where(labels.c.id > row_id).order_by(labels.c.id).limit(limit)
    rows: Iterable[sa.Row[Any]] = tx.execute(query)
    return [LabelRow(**row._mapping) for row in rows]
