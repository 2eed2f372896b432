"""What the collector has done, as the file ``log/collector.json`` that it replaces at least every second."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

PROGRESS_FILE = "collector.json"


@dataclass(slots=True)
class Progress:
    """Counts since the home was made; ``at`` is the heartbeat, in wall time.

    A crash between a commit and this file leaves the counts of that commit out; `PredictionLog.counts` counts the
    tables themselves. ``labels_through`` is the id of the last label that was moved.
    """

    pid: int = 0
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    segments: int = 0
    frames: int = 0
    rows: int = 0
    rows_failed: int = 0
    labels: int = 0
    labels_through: int = 0
    torn_tails: int = 0
    torn_bytes: int = 0
    damaged_segments: int = 0
    damaged_bytes: int = 0
    misfits: int = 0
    errors: int = 0
    last_error: str | None = None


_decode = msgspec.json.Decoder(Progress).decode


def read_progress(log: Path) -> Progress | None:
    """The last progress, or None when there is none that can be read."""
    try:
        return _decode((log / PROGRESS_FILE).read_bytes())
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def write_progress(log: Path, progress: Progress) -> None:
    """Replace the progress file in one step."""
    draft = log / f".{PROGRESS_FILE}"
    draft.write_bytes(msgspec.json.encode(progress))
    draft.replace(log / PROGRESS_FILE)
