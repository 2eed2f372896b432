"""Shadows: versions that are asked with copies of live requests after those were answered, and answer nobody.

A copy waits in a queue of bounded length, and is dropped and counted when that is full. It is asked when the worker is
quiet, or at the latest when its turn comes: under load shadows take a small part of the worker's time, and fall behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from time import perf_counter

import msgspec

from relevo.errors import Unavailable
from relevo.runtimes.decoders import Decoded
from relevo.runtimes.exchange import Language, Predictions, Question
from relevo.serving.comparing import ShadowTallies, are_comparable
from relevo.serving.inputs import Inputs
from relevo.serving.live import LiveEndpoint
from relevo.serving.lookups import LookupFailed
from relevo.serving.predicting import predict
from relevo.serving.recording import Recording
from relevo.serving.splitting import next_in_turn
from relevo.serving.versions import LoadedVersion

logger = logging.getLogger(__name__)

#: Copies, and bytes of them, that wait for one endpoint's shadow in a worker.
MAX_COPIES, MAX_BYTES = 256, 16 << 20
#: How long no request may have come for the worker to count as quiet.
QUIET_SECONDS = 0.001
#: While requests come, the pause between two copies: at least so long, and so many times what the last one took.
TURN_SECONDS, TURN_TIMES = 0.01, 9.0


class Copy(msgspec.Struct, frozen=True, gc=False):
    """An answered request: how it was asked, when its rows were, and what was answered under which ids, one a row."""

    language: Language
    question: Question
    asked_us: list[int]
    ids: list[str]
    predictions: Predictions


class _Lane:
    """The copies that wait for an endpoint's shadow."""

    def __init__(self) -> None:
        self.copies: deque[tuple[LoadedVersion, Copy]] = deque()
        self.bytes = 0
        self.position = 0.0
        self.task: asyncio.Task[None] | None = None


class Shadows:
    """Asks shadows with copies. Belongs to the event loop.

    Args:
        inputs: Makes the rows, by the shadow's own signature.
        recording: Where its answers are logged.
        tallies: Count what it answers.
        threads: Where predictions run that would hold up the event loop; its own, so that callers never wait for them.
        traffic: How many requests the worker has answered so far, and how many are in flight.
    """

    def __init__(
        self,
        inputs: Inputs,
        recording: Recording,
        tallies: ShadowTallies,
        threads: Executor,
        traffic: Callable[[], tuple[int, int]],
    ) -> None:
        self._inputs = inputs
        self._recording = recording
        self._tallies = tallies
        self._threads = threads
        self._traffic = traffic
        self._lanes: dict[str, _Lane] = {}

    def mirror(self, endpoint: LiveEndpoint, answered_by: LoadedVersion, copy: Copy) -> None:
        """Let the endpoint's shadow be asked later, if the request is in the share that it gets. Never waits."""
        shadow, route = endpoint.shadow, endpoint.route
        if shadow is None or route is None or route.shadow is None:
            return
        lane = self._lanes.setdefault(endpoint.name, _Lane())
        if route.shadow.share < 1:
            lane.position = next_in_turn(lane.position)
            if lane.position >= route.shadow.share:
                return
        size = len(copy.question.body)
        if len(lane.copies) >= MAX_COPIES or lane.bytes + size > MAX_BYTES:
            self._tallies.of(endpoint.name, shadow.version).dropped += 1
            return
        lane.copies.append((answered_by, copy))
        lane.bytes += size
        if lane.task is None:
            lane.task = asyncio.get_running_loop().create_task(self._ask_all(endpoint, lane))

    def close(self) -> None:
        """Ask no more; what waits is given up."""
        for lane in self._lanes.values():
            if lane.task is not None:
                lane.task.cancel()

    async def _ask_all(self, endpoint: LiveEndpoint, lane: _Lane) -> None:
        """Ask with the copies one after the other, until none waits."""
        try:
            took = 0.0
            while lane.copies:
                await self._turn(took)
                answered_by, copy = lane.copies.popleft()
                lane.bytes -= len(copy.question.body)
                shadow = endpoint.shadow
                if shadow is None:  # the route has changed
                    continue
                started = perf_counter()
                endpoint.copies_in_flight += 1
                try:
                    with shadow:
                        await self._ask(endpoint, shadow, answered_by, copy)
                except Exception:
                    logger.exception("a copy for %s/%s was lost", shadow.endpoint, shadow.version)
                finally:
                    endpoint.copies_in_flight -= 1
                took = perf_counter() - started
        finally:
            lane.task = None

    async def _turn(self, took: float) -> None:
        """Return when no request came for a moment, or when so much time has passed that it is a shadow's turn."""
        until = perf_counter() + max(TURN_SECONDS, TURN_TIMES * took)
        answered, _ = self._traffic()
        while True:
            await asyncio.sleep(QUIET_SECONDS)
            before, (answered, in_flight) = answered, self._traffic()
            if (answered == before and in_flight == 0) or perf_counter() >= until:
                return

    async def _ask(self, endpoint: LiveEndpoint, shadow: LoadedVersion, answered_by: LoadedVersion, copy: Copy) -> None:
        tally = self._tallies.of(endpoint.name, shadow.version)
        started = perf_counter()
        until = started + endpoint.timeout_seconds
        request: Decoded | None = None
        predictions: Predictions = []
        through_us: int | None = None
        error: str | None = None
        try:
            # When it was asked is known already: the clock has moved since.
            request, _ = await self._inputs.take(endpoint, shadow, copy.language, copy.question, until)
            through_us = await self._inputs.fill(shadow, request, copy.asked_us, until)
            predictions = await predict(shadow, request.rows, self._threads, until)
        except LookupFailed as failure:  # no fault of the version
            tally.unfilled += 1
            error = failure.message
        except Exception as failure:
            error = _words(failure)
            tally.asked((perf_counter() - started) * 1000, failed=True)
            logger.warning("shadow %s/%s could not answer: %s", shadow.endpoint, shadow.version, error)
        else:
            tally.asked((perf_counter() - started) * 1000)
            if are_comparable(answered_by.signature, shadow.signature):
                tally.compared(copy.predictions, predictions, shadow.signature)
        try:
            self._recording.append_shadow(
                endpoint, shadow, request, copy.asked_us, copy.ids, predictions, through_us=through_us, error=error
            )
        except Unavailable:
            tally.unlogged += 1


def _words(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
