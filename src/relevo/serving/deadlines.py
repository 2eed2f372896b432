"""The time that a request has: whatever it waits for is given up when that is over.

Only what really waits is bounded, one wait at a time: a request that is answered in the event loop pays for no timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import perf_counter
from typing import TypeVar

from relevo.errors import RelevoError

T = TypeVar("T")


class DeadlineExceeded(RelevoError):
    """The endpoint's time for a request was over before its answer was ready."""

    code = "deadline_exceeded"
    http_status = 504


async def before(until: float, waiting: Awaitable[T]) -> T:
    """What is awaited; it is cancelled at ``until``, a time of ``perf_counter``.

    Raises:
        DeadlineExceeded: It was not there by then.
    """
    scope = asyncio.timeout(max(0.0, until - perf_counter()))
    try:
        async with scope:
            return await waiting
    except TimeoutError:
        if not scope.expired():
            raise
        raise DeadlineExceeded(
            "The answer was not ready within the time that the endpoint has for a request."
        ) from None
