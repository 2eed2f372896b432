"""One request for predictions, from the bytes of its body to the bytes of its answer.

Choose an arm, decode, look features up, predict, log, answer. When the arm is a canary and fails, the failure is logged
and counted against it, and the champion answers instead: a bad canary costs its own record, no caller's request.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec

from relevo.errors import Invalid, Overloaded, RelevoError, TooLarge, Unavailable
from relevo.platform.clock import MAX_AHEAD
from relevo.predictions import frames
from relevo.predictions.ids import Issuer
from relevo.predictions.segments import SegmentWriter
from relevo.runtimes.decoders import Decoded
from relevo.runtimes.loading import Predictions
from relevo.serving.counters import Tallies
from relevo.serving.live import LiveEndpoint
from relevo.serving.lookups import LookupFailed, Lookups
from relevo.serving.versions import LoadedVersion

logger = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
#: From here on a prediction takes long enough to hold up others, and goes to a thread.
_ROWS_FOR_A_THREAD = 64
_AHEAD_US = MAX_AHEAD // _MICROSECOND
_encode = msgspec.json.Encoder().encode


class VersionFailed(RelevoError):
    """The version that was to answer raised an error; its own message follows."""

    code = "version_failed"


class _Answer(msgspec.Struct, frozen=True, gc=False):
    predictions: Predictions
    version: int
    prediction_ids: list[str]


@dataclass(frozen=True, slots=True)
class Log:
    """Where answers are logged: one writer for durable endpoints, one for buffered ones, and the key of the ids."""

    durable: SegmentWriter
    buffered: SegmentWriter
    key: bytes
    boot: int


class Invocations:
    """Answers requests for predictions. Belongs to the event loop.

    Args:
        log: Where each answer goes before it is given.
        lookups: The online store.
        tallies: This worker's counters.
        threads: Where predictions run that would hold up the event loop.
        event_now: Reads an endpoint's event time anew.
        max_rows: Rows that one request may bring.
    """

    def __init__(
        self,
        log: Log,
        lookups: Lookups,
        tallies: Tallies,
        threads: Executor,
        event_now: Callable[[LiveEndpoint], Awaitable[datetime]],
        max_rows: int,
    ) -> None:
        self._log = log
        self._lookups = lookups
        self._tallies = tallies
        self._threads = threads
        self._event_now = event_now
        self._max_rows = max_rows
        self._issuers: dict[int, Issuer] = {}

    async def answer(self, endpoint: LiveEndpoint, body: bytes, addressed: int | None) -> bytes:
        """The JSON of the predictions, once they are logged as the endpoint declares.

        Args:
            endpoint: Whose route decides.
            body: The request's body.
            addressed: The version that the caller names; None leaves it to the route.

        Raises:
            Invalid: The request does not fit the signature; the error names the field.
            TooLarge: It has too many rows.
            Unavailable: No version is loaded, or the log cannot be written.
            VersionFailed: The version raised an error.
            Overloaded: Too many rows wait for the version's process.
        """
        if addressed is not None:
            return await self._only(endpoint, endpoint.addressed(addressed), body, counted=False)
        version = endpoint.choose()
        champion = endpoint.champion()
        if champion is None or champion is version:
            return await self._only(endpoint, version, body, counted=True)
        started = time.perf_counter()
        try:
            return await self._answer(endpoint, version, body, counted=True)
        except (VersionFailed, Overloaded):
            return await self._only(endpoint, champion, body, counted=True)
        except Invalid:  # wrong for the canary: if the champion answers it, the canary is what is wrong
            answer = await self._only(endpoint, champion, body, counted=True)
            tally = self._tallies.of(endpoint.name, version.version)
            tally.answered(0, (time.perf_counter() - started) * 1000, failed=True)
            return answer

    async def _only(self, endpoint: LiveEndpoint, version: LoadedVersion, body: bytes, *, counted: bool) -> bytes:
        """The version's answer, with no other to ask; a request that it refuses is the caller's mistake."""
        try:
            return await self._answer(endpoint, version, body, counted=counted)
        except (Invalid, TooLarge):
            self._tallies.of(endpoint.name, version.version).refused += 1
            raise

    async def _answer(self, endpoint: LiveEndpoint, version: LoadedVersion, body: bytes, *, counted: bool) -> bytes:
        started = time.perf_counter()
        tally = self._tallies.of(endpoint.name, version.version)
        try:
            request = version.decode(body)
            if len(request.rows) > self._max_rows:
                raise TooLarge(f"A request brings at most {self._max_rows:,} rows, got {len(request.rows):,}.")
            asked_us = self._asked(endpoint, request)
            if asked_us is None:
                asked_us = await self._asked_after_reading_the_clock(endpoint, version, request)
        except (Invalid, TooLarge) as error:
            self._log_refusal(endpoint, version, body, error)
            raise
        ids = self._issue(endpoint, asked_us)
        through_us: int | None = None
        try:
            if version.needs_lookup(request.sent):
                through_us = await self._look_up(version, request, asked_us)
            if version.needs_computing(request.sent):
                await self._compute(version, request, asked_us)
            predictions = await self._predict(version, request.rows)
        except LookupFailed as error:  # no fault of the version, and the champion could not answer either
            tally.unfilled += 1
            self._append(endpoint, version, request, asked_us, ids, [], None, error.message)
            raise
        except Invalid as error:  # a value that the model cannot answer
            self._append(endpoint, version, request, asked_us, ids, [], through_us, error.message)
            raise
        except Exception as error:
            failure = (
                error
                if isinstance(error, Overloaded)
                else VersionFailed(f"Version {endpoint.name}/{version.version} could not answer: {_short(error)}")
            )
            logger.error("%s", failure.message, exc_info=error)
            if counted:
                tally.answered(len(ids), (time.perf_counter() - started) * 1000, failed=True)
            self._append(endpoint, version, request, asked_us, ids, [], through_us, failure.message)
            raise failure from error
        answer = _encode(_Answer(predictions, version.version, ids))
        try:
            self._append(endpoint, version, request, asked_us, ids, predictions, through_us, None)
            if endpoint.is_durable:
                await self._log.durable.durable()
        except Unavailable:
            tally.unlogged += 1
            raise
        if counted:
            tally.answered(len(ids), (time.perf_counter() - started) * 1000)
        else:
            tally.addressed += 1
        return answer

    def _asked(self, endpoint: LiveEndpoint, request: Decoded) -> list[int] | None:
        """The asked time of each row in microseconds; None when one lies beyond the clock as this worker knows it."""
        replayed_at = endpoint.replayed_at
        now_us = time.time_ns() // 1000 if replayed_at is None else (replayed_at - _EPOCH) // _MICROSECOND
        latest_us = now_us + _AHEAD_US
        asked_us = []
        for at in request.asked_at:
            at_us = now_us if at is None else (at - _EPOCH) // _MICROSECOND
            if at_us > latest_us:
                return None
            asked_us.append(at_us)
        return asked_us

    async def _asked_after_reading_the_clock(
        self, endpoint: LiveEndpoint, version: LoadedVersion, request: Decoded
    ) -> list[int]:
        """As ``_asked``, for a driver that has just advanced the clock."""
        now = await self._event_now(endpoint)
        asked_us = self._asked(endpoint, request)
        if asked_us is not None:
            return asked_us
        row, at = next((row, at) for row, at in enumerate(request.asked_at) if at and at > now + MAX_AHEAD)
        raise Invalid(
            f"Row {row} is asked at {at.isoformat()}, and the event time of {endpoint.name} is {now.isoformat()}; "
            f"at most {MAX_AHEAD.total_seconds():.0f} s ahead are accepted.",
            field=version.signature.at,
        )

    def _issue(self, endpoint: LiveEndpoint, asked_us: list[int]) -> list[str]:
        issuer = self._issuers.get(endpoint.number)
        if issuer is None:
            issuer = self._issuers[endpoint.number] = Issuer(self._log.key, endpoint.number, self._log.boot)
        first = asked_us[0]
        if len(asked_us) == 1 or all(at == first for at in asked_us):
            return issuer.issue(first, len(asked_us))
        return [issuer.issue(at, 1)[0] for at in asked_us]

    async def _look_up(self, version: LoadedVersion, request: Decoded, asked_us: list[int]) -> int | None:
        """Look up what the caller did not send; gives how far the store was materialised, in microseconds."""
        at = _times(asked_us)
        through = await self._lookups.look_up(len(at), partial(version.look_up, request, at))
        return None if through is None else (through - _EPOCH) // _MICROSECOND

    async def _compute(self, version: LoadedVersion, request: Decoded, asked_us: list[int]) -> None:
        """Compute what the caller did not send, from what was sent and looked up."""
        at = _times(asked_us)
        if len(at) < _ROWS_FOR_A_THREAD:
            version.compute(request, at)
        else:
            await asyncio.get_running_loop().run_in_executor(self._threads, version.compute, request, at)

    async def _predict(self, version: LoadedVersion, rows: list[list[object]]) -> Predictions:
        runtime = version.runtime
        if not runtime.is_blocking and len(rows) < _ROWS_FOR_A_THREAD:
            predictions = runtime.predict(rows)
        else:
            version.hold()
            try:
                if runtime.is_blocking:
                    predictions = await runtime.predict_async(rows)
                else:
                    loop = asyncio.get_running_loop()
                    predictions = await loop.run_in_executor(self._threads, runtime.predict, rows)
            finally:
                version.release()
        for value in predictions:
            if not (math.isfinite(value) if isinstance(value, float) else all(map(math.isfinite, value))):
                raise ValueError(f"it gave {value}, which is not finite")
        return predictions

    def _append(
        self,
        endpoint: LiveEndpoint,
        version: LoadedVersion,
        request: Decoded,
        asked_us: list[int],
        ids: list[str],
        predictions: Predictions,
        through_us: int | None,
        error: str | None,
    ) -> None:
        writer = self._log.durable if endpoint.is_durable else self._log.buffered
        writer.append(
            frames.encode(
                frames.Record(
                    endpoint=endpoint.name,
                    version=version.version,
                    logged_at_us=time.time_ns() // 1000,
                    asked_at_us=asked_us,
                    ids=ids,
                    layout=version.layout,
                    inputs=request.rows,
                    keys=[list(key.values()) for key in request.keys] if version.signature.keys else [],
                    predictions=predictions,
                    materialised_through_us=through_us,
                    request_id=request.request_id,
                    status="ok" if error is None else "failed",
                    error=error,
                    looked_up=version.looked_up(request.sent),
                )
            )
        )

    def _log_refusal(self, endpoint: LiveEndpoint, version: LoadedVersion, body: bytes, error: RelevoError) -> None:
        """Log a request that was not understood, as far as the log takes it: the caller is refused either way."""
        now_us = (endpoint.now() - _EPOCH) // _MICROSECOND
        record = frames.Record(
            endpoint=endpoint.name,
            version=version.version,
            logged_at_us=time.time_ns() // 1000,
            asked_at_us=[now_us],
            ids=[],
            layout=frames.NO_LAYOUT,
            inputs=[],
            keys=[],
            predictions=[],
            status="failed",
            error=error.message,
            body=body[: frames.MAX_BODY_BYTES],
        )
        writer = self._log.durable if endpoint.is_durable else self._log.buffered
        try:
            writer.append(frames.encode(record))
        except Unavailable as unavailable:
            logger.warning("a refused request was not logged: %s", unavailable.message)


def _times(asked_us: list[int]) -> list[datetime]:
    return [_EPOCH + timedelta(microseconds=one) for one in asked_us]


def _short(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
