"""The table of the retraining rule's decisions, and its only SQL."""

from __future__ import annotations

import sqlalchemy as sa

from relevo.platform.state import Transaction, UtcDateTime, metadata
from relevo.retraining.model import Decision

decisions = sa.Table(
    "retraining_decisions",
    metadata,
    sa.Column("model", sa.String(64), primary_key=True),
    sa.Column("window_end", UtcDateTime, primary_key=True),
    sa.Column("window_revision", sa.Integer, nullable=False),
    sa.Column("fired", sa.Boolean, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("release", sa.String(255)),
    sa.Column("event_at", UtcDateTime, nullable=False),
    sa.Column("decided_at", UtcDateTime, nullable=False),
)


def add_decision(tx: Transaction, decision: Decision) -> None:
    """Record a decision."""
    tx.execute(
        sa.insert(decisions).values({column.name: getattr(decision, column.name) for column in decisions.columns})
    )


def select_decisions(tx: Transaction, model: str) -> list[Decision]:
    """Every decision on a model, the newest window first."""
    query = sa.select(decisions).where(decisions.c.model == model).order_by(decisions.c.window_end.desc())
    return [Decision(**row._mapping) for row in tx.execute(query)]
