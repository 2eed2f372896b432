"""One entry of the append-only, hash-chained ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from relevo.platform.encoding import digest

#: ``previous_hash`` of the first entry.
GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Entry:
    """A governed action. ``hash`` covers every other field and the hash of the entry before.

    ``workflow_id`` and ``step`` name the workflow step that did it, when one did; at most one entry has each pair.
    """

    sequence: int
    recorded_at: datetime
    event_at: datetime | None
    actor: str
    role: str
    action: str
    subject: str
    reason: str
    evidence: str | None
    facts: dict[str, object]
    previous_hash: str
    hash: str
    workflow_id: str | None = None
    step: str | None = None


def entry_hash(entry: Entry) -> str:
    """SHA-256 of the canonical JSON of every field but ``hash`` itself."""
    return digest({name: getattr(entry, name) for name in Entry.__slots__ if name != "hash"})
