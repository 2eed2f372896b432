"""One request for predictions, from the bytes of its body to the bytes of its answer.

Choose an arm, make the rows, predict, log, answer. When the arm is a canary and fails, the failure is logged and
counted against it, and the champion answers instead: a bad canary costs its own record, no caller's request.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from time import perf_counter
from typing import TypeVar

from relevo.errors import Invalid, Overloaded, RelevoError, TooLarge, Unavailable
from relevo.runtimes.decoders import Decoded
from relevo.runtimes.exchange import Answer, Language, Question, Reply
from relevo.serving.deadlines import DeadlineExceeded
from relevo.serving.inputs import Inputs
from relevo.serving.live import LiveEndpoint, Resting
from relevo.serving.lookups import LookupFailed
from relevo.serving.predicting import NotFinite, Predict, predict
from relevo.serving.pressure import Pressure
from relevo.serving.recording import Asked, Recording
from relevo.serving.shadowing import Copy, Shadows
from relevo.serving.shedding import Shedding
from relevo.serving.splitting import key_of
from relevo.serving.versions import LoadedVersion

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: No measurement is larger. Beyond it, an answer that is not finite is the caller's mistake and not the version's.
_MEANINGFUL = 1e100


class VersionFailed(RelevoError):
    """The version that was to answer raised an error; its own message follows."""

    code = "version_failed"


class Invocations:
    """Answers requests for predictions. Belongs to the event loop.

    Args:
        inputs: Makes the rows.
        recording: Where each answer goes before it is given.
        threads: Where predictions run that would hold up the event loop.
        wake: Loads a version that is not in memory.
        shedding: Counts requests that are sent away.
        pressure: Says which have to go so that the event loop keeps up.
        shadows: Ask the versions that get copies of answered requests.
        predict: Asks a version.
    """

    def __init__(
        self,
        inputs: Inputs,
        recording: Recording,
        threads: Executor,
        wake: Callable[[LiveEndpoint, int], Awaitable[None]],
        shedding: Shedding,
        pressure: Pressure,
        shadows: Shadows,
        predict: Predict = predict,
    ) -> None:
        self._inputs = inputs
        self._recording = recording
        self._threads = threads
        self._wake = wake
        self._shedding = shedding
        self._pressure = pressure
        self._shadows = shadows
        self._predict = predict

    async def rouse(self, endpoint: LiveEndpoint, version: int | None = None) -> None:
        """See to it that a version, or else the champion, is in memory, for who needs more of it than predictions.

        Raises:
            Unavailable: It is on its way still.
        """
        wanted = endpoint.route.champion if version is None and endpoint.route is not None else version
        if wanted is not None and endpoint.may_come(wanted):
            await self._wake(endpoint, wanted)

    async def answer(
        self,
        endpoint: LiveEndpoint,
        language: Language,
        question: Question,
        addressed: int | None,
        key: bytes | None = None,
    ) -> Reply:
        """The predictions, once they are logged as the endpoint declares.

        Args:
            endpoint: Whose route decides.
            language: How it is asked, and answered.
            question: The request.
            addressed: The version that the caller names; None leaves it to the route.
            key: What a split sticks to, when the caller names it; None leaves it to the contract's column.

        Raises:
            Invalid: The request does not fit the signature; the error names the field.
            TooLarge: It has too many rows.
            Unavailable: No version is loaded, or the log cannot be written.
            VersionFailed: The version raised an error.
            Overloaded: Too much waits for the version's process.
            DeadlineExceeded: The answer was not ready in the endpoint's time.
        """
        if self._pressure.share and self._pressure.turns_away():
            raise self._shedding.refusal(endpoint.name, "lag", "The gateway does not keep up; try again later.")
        if endpoint.concurrency is not None and endpoint.in_flight >= endpoint.concurrency:
            message = f"{endpoint.concurrency:,} requests to {endpoint.name} are in flight; try again later."
            raise self._shedding.refusal(endpoint.name, "concurrency", message)
        if addressed is not None:
            named = await self._awake(endpoint, partial(endpoint.addressed, addressed))
            return await self._answer(endpoint, named, language, question, counted=False)
        if endpoint.sole is not None:
            return await self._answer(endpoint, endpoint.sole, language, question)
        choose = partial(self._choose, endpoint, language, question, key)
        version, request = await self._awake(endpoint, choose)
        champion = endpoint.champion()
        if champion is None or champion is version:
            return await self._answer(endpoint, version, language, question, request)
        started = perf_counter()
        with champion:  # it may be asked after the canary
            try:
                return await self._answer(endpoint, version, language, question, is_last=False)
            except (VersionFailed, Overloaded, DeadlineExceeded):
                return await self._answer(endpoint, champion, language, question, since=started)
            except Invalid:  # wrong for the canary: if the champion answers it, the canary is what is wrong
                reply = await self._answer(endpoint, champion, language, question, since=started)
                version.tally.answered(0, (perf_counter() - started) * 1000, failed=True)
                return reply

    async def rehearse(self, endpoint: LiveEndpoint, language: Language, question: Question, addressed: int) -> Reply:
        """The version's predictions for a load test: as ``answer`` gives them, and neither logged nor counted.

        There are no prediction ids: what was not logged cannot get a label.

        Raises:
            As ``answer``.
        """
        version = await self._awake(endpoint, partial(endpoint.addressed, addressed))
        with version:
            until = perf_counter() + endpoint.timeout_seconds
            if version.runtime.is_blocking:
                self._check_queue(endpoint, version)
            request, asked_us = await self._inputs.take(endpoint, version, language, question, until)
            try:
                await self._inputs.fill(version, request, asked_us, until)
                predictions = await self._predict(version, request.rows, self._threads, until)
            except (LookupFailed, Invalid):
                raise
            except Exception as error:
                raise _failure(version, error) from error
            return version.exchange(language).encode(request, Answer(predictions, version.version, []))

    async def _awake(self, endpoint: LiveEndpoint, choose: Callable[[], T]) -> T:
        """What ``choose`` gives, once the version that it wants is in memory."""
        try:
            return choose()
        except Resting as resting:
            await self._wake(endpoint, resting.version)
            return choose()

    def _choose(
        self, endpoint: LiveEndpoint, language: Language, question: Question, key: bytes | None
    ) -> tuple[LoadedVersion, Decoded | None]:
        """The arm of a split that answers, and the rows when it was the one that had to read them for their key.

        The first row decides. What cannot be read goes to the arm that could not read it, and is refused there.
        """
        column = endpoint.settings.sticky
        if key or column is None:
            return (endpoint.choose_for(key) if key else endpoint.choose()), None
        reader = endpoint.reader()
        try:
            request = self._inputs.read(endpoint, reader.exchange(language), question)
        except (Invalid, TooLarge):
            return reader, None
        found = key_of(reader.value_of(request, column))
        version = endpoint.choose() if found is None else endpoint.choose_for(found)
        return version, request if version is reader else None

    async def _answer(
        self,
        endpoint: LiveEndpoint,
        version: LoadedVersion,
        language: Language,
        question: Question,
        request: Decoded | None = None,
        *,
        counted: bool = True,
        is_last: bool = True,
        since: float | None = None,
    ) -> Reply:
        """The version's answer.

        ``request`` is given when it has read the question already. ``is_last``: there is no other to ask, so what it
        refuses is the caller's mistake, and all of the request's time is its own; who is not last has half of it.
        ``since`` is when that time began, when it was not now.
        """
        with version:  # it may be unplaced at any wait from here on
            started = perf_counter()
            seconds = endpoint.timeout_seconds
            until = (since or started) + (seconds if is_last else seconds / 2)
            tally = version.tally
            if version.runtime.is_blocking:
                self._check_queue(endpoint, version, is_last=is_last)
            try:
                request, asked_us = await self._inputs.take(endpoint, version, language, question, until, request)
            except (Invalid, TooLarge) as error:
                tally.refused += is_last
                self._recording.refused(endpoint, version, question.body, error)
                raise
            except DeadlineExceeded as error:
                if counted:
                    tally.answered(0, (perf_counter() - started) * 1000, failed=True)
                self._recording.refused(endpoint, version, question.body, error)
                raise
            asked = Asked(endpoint, version, request, asked_us, self._recording.issue(endpoint, asked_us))
            try:
                if version.is_filled:
                    asked.through_us = await self._inputs.fill(version, request, asked_us, until)
                predictions = await self._predict(version, request.rows, self._threads, until)
            except Exception as error:
                told = self._failed(asked, error, started, counted=counted, is_last=is_last)
                if told is error:
                    raise
                raise told from error
            reply = version.exchange(language).encode(request, Answer(predictions, version.version, asked.ids))
            try:
                is_logged = self._recording.append(asked, predictions)
                if is_logged and endpoint.is_durable:
                    await self._recording.durable(endpoint)
            except Unavailable:
                if endpoint.settings.log_when_full == "refuse":
                    tally.unlogged += 1
                    raise
                tally.missed_rows += self._recording.wanted(endpoint, asked.ids)
            if not counted:
                tally.addressed += 1
                return reply
            tally.answered(len(asked.ids), (perf_counter() - started) * 1000)
            if endpoint.shadow is not None:
                self._shadows.mirror(endpoint, version, Copy(language, question, asked_us, asked.ids, predictions))
            return reply

    def _failed(self, asked: Asked, error: Exception, started: float, *, counted: bool, is_last: bool) -> RelevoError:
        """Log and count a request whose rows got no predictions; gives the error to raise."""
        tally = asked.version.tally
        if isinstance(error, LookupFailed):  # no fault of the version, and the champion could not answer either
            told: RelevoError = error
            tally.unfilled += 1
        elif isinstance(error, Invalid):  # a value that the model cannot answer
            told = error
            tally.refused += is_last
        elif isinstance(error, NotFinite) and (refusal := _overflow(asked, error.row)) is not None:
            told = refusal
            tally.refused += is_last
        else:
            told = _failure(asked.version, error)
            logger.error("%s", told.message, exc_info=error)
            if counted:
                tally.answered(len(asked.ids), (perf_counter() - started) * 1000, failed=True)
        self._recording.append(asked, [], told.message)
        return told

    def _check_queue(self, endpoint: LiveEndpoint, version: LoadedVersion, *, is_last: bool = True) -> None:
        """Send a request away that would wait too long for the version's process, before anything is done for it.

        Raises:
            Overloaded: It would. Who is not last has failed; another is asked, and nobody was sent away.
        """
        wait = version.runtime.expected_wait()
        if wait <= endpoint.queue_seconds:
            return
        message = f"Version {version.endpoint}/{version.version} has requests waiting for {wait:.1f} s."
        if not is_last:
            version.tally.answered(0, 0.0, failed=True)
            raise Overloaded(message)
        raise self._shedding.refusal(endpoint.name, "queue", message, wait - endpoint.queue_seconds)


def _overflow(asked: Asked, row: int) -> Invalid | None:
    """The refusal of a number so large that arithmetic with it overflows; None: the version has failed by itself."""
    for column, value in zip(asked.version.signature.inputs, asked.request.rows[row], strict=True):
        if isinstance(value, float | int) and abs(value) > _MEANINGFUL:
            message = f"Row {row}: column {column.name!r} holds {value:g}, for which the prediction is not finite."
            return Invalid(message, field=column.name)
    return None


def _failure(version: LoadedVersion, error: Exception) -> RelevoError:
    if isinstance(error, Overloaded | DeadlineExceeded):
        return error
    text = str(error)
    short = f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
    return VersionFailed(f"Version {version.endpoint}/{version.version} could not answer: {short}")
