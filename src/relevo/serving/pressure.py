"""How late the event loop is, and which share of the requests has to go so that it keeps up.

What waits for an event loop waits in sockets, where nobody can count it. But a timer that is due fires late by as much
as any of them waits. Of the lags of an interval the smallest counts, so that a burst is no overload (Nichols and
Jacobson 2012, "Controlling queue delay", CoDel); the share to send away follows the lag and its change, by the
proportional-integral rule of PIE (RFC 8033, section 4.2) on a scale of the target.
"""

from __future__ import annotations

import asyncio
from time import monotonic

TICK_SECONDS = 0.01
TICKS = 10
#: The rule's weights for an interval of 100 ms: of the lag above its target, and of its growth.
_ABOVE = 0.05
_GROWTH = 0.25
_LARGEST_SHARE = 0.98


class Controller:
    """The share of the requests to send away, by the lag of each interval.

    Args:
        target_seconds: The lag that may stand.
    """

    def __init__(self, target_seconds: float) -> None:
        self._target = target_seconds
        self._lag = 0.0
        self.share = 0.0

    def update(self, lag_seconds: float) -> None:
        """The smallest lag of an interval."""
        above, growth = lag_seconds - self._target, lag_seconds - self._lag
        step = (_ABOVE * above + _GROWTH * growth) / self._target
        self.share = min(max(self.share + max(min(step, 0.2), -0.2), 0.0), _LARGEST_SHARE)
        self._lag = lag_seconds


class Pressure:
    """Measures the loop that it is started in. Belongs to it.

    Attributes:
        share: Of the requests that have to go, 0 to 0.98: 0 while the loop keeps up.
        lag_seconds: The smallest lag of the last interval.
    """

    def __init__(self, target_seconds: float) -> None:
        self._controller = Controller(target_seconds)
        self._target = target_seconds
        self._turn = 0.0
        self.share = 0.0
        self.lag_seconds = 0.0

    def turns_away(self) -> bool:
        """Whether the next request has to go; ``share`` of them do, evenly."""
        self._turn += self.share
        if self._turn < 1.0:
            return False
        self._turn -= 1.0
        return True

    async def watch(self) -> None:
        """Measure until it is cancelled."""
        while True:
            smallest = await _lag()
            for _ in range(TICKS - 1):
                smallest = min(smallest, await _lag())
            self._controller.update(smallest)
            # While the lag may stand nobody goes, however fast it grows: a few heavy requests are no overload.
            self.share = self._controller.share if smallest > self._target else 0.0
            self.lag_seconds = smallest


async def _lag() -> float:
    due = monotonic() + TICK_SECONDS
    await asyncio.sleep(TICK_SECONDS)
    return max(0.0, monotonic() - due)
