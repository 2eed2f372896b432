"""Append to the ledger, read it, and prove that nobody changed it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime

from relevo.errors import Corrupted, Invalid
from relevo.identity.model import Principal
from relevo.ledger import store
from relevo.ledger.model import GENESIS, Entry, entry_hash
from relevo.platform.clock import utc_now
from relevo.platform.encoding import to_json
from relevo.platform.state import State, Transaction

_PAGE = 1000  # entries in memory at once while the chain is checked


class Ledger:
    """The append-only record of governed actions. Thread-safe.

    Args:
        state: The state store that holds it.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def append(
        self,
        tx: Transaction,
        *,
        actor: Principal,
        action: str,
        subject: str,
        reason: str = "",
        evidence: str | None = None,
        facts: Mapping[str, object] | None = None,
        event_at: datetime | None = None,
        once: tuple[str, str] | None = None,
    ) -> Entry:
        """Record an action in the caller's transaction, so that both are kept or neither.

        Other appends wait until that transaction ends: make this its last write, and keep it short.

        Args:
            tx: The transaction that does the action.
            actor: Who did it.
            action: What was done, such as ``version promoted``.
            subject: To what, such as ``flight-delay/3``.
            reason: Why, in the actor's words.
            evidence: SHA-256 of the evidence that it rests on.
            facts: Small plain facts, as JSON.
            event_at: Event time that it applies to, when it has one.
            once: ``(workflow_id, step)``; a repeated call returns the first call's entry and records nothing.

        Raises:
            Invalid: When a text holds a NUL, which PostgreSQL cannot keep.
        """
        if "\0" in f"{action}{subject}{reason}":
            raise Invalid("a reason is plain text, got a NUL character in it", field="reason")
        sequence, previous_hash = store.lock_head(tx)
        workflow_id, step = once or (None, None)
        if workflow_id is not None and step is not None:
            first = store.entry_of_step(tx, workflow_id, step)
            if first is not None:
                return first
        entry = Entry(
            sequence=sequence + 1,
            recorded_at=utc_now(),
            event_at=None if event_at is None else event_at.astimezone(UTC),
            actor=actor.name,
            role=actor.role.value,
            action=action,
            subject=subject,
            reason=reason,
            evidence=evidence,
            facts=to_json(dict(facts or {})),
            previous_hash=previous_hash,
            hash="",
            workflow_id=workflow_id,
            step=step,
        )
        entry = dataclasses.replace(entry, hash=entry_hash(entry))
        store.insert_entry(tx, entry)
        return entry

    def entries(self, subject: str | None = None, limit: int = 100, before: int | None = None) -> list[Entry]:
        """The newest entries first; page on with ``before`` = the last one's sequence."""
        with self._state.read() as tx:
            return store.newest_entries(tx, subject=subject, limit=limit, before=before)

    def head(self) -> tuple[int, str]:
        """Sequence and hash of the last entry: kept elsewhere, they pin everything up to it."""
        with self._state.read() as tx:
            return store.read_head(tx)

    def verify(self) -> int:
        """The number of entries, after checking each hash, each link and the end.

        Raises:
            Corrupted: With the first entry that was changed, is missing, or was put in.
        """
        with self._state.read() as tx:
            recorded, last_hash = store.read_head(tx)
            previous, count = GENESIS, 0
            while page := store.entries_after(tx, count, limit=_PAGE):
                for entry in page:
                    _check_link(entry, expected_sequence=count + 1, previous_hash=previous)
                    previous, count = entry.hash, entry.sequence
        if count < recorded:
            raise Corrupted(f"Ledger entry {count + 1} is missing: {recorded} were recorded, {count} are there.")
        if count > recorded:
            raise Corrupted(f"Ledger entry {recorded + 1} was put in: {recorded} were recorded, {count} are there.")
        if previous != last_hash:
            raise Corrupted(f"Ledger entry {count} is not the one that was recorded last: its hash differs.")
        return count


def _check_link(entry: Entry, *, expected_sequence: int, previous_hash: str) -> None:
    if entry.sequence != expected_sequence:
        raise Corrupted(f"Ledger entry {expected_sequence} is missing: {entry.sequence} follows.")
    if entry_hash(entry) != entry.hash:
        raise Corrupted(
            f"Ledger entry {entry.sequence} ({entry.action} {entry.subject}) was changed: its hash differs."
        )
    if entry.previous_hash != previous_hash:
        raise Corrupted(f"Ledger entry {entry.sequence} does not follow the entry before it: the chain is broken.")
