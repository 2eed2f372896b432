"""What every durable workflow is doing now, and what it waits for: one row a workflow, for pages and replay drivers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import sqlalchemy as sa

from relevo.platform.state import State, Transaction, UtcDateTime, metadata


class ActivityState(StrEnum):
    """A replay driver goes on only when nothing is ``WORKING``."""

    WORKING = "working"
    WAITING = "waiting"
    DONE = "done"


activities = sa.Table(
    "activities",
    metadata,
    sa.Column("workflow_id", sa.String(255), primary_key=True),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("model", sa.String(255), nullable=True),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Activity:
    """One workflow's present. ``text`` says what it does, or what it waits for, in words."""

    workflow_id: str
    kind: str
    model: str | None
    state: ActivityState
    text: str
    updated_at: datetime


class Activities:
    """Reads and writes the activities. Thread-safe; each call is its own short transaction."""

    def __init__(self, state: State) -> None:
        self._state = state

    def begin(self, workflow_id: str, kind: str, model: str | None) -> None:
        """Make the row of a workflow that is about to start; nothing happens when it is there already."""
        with self._state.transaction() as tx:
            if tx.execute(sa.select(1).where(activities.c.workflow_id == workflow_id)).first() is None:
                values = {"kind": kind, "model": model, "state": ActivityState.WORKING, "text": "starting"}
                tx.execute(
                    sa.insert(activities).values(workflow_id=workflow_id, updated_at=datetime.now(UTC), **values)
                )

    def set(self, workflow_id: str, state: ActivityState, text: str = "") -> None:
        """Say what a workflow does now. Unknown workflows are ignored."""
        with self._state.transaction() as tx:
            tx.execute(
                sa.update(activities)
                .where(activities.c.workflow_id == workflow_id)
                .values(state=state, text=text, updated_at=datetime.now(UTC))
            )

    def wake(self, workflow_id: str) -> None:
        """A waiting workflow counts as working from now on: a message is on its way to it."""
        with self._state.transaction() as tx:
            tx.execute(
                sa.update(activities)
                .where(activities.c.workflow_id == workflow_id, activities.c.state == ActivityState.WAITING)
                .values(state=ActivityState.WORKING, text="a message came", updated_at=datetime.now(UTC))
            )

    def open(self, tx: Transaction | None = None) -> list[Activity]:
        """Every workflow that is not done, the newest first."""
        return self._select(activities.c.state != ActivityState.DONE, tx)

    def of(self, model: str, tx: Transaction | None = None) -> list[Activity]:
        """Every workflow of a model that is not done, the newest first."""
        return self._select(sa.and_(activities.c.model == model, activities.c.state != ActivityState.DONE), tx)

    def _select(self, condition: sa.ColumnElement[bool], tx: Transaction | None) -> list[Activity]:
        query = sa.select(activities).where(condition).order_by(activities.c.updated_at.desc())
        if tx is None:
            with self._state.read() as reading:
                rows = reading.execute(query).all()
        else:
            rows = tx.execute(query).all()
        return [
            Activity(row.workflow_id, row.kind, row.model, ActivityState(row.state), row.text, row.updated_at)
            for row in rows
        ]
