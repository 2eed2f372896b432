"""From the body of a request to complete rows: decoded, in time, features looked up, transforms computed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from functools import partial

from relevo.errors import Invalid, TooLarge
from relevo.platform.clock import MAX_AHEAD
from relevo.runtimes.decoders import Decoded
from relevo.runtimes.exchange import Exchange, Language, Question
from relevo.serving.deadlines import before
from relevo.serving.live import LiveEndpoint
from relevo.serving.lookups import Lookups
from relevo.serving.versions import LoadedVersion

#: From here on a call takes long enough to hold up others, and goes to a thread.
ROWS_FOR_A_THREAD = 64

#: The same for a body that is to be read.
BYTES_FOR_A_THREAD = 262_144

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_AHEAD_US = MAX_AHEAD // _MICROSECOND


class Inputs:
    """Makes the rows that a version is asked with. Belongs to the event loop.

    Args:
        lookups: The online store.
        threads: Where work goes that would hold up the event loop.
        event_now: Reads an endpoint's event time anew.
    """

    def __init__(
        self,
        lookups: Lookups,
        threads: Executor,
        event_now: Callable[[LiveEndpoint], Awaitable[datetime]],
    ) -> None:
        self._lookups = lookups
        self._threads = threads
        self._event_now = event_now

    async def take(
        self,
        endpoint: LiveEndpoint,
        version: LoadedVersion,
        language: Language,
        question: Question,
        until: float,
        request: Decoded | None = None,
    ) -> tuple[Decoded, list[int]]:
        """The rows as the caller sent them, and the asked time of each in microseconds since 1970.

        ``request`` is given when the version has read the question already.

        Raises:
            DeadlineExceeded: They were not there by ``until``.
            Invalid: The request does not fit the signature, or asks at a time that is not there yet.
            TooLarge: It has too many rows.
        """
        if request is None:
            exchange = version.exchange(language)
            if len(question.body) < BYTES_FOR_A_THREAD and not question.is_dense:
                request = self.read(endpoint, exchange, question)
            else:
                loop = asyncio.get_running_loop()
                reading = loop.run_in_executor(self._threads, self.read, endpoint, exchange, question)
                request = await before(until, reading)
        asked_us = self._asked(endpoint, request)
        if asked_us is None:
            asked_us = await before(until, self._asked_after_reading_the_clock(endpoint, version, request))
        return request, asked_us

    def read(self, endpoint: LiveEndpoint, exchange: Exchange, question: Question) -> Decoded:
        """The rows as the caller sent them. Thread-safe.

        Raises:
            Invalid: The request does not fit the signature; the error names the field.
            TooLarge: It has too many rows.
        """
        request = exchange.decode(question)
        if len(request.rows) > endpoint.limits.rows:
            raise TooLarge(f"A request brings at most {endpoint.limits.rows:,} rows, got {len(request.rows):,}.")
        return request

    def _asked(self, endpoint: LiveEndpoint, request: Decoded) -> list[int] | None:
        """The asked time of each row in microseconds; None when one lies beyond the clock as this worker knows it."""
        now_us = now_us_of(endpoint)
        if request.asked_at is None:
            return [now_us] * len(request.rows)
        latest_us = now_us + _AHEAD_US
        asked_us = [now_us if at is None else (at - _EPOCH) // _MICROSECOND for at in request.asked_at]
        return None if max(asked_us) > latest_us else asked_us

    async def _asked_after_reading_the_clock(
        self, endpoint: LiveEndpoint, version: LoadedVersion, request: Decoded
    ) -> list[int]:
        """As ``_asked``, for a driver that has just advanced the clock.

        Raises:
            Invalid: A row is asked at a time that is not there yet.
        """
        now = await self._event_now(endpoint)
        asked_us = self._asked(endpoint, request)
        if asked_us is not None:
            return asked_us
        row, at = next((row, at) for row, at in enumerate(request.asked_at or ()) if at and at > now + MAX_AHEAD)
        raise Invalid(
            f"Row {row} is asked at {at.isoformat()}, and the event time of {endpoint.name} is {now.isoformat()}; "
            f"at most {MAX_AHEAD.total_seconds():.0f} s ahead are accepted.",
            field=version.signature.at,
        )

    async def fill(self, version: LoadedVersion, request: Decoded, asked_us: list[int], until: float) -> int | None:
        """Look up and compute what the caller did not send; gives how far the store was materialised, in microseconds.

        Raises:
            DeadlineExceeded: It was not there by ``until``.
            Invalid: A view that is required knows no row of an entity.
            LookupFailed: The online store cannot be asked.
        """
        filling = version.filling(request.sent)
        if not (filling.views or filling.needs_computing):
            return None
        at = [_EPOCH + timedelta(microseconds=one) for one in asked_us]
        through: datetime | None = None
        if filling.views:
            through = await self._lookups.look_up(len(at), partial(version.look_up, request, at), until)
        if filling.needs_computing:
            if len(at) < ROWS_FOR_A_THREAD:
                version.compute(request, at)
            else:
                loop = asyncio.get_running_loop()
                await before(until, loop.run_in_executor(self._threads, version.compute, request, at))
        return None if through is None else (through - _EPOCH) // _MICROSECOND


def now_us_of(endpoint: LiveEndpoint) -> int:
    """The endpoint's event time in microseconds since 1970, as far as this worker has read it."""
    if endpoint.replayed_at is None:
        return time.time_ns() // 1000
    return (endpoint.replayed_at - _EPOCH) // _MICROSECOND
