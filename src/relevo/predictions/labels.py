"""Labels as they arrive: acknowledged after the commit, never overwritten silently."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from relevo.errors import Invalid
from relevo.platform.state import State
from relevo.predictions import store
from relevo.predictions.ids import verify


@dataclass(frozen=True, slots=True)
class Label:
    """What happened after a prediction.

    ``value`` is the number of the outcome (0 or 1, the index of the class, or the number itself); None says that there
    is no outcome and never will be (a cancelled flight). ``known_at`` is event time.
    """

    prediction_id: str
    value: float | None
    known_at: datetime


@dataclass(frozen=True, slots=True)
class LabelResult:
    """What became of the labels of one call: two counts, and the ids in conflict and those not issued here."""

    accepted: int
    duplicates: int
    conflicts: list[str]
    unknown: list[str]


@dataclass(slots=True)
class _Sorted:
    """The labels of a call by what is to be done with them."""

    new: list[dict[str, Any]] = field(default_factory=list)
    conflicting: list[dict[str, Any]] = field(default_factory=list)
    duplicates: int = 0


class LabelIntake:
    """Takes labels into their own database. Thread-safe; its calls block, so the gateway makes them in a thread.

    Args:
        url: SQLAlchemy URL of the label database; a new SQLite file gets its tables.
        key: Key of the prediction ids.
        now: Wall clock.
    """

    def __init__(self, url: str, key: bytes, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._state = State(url)
        self._key = key
        self._now = now
        with self._state.transaction() as tx:
            store.create_tables(tx)

    def record(
        self, endpoint: str, endpoint_number: int, labels: Sequence[Label], *, correct: bool = False
    ) -> LabelResult:
        """Store ``labels`` of ``endpoint`` in one transaction; they are on disk when this returns.

        The same value again is a duplicate. Another value is a conflict: it is kept apart and changes nothing, unless
        ``correct`` says that it replaces the last one; then it becomes the next revision. Ids that were forged or
        belong to another endpoint are unknown; the other labels of the call are stored all the same.

        Raises:
            Invalid: A value is not finite, or a time has no offset; nothing is stored.
        """
        for position, label in enumerate(labels):
            _check(label, position)
        unknown = [label.prediction_id for label in labels if not self._is_ours(label.prediction_id, endpoint_number)]
        foreign = set(unknown)
        known = [label for label in labels if label.prediction_id not in foreign]
        with self._state.transaction() as tx:
            store.lock_writers(tx)
            newest = store.newest(tx, list({label.prediction_id for label in known}))
            sorted_labels = _sort(endpoint, known, newest, correct=correct, received_at=self._now())
            store.insert(tx, store.labels, sorted_labels.new)
            store.insert(tx, store.conflicts, sorted_labels.conflicting)
            conflicts = [row["prediction_id"] for row in sorted_labels.conflicting]
            counts = {"duplicates": sorted_labels.duplicates, "conflicting": len(conflicts), "unknown": len(unknown)}
            store.count(tx, endpoint, **counts)
        return LabelResult(len(sorted_labels.new), sorted_labels.duplicates, conflicts, unknown)

    def close(self) -> None:
        """Close the connections."""
        self._state.close()

    def _is_ours(self, prediction_id: str, endpoint_number: int) -> bool:
        try:
            return verify(self._key, prediction_id).endpoint_number == endpoint_number
        except Invalid:
            return False


def _check(label: Label, position: int) -> None:
    if label.value is not None and not math.isfinite(label.value):
        raise Invalid(f"A label must be a finite number, got {label.value}.", field=f"labels[{position}].value")
    if label.known_at.tzinfo is None:
        shown = label.known_at.isoformat()
        raise Invalid(f"A time needs its offset from UTC, got {shown}.", field=f"labels[{position}].known_at")


def _sort(
    endpoint: str,
    labels: Sequence[Label],
    newest: dict[str, tuple[int, float | None]],
    *,
    correct: bool,
    received_at: datetime,
) -> _Sorted:
    """Decide about each label in its order; ``newest`` is brought up to date, so that repeats within a call count."""
    result = _Sorted()
    for label in labels:
        row = {
            "endpoint": endpoint,
            "prediction_id": label.prediction_id,
            "value": label.value,
            "known_at": label.known_at,
            "received_at": received_at,
        }
        revision, value = newest.get(label.prediction_id, (0, None))
        if revision and value == label.value:
            result.duplicates += 1
        elif revision and not correct:
            result.conflicting.append(row)
        else:
            newest[label.prediction_id] = (revision + 1, label.value)
            result.new.append(row | {"revision": revision + 1})
    return result
