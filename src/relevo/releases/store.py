"""The tables of releases, evidence and approvals, and their only SQL."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from relevo.platform.encoding import parse, to_json
from relevo.platform.state import Transaction, UtcDateTime, metadata
from relevo.releases.model import Approval, Evidence, Release, ReleaseState

releases = sa.Table(
    "releases",
    metadata,
    sa.Column("id", sa.String(255), primary_key=True),
    sa.Column("model", sa.String(64), nullable=False, index=True),
    sa.Column("contract_revision", sa.Integer, nullable=False),
    sa.Column("version", sa.Integer),
    sa.Column("state", sa.String(32), nullable=False, index=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("requested_by", sa.String(128), nullable=False),
    sa.Column("evidence", sa.String(64)),
    sa.Column("outcome", sa.Text),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("event_at", UtcDateTime, nullable=False),
)

OPEN = [state.value for state in ReleaseState if state.is_open]
_IS_OPEN = sa.text("state IN (" + ", ".join(f"'{state}'" for state in OPEN) + ")")
# Two releases of one model would move the same route.
sa.Index("uq_releases_open", releases.c.model, unique=True, sqlite_where=_IS_OPEN, postgresql_where=_IS_OPEN)

evidence = sa.Table(
    "evidence",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("model", sa.String(64), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Index("ix_evidence_model_version", "model", "version"),
)

approvals = sa.Table(
    "approvals",
    metadata,
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("principal", sa.String(128), primary_key=True),
    sa.Column("approved", sa.Boolean, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("evidence", sa.String(64), nullable=False),
    sa.Column("given_at", UtcDateTime, nullable=False),
)


def add_release(tx: Transaction, release: Release) -> None:
    """Record a release that begins.

    Raises:
        sqlalchemy.exc.IntegrityError: Another release of the model is under way.
    """
    tx.execute(sa.insert(releases).values({column.name: getattr(release, column.name) for column in releases.columns}))


def update_release(tx: Transaction, release_id: str, updated_at: datetime, **values: object) -> None:
    """Change the named columns of a release."""
    tx.execute(sa.update(releases).where(releases.c.id == release_id).values(updated_at=updated_at, **values))


def find_release(tx: Transaction, release_id: str, *, lock: bool = False) -> Release | None:
    """The release of that id; with ``lock`` nobody else changes it until the transaction ends."""
    query = sa.select(releases).where(releases.c.id == release_id)
    row = tx.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else _release(row)


def open_release(tx: Transaction, model: str, *, lock: bool = False) -> Release | None:
    """The release of the model that is under way."""
    query = sa.select(releases).where(releases.c.model == model, releases.c.state.in_(OPEN))
    row = tx.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else _release(row)


def select_releases(
    tx: Transaction,
    *,
    model: str | None = None,
    states: Collection[ReleaseState] | None = None,
    limit: int | None = None,
) -> list[Release]:
    """Releases, the newest first, of one model or in some states when given."""
    query = sa.select(releases).order_by(releases.c.started_at.desc(), releases.c.id.desc()).limit(limit)
    if model is not None:
        query = query.where(releases.c.model == model)
    if states is not None:
        query = query.where(releases.c.state.in_([state.value for state in states]))
    return [_release(row) for row in tx.execute(query)]


def add_evidence(tx: Transaction, found: Evidence) -> None:
    """Keep evidence; the same digest again changes nothing."""
    if find_evidence(tx, found.digest) is None:
        body = to_json(found)
        tx.execute(sa.insert(evidence).values(digest=found.digest, model=found.model, version=found.version, body=body))


def find_evidence(tx: Transaction, digest: str) -> Evidence | None:
    """The evidence of that digest."""
    body = tx.execute(sa.select(evidence.c.body).where(evidence.c.digest == digest)).scalar_one_or_none()
    return None if body is None else parse(Evidence, body)


def evidence_of(tx: Transaction, model: str, version: int) -> Evidence | None:
    """The evidence of a version: the last that its release recorded, which adds to what was known before."""
    of_version = (evidence.c.model == model) & (evidence.c.version == version)
    is_last = releases.c.evidence == evidence.c.digest
    query = sa.select(evidence.c.body).outerjoin(releases, is_last).where(of_version).order_by(releases.c.id.is_(None))
    body = tx.execute(query).scalars().first()
    return None if body is None else parse(Evidence, body)


def add_approval(tx: Transaction, approval: Approval) -> None:
    """Record a person's word."""
    tx.execute(
        sa.insert(approvals).values({column.name: getattr(approval, column.name) for column in approvals.columns})
    )


def approvals_of(tx: Transaction, model: str, version: int) -> list[Approval]:
    """Every word given on a version, the oldest first."""
    query = sa.select(approvals).where(approvals.c.model == model, approvals.c.version == version)
    return [Approval(**row._mapping) for row in tx.execute(query.order_by(approvals.c.given_at))]


def _release(row: sa.Row[Any]) -> Release:
    return Release(**dict(row._mapping) | {"state": ReleaseState(row.state)})
