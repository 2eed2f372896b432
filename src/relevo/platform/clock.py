"""The two clocks: wall time, and each endpoint's event time with its watermark."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from relevo.errors import Conflict, Invalid
from relevo.platform.state import State, Transaction, UtcDateTime, metadata

#: How far beyond the event clock a caller's event may lie; later ones are refused.
MAX_AHEAD = timedelta(seconds=60)

watermarks = sa.Table(
    "watermarks",
    metadata,
    sa.Column("endpoint", sa.String(128), primary_key=True),
    sa.Column("mode", sa.String(8), nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("advanced_at", UtcDateTime, nullable=False),
    sa.CheckConstraint("mode IN ('wall', 'replay')", name="ck_watermarks_mode"),
)


def utc_now() -> datetime:
    """Wall time, aware, in UTC."""
    return datetime.now(UTC)


class EventClock:
    """Event time of each endpoint: the wall clock, or in a replay only what its driver declares.

    Thread-safe. An endpoint is in ``wall`` mode until a replay starts; a replay's clock never goes back.

    Args:
        state: Where the watermarks are kept.
        wall: Gives wall time; a test may give its own.
    """

    def __init__(self, state: State, wall: Callable[[], datetime] = utc_now) -> None:
        self._state = state
        self._wall = wall

    def now(self, endpoint: str, tx: Transaction | None = None) -> datetime:
        """The endpoint's event time. Give the open transaction when there is one."""
        return self._replayed(endpoint, tx) or self._wall()

    def is_replay(self, endpoint: str, tx: Transaction | None = None) -> bool:
        """Whether a replay drives the endpoint's event time."""
        return self._replayed(endpoint, tx) is not None

    def replays(self) -> dict[str, datetime]:
        """The event time of every endpoint that a replay drives; the others are on the wall clock."""
        with self._state.read() as tx:
            rows = tx.execute(sa.select(watermarks.c.endpoint, watermarks.c.at).where(watermarks.c.mode == "replay"))
            return {row.endpoint: row.at for row in rows}

    def start_replay(self, tx: Transaction, endpoint: str, at: datetime) -> None:
        """Put the endpoint's event time at ``at`` and under the replay's control. Repeating it is harmless.

        Raises:
            Conflict: When a replay has already passed ``at``.
        """
        _require_aware(at)
        current = self._replayed(endpoint, tx)
        if current is not None:
            self.advance(tx, endpoint, at)
            return
        row = {"mode": "replay", "at": at, "advanced_at": self._wall()}
        changed = tx.execute(watermarks.update().where(watermarks.c.endpoint == endpoint).values(row))
        if changed.rowcount == 0:
            tx.execute(watermarks.insert().values(endpoint=endpoint, **row))

    def advance(self, tx: Transaction, endpoint: str, at: datetime) -> None:
        """Declare that every event up to ``at`` has been sent. The same time again changes nothing.

        Raises:
            Conflict: When ``at`` lies before the watermark, or no replay drives the endpoint.
        """
        _require_aware(at)
        # One statement decides and writes: two drivers cannot pass each other between a read and a write.
        is_ahead = (watermarks.c.endpoint == endpoint) & (watermarks.c.mode == "replay") & (watermarks.c.at <= at)
        changed = tx.execute(watermarks.update().where(is_ahead).values(at=at, advanced_at=self._wall()))
        if changed.rowcount:
            return
        current = self._replayed(endpoint, tx)
        if current is None:
            raise Conflict(f"The event time of {endpoint} is the wall clock; start a replay before advancing it.")
        raise Conflict(
            f"The event time of {endpoint} is {current.isoformat()} and never goes back, got {at.isoformat()}.",
            field="at",
        )

    def _replayed(self, endpoint: str, tx: Transaction | None) -> datetime | None:
        """The replay's watermark, or None on the wall clock."""
        if tx is None:
            with self._state.read() as own:
                return self._replayed(endpoint, own)
        query = sa.select(watermarks.c.at).where(watermarks.c.endpoint == endpoint, watermarks.c.mode == "replay")
        at: datetime | None = tx.execute(query).scalar_one_or_none()
        return at


def _require_aware(at: datetime) -> None:
    if at.tzinfo is None:
        raise Invalid(f"an event time needs an offset such as +00:00, got {at.isoformat()}", field="at")
