"""What the retraining rule decided on a final window, and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Decision:
    """One evaluation of the rule. ``fired`` says that a training was started; ``reason`` always says why or why not."""

    model: str
    window_end: datetime
    window_revision: int
    fired: bool
    reason: str
    release: str | None
    event_at: datetime  # event time of the decision: what a training may know
    decided_at: datetime
