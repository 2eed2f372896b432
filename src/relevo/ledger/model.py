"""One entry of the append-only, hash-chained ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """A governed action. ``hash`` covers every other field and the hash of the entry before."""

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
