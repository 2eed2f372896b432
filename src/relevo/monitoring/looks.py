"""Verdicts about what is looked at again and again, not window by window: whether to raise, resolve, or wait."""

from __future__ import annotations

import threading
from collections import defaultdict, deque

from relevo.monitoring.model import AlertKind
from relevo.monitoring.policy import hysteresis

#: How many bad looks of the last so many raise an alert.
ENOUGH = {AlertKind.FRESHNESS: (2, 3), AlertKind.FEATURES: (1, 3), AlertKind.LOG: (1, 3)}


class Looks:
    """Remembers the last looks at each endpoint, in memory: after a restart alerts wait for new ones. Thread-safe.

    Freshness is stale on two of three looks, and fresh again after two in a row. A failure to bring features up to
    date, or to log a prediction, is an alert at once; three looks in a row without one end it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: defaultdict[tuple[str, AlertKind], deque[bool]] = defaultdict(lambda: deque(maxlen=3))

    def judge(self, endpoint: str, kind: AlertKind, is_bad: bool) -> bool | None:
        """Take another look into account: True raises, False resolves, None leaves the alert as it is."""
        k, n = ENOUGH[kind]
        with self._lock:
            seen = self._seen[endpoint, kind]
            seen.append(is_bad)
            return hysteresis(list(seen), k, n)
