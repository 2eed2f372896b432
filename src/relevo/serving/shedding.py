"""Requests that are sent away before they wait: who, why, and when to come again."""

from __future__ import annotations

import math

from relevo.errors import Overloaded

#: Endpoint -> reason -> requests.
Shed = dict[str, dict[str, int]]

#: The worker's own, for requests that are refused before their endpoint is known.
NO_ENDPOINT = ""


class Shedding:
    """Sends requests away, and counts them by endpoint and reason. Belongs to the event loop."""

    def __init__(self) -> None:
        self._counts: Shed = {}

    def counts(self) -> Shed:
        """What was sent away since the worker's boot."""
        return {endpoint: dict(reasons) for endpoint, reasons in self._counts.items()}

    def refusal(self, endpoint: str, reason: str, message: str, retry_after_seconds: float = 1.0) -> Overloaded:
        """The error to raise; it is counted."""
        reasons = self._counts.setdefault(endpoint, {})
        reasons[reason] = reasons.get(reason, 0) + 1
        return Overloaded(message, retry_after_seconds=whole_seconds(retry_after_seconds))


def whole_seconds(seconds: float) -> int:
    """As ``Retry-After`` has it: 1 or more, rounded up.

    >>> whole_seconds(0.02), whole_seconds(2.1)
    (1, 3)
    """
    return max(1, math.ceil(seconds))
