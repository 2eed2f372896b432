"""Tables of contracts: the names of models, which are never reused, and the applied revisions, which never change."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from relevo.contract.model import AppliedContract, Contract
from relevo.platform.encoding import parse, to_json
from relevo.platform.state import Transaction, UtcDateTime, metadata

models = sa.Table(
    "models",
    metadata,
    sa.Column("name", sa.String(63), primary_key=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("deleted_at", UtcDateTime),
)

contracts = sa.Table(
    "contracts",
    metadata,
    sa.Column("model", sa.ForeignKey("models.name"), primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("contract", sa.JSON, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("snapshot", sa.String(64), nullable=False),
    sa.Column("description", sa.JSON, nullable=False),
    sa.Column("git_commit", sa.String(80)),
    sa.Column("applied_by", sa.String(128), nullable=False),
    sa.Column("applied_at", UtcDateTime, nullable=False),
)


def is_deleted(tx: Transaction, model: str) -> bool:
    """Whether the name was used by a model that was deleted."""
    query = sa.select(models.c.deleted_at).where(models.c.name == model)
    return tx.execute(query).scalar() is not None


def mark_deleted(tx: Transaction, model: str, at: datetime) -> None:
    """Take the model out of use; its name and revisions stay."""
    tx.execute(models.update().where(models.c.name == model).values(deleted_at=at))


def insert(tx: Transaction, applied: AppliedContract) -> None:
    """Record a revision, and the model's name with the first one.

    Raises:
        sqlalchemy.exc.IntegrityError: Somebody else recorded that revision.
    """
    if applied.revision == 1:
        tx.execute(models.insert().values(name=applied.model, created_at=applied.applied_at))
    tx.execute(contracts.insert().values(_row(applied)))


def current(tx: Transaction, model: str) -> AppliedContract | None:
    """The newest revision of a model that was not deleted; None when there is none."""
    query = _of_live_models().where(contracts.c.model == model).order_by(contracts.c.revision.desc()).limit(1)
    row = tx.execute(query).mappings().first()
    return None if row is None else _applied(row)


def revision(tx: Transaction, model: str, number: int) -> AppliedContract | None:
    """One revision, also of a deleted model; None when there is none."""
    query = sa.select(contracts).where(contracts.c.model == model, contracts.c.revision == number)
    row = tx.execute(query).mappings().first()
    return None if row is None else _applied(row)


def revisions(tx: Transaction, model: str) -> list[AppliedContract]:
    """Every revision, also of a deleted model, the newest first."""
    query = sa.select(contracts).where(contracts.c.model == model).order_by(contracts.c.revision.desc())
    return [_applied(row) for row in tx.execute(query).mappings()]


def names(tx: Transaction) -> list[str]:
    """The names of the models in use, sorted."""
    return list(tx.execute(sa.select(models.c.name).where(models.c.deleted_at.is_(None)).order_by("name")).scalars())


def _of_live_models() -> sa.Select[Any]:
    return sa.select(contracts).join(models, models.c.name == contracts.c.model).where(models.c.deleted_at.is_(None))


def _row(applied: AppliedContract) -> dict[str, object]:
    return {
        "model": applied.model,
        "revision": applied.revision,
        "contract": to_json(applied.contract),
        "text": applied.text,
        "snapshot": applied.snapshot,
        "description": applied.description,
        "git_commit": applied.git_commit,
        "applied_by": applied.applied_by,
        "applied_at": applied.applied_at,
    }


def _applied(row: sa.RowMapping) -> AppliedContract:
    return AppliedContract(
        model=row["model"],
        revision=row["revision"],
        contract=parse(Contract, _with_log_policy(row["contract"])),
        text=row["text"],
        snapshot=row["snapshot"],
        description=row["description"],
        git_commit=row["git_commit"],
        applied_by=row["applied_by"],
        applied_at=row["applied_at"],
    )


def _with_log_policy(stored: dict[str, object]) -> dict[str, object]:
    """A contract as it is stored; one that was applied before a log could be sampled has one word for its log."""
    return stored | {"log": {"mode": stored["log"]}} if isinstance(stored.get("log"), str) else stored
