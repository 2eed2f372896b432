"""The table of the ledger, which refuses changes, and the row that names its last entry."""

from __future__ import annotations

import json

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from relevo.ledger.model import GENESIS, Entry
from relevo.platform.encoding import canonical
from relevo.platform.state import Transaction, UtcDateTime, metadata

ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("recorded_at", UtcDateTime, nullable=False),
    sa.Column("event_at", UtcDateTime),
    sa.Column("actor", sa.String(128), nullable=False),
    sa.Column("role", sa.String(32), nullable=False),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("subject", sa.String(256), nullable=False, index=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("evidence", sa.String(64)),
    sa.Column("facts", sa.Text, nullable=False),  # canonical JSON: the bytes that the hash covers
    sa.Column("previous_hash", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Column("workflow_id", sa.String(256)),
    sa.Column("step", sa.String(128)),
    sa.UniqueConstraint("workflow_id", "step"),
)

#: One row: what the last entry is. Locking it serialises appends; it also betrays entries cut off at the end.
ledger_head = sa.Table(
    "ledger_head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sequence", sa.Integer, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)

#: What makes the table append-only, by database; run after it is created, by the metadata and by the migrations.
APPEND_ONLY_DDL: dict[str, tuple[str, ...]] = {
    "sqlite": (
        """CREATE TRIGGER ledger_no_update BEFORE UPDATE ON ledger
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
        """CREATE TRIGGER ledger_no_delete BEFORE DELETE ON ledger
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
        # INSERT OR REPLACE deletes without firing the delete trigger.
        """CREATE TRIGGER ledger_in_order BEFORE INSERT ON ledger
        WHEN NEW.sequence <> (SELECT coalesce(max(sequence), 0) + 1 FROM ledger)
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: entries come in order'); END""",
    ),
    "postgresql": (
        """CREATE OR REPLACE FUNCTION ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$""",
        """CREATE TRIGGER ledger_no_change BEFORE UPDATE OR DELETE ON ledger
        FOR EACH ROW EXECUTE FUNCTION ledger_refuse()""",
        """CREATE TRIGGER ledger_no_truncate BEFORE TRUNCATE ON ledger
        FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse()""",
    ),
}

for _dialect, _statements in APPEND_ONLY_DDL.items():
    for _statement in _statements:
        _ddl = sa.DDL(_statement)  # type: ignore[no-untyped-call]
        sa.event.listen(ledger, "after_create", _ddl.execute_if(dialect=_dialect))


def lock_head(tx: Transaction) -> tuple[int, str]:
    """Sequence and hash of the last entry. Holds back every other append until the transaction ends."""
    insert = sqlite.insert if tx.dialect.name == "sqlite" else postgresql.insert
    tx.execute(insert(ledger_head).values(id=1, sequence=0, hash=GENESIS).on_conflict_do_nothing())
    return _head(tx, sa.select(ledger_head).with_for_update())


def read_head(tx: Transaction) -> tuple[int, str]:
    """Sequence and hash that the last entry should have; ``(0, GENESIS)`` before the first."""
    return _head(tx, sa.select(ledger_head))


def insert_entry(tx: Transaction, entry: Entry) -> None:
    """Append the entry and move the head to it."""
    row = {name: getattr(entry, name) for name in Entry.__slots__} | {"facts": canonical(entry.facts).decode()}
    tx.execute(ledger.insert().values(row))
    tx.execute(ledger_head.update().values(sequence=entry.sequence, hash=entry.hash))


def entry_of_step(tx: Transaction, workflow_id: str, step: str) -> Entry | None:
    """The entry that the workflow step made, or None."""
    row = tx.execute(ledger.select().where(ledger.c.workflow_id == workflow_id, ledger.c.step == step)).one_or_none()
    return None if row is None else _entry(row)


def newest_entries(tx: Transaction, *, subject: str | None, limit: int, before: int | None) -> list[Entry]:
    """At most ``limit`` entries, the newest first, of one subject or all, with a sequence below ``before``."""
    query = ledger.select().order_by(ledger.c.sequence.desc()).limit(limit)
    if subject is not None:
        query = query.where(ledger.c.subject == subject)
    if before is not None:
        query = query.where(ledger.c.sequence < before)
    return [_entry(row) for row in tx.execute(query)]


def entries_after(tx: Transaction, sequence: int, limit: int) -> list[Entry]:
    """At most ``limit`` entries with a sequence above the given one, in order."""
    query = ledger.select().where(ledger.c.sequence > sequence).order_by(ledger.c.sequence).limit(limit)
    return [_entry(row) for row in tx.execute(query)]


def _head(tx: Transaction, query: sa.Select[tuple[int, int, str]]) -> tuple[int, str]:
    row = tx.execute(query).one_or_none()
    return (0, GENESIS) if row is None else (row.sequence, row.hash)


def _entry(row: sa.Row[tuple[object, ...]]) -> Entry:
    fields = dict(row._mapping)
    return Entry(**fields | {"facts": json.loads(fields["facts"])})
