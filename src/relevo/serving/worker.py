"""A gateway worker: ``python -m relevo.serving.worker --fd N --worker K``.

Serves the listening socket that it inherits; several workers share one. Follows the state store on its own, so that it
goes on while the control plane is away.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

import uvicorn
from sqlalchemy.exc import SQLAlchemyError

from relevo.errors import Unavailable
from relevo.identity.service import Identity
from relevo.platform.clock import EventClock
from relevo.platform.logging import configure_logging
from relevo.platform.objects import Objects
from relevo.platform.processes import die_with_supervisor
from relevo.platform.settings import Settings
from relevo.platform.state import State
from relevo.predictions.ids import load_key, new_boot
from relevo.predictions.labels import LabelIntake
from relevo.predictions.segments import SegmentWriter
from relevo.registry.bundles import BundleCache
from relevo.serving import heartbeats, loader, metrics
from relevo.serving.calls import Receive, Scope, Send
from relevo.serving.comparing import ShadowTallies
from relevo.serving.connections import Connection
from relevo.serving.counters import Tallies
from relevo.serving.explaining import Explanations
from relevo.serving.gateway import Gateway
from relevo.serving.inputs import Inputs
from relevo.serving.invocation import Invocations
from relevo.serving.labelling import Labelling
from relevo.serving.limits import Limits
from relevo.serving.live import LiveEndpoint
from relevo.serving.live_endpoints import LiveEndpoints
from relevo.serving.lookups import Lookups
from relevo.serving.model import Heartbeat, LogHealth, Placement
from relevo.serving.predicting import predict
from relevo.serving.pressure import Pressure
from relevo.serving.rates import Rates
from relevo.serving.recording import Log, Recording
from relevo.serving.residency import Residency
from relevo.serving.shadowing import Shadows
from relevo.serving.shedding import Shedding
from relevo.serving.tracing import open_traces
from relevo.serving.versions import LoadedVersion
from relevo.serving.watch import Snapshot, StateWatch, Tokens

logger = logging.getLogger(__name__)

T = TypeVar("T")

POLL_SECONDS = 0.1
REPORT_SECONDS = 1.0
FIRST_LOAD_SECONDS = 15.0
FIRST_STATE_SECONDS = 60.0
DRAIN_SECONDS = 2.0
STOP_SECONDS = 10
TOKEN_SECONDS = 0.1
#: Objects between collections: a request leaves no cycles behind, so that there is little to find.
_COLLECT_EVERY = 20_000


class Server(uvicorn.Server):
    """Uvicorn, which drains before it closes connections. Signals are the worker's affair."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting; answer what comes on open connections, and close each after that; then the idle ones."""
        for server in self.servers:
            server.close()
        self._gateway.is_draining = True
        deadline = time.monotonic() + DRAIN_SECONDS
        while self.server_state.connections and time.monotonic() < deadline:
            for connection in self.server_state.connections:
                connection.is_draining = True  # type: ignore[union-attr]
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


class Worker:
    """One process of the gateway, from start to drained.

    Args:
        settings: Where everything is.
        number: Which of the workers that share the socket.
        limits: Past these, requests are refused.
    """

    def __init__(self, settings: Settings, number: int, limits: Limits) -> None:
        self._settings = settings
        self._number = number
        self._limits = limits
        self._boot = new_boot()
        self._tallies = Tallies()
        self._shadow_tallies = ShadowTallies()
        self._shedding = Shedding()
        self._key = load_key(settings.folder("keys"))
        self._endpoints = LiveEndpoints(self._tallies, self._key, limits)
        self._reports = settings.folder("gateway")
        self._state = State(settings.state_database)
        self._watch = StateWatch(self._state, EventClock(self._state), Identity(self._state))
        self._reading = ThreadPoolExecutor(1, "state")
        self._loading = ThreadPoolExecutor(Residency.LOADERS + 2, "load")
        self._writing = ThreadPoolExecutor(1, "labels")
        self._predicting = ThreadPoolExecutor(32, "predict")
        self._shadowing = ThreadPoolExecutor(2, "shadow")
        self._explaining = ThreadPoolExecutor(4, "explain")
        self._bundles = BundleCache(Objects(settings.folder("objects")), settings)
        self._residency = Residency(self._endpoints, self._load, self._loading, settings.model_bytes)
        self._tokens_read_at = 0.0
        self._tokens_reading: asyncio.Future[Tokens] | None = None
        self._last_report: Heartbeat | None = None
        self._recording: Recording | None = None

    async def run(self, listener: socket.socket) -> None:
        """Serve until SIGTERM or SIGINT, then drain."""
        loop = asyncio.get_running_loop()
        log_folder = self._settings.folder("log")
        patience = self._limits.timeout_ms / 1000
        durable = SegmentWriter(log_folder, f"worker-{self._number}", self._boot, True, patience)
        buffered = SegmentWriter(log_folder, f"worker-{self._number}-buffered", self._boot, durable=False)
        intake = LabelIntake(self._settings.database("labels"), self._key)
        lookups = Lookups(self._settings.online_store)
        log = Log(durable, buffered, self._key, self._boot)
        making = (lookups, self._predicting, self._event_now)
        traces = open_traces(self._number)
        inputs = Inputs(*making) if traces is None else traces.inputs(*making)
        self._recording = Recording(log) if traces is None else traces.recording(log)
        pressure = Pressure(self._limits.lag_ms / 1000)
        shadows = Shadows(
            Inputs(*making), self._recording, self._shadow_tallies, self._shadowing, lambda: _traffic(server)
        )
        gateway = Gateway(
            self._number,
            self._endpoints,
            Invocations(
                inputs,
                self._recording,
                self._predicting,
                self._residency.wake,
                self._shedding,
                pressure,
                shadows,
                predict if traces is None else traces.predict(),
            ),
            Explanations(inputs, self._explaining, self._shedding),
            Labelling(intake, self._writing, self._tallies, self._event_now),
            self._read_tokens,
            self._read_metrics,
            self._limits,
            Rates(self._settings.gateway_workers),
            self._shedding,
        )
        await self._start(gateway)
        application = gateway if traces is None else traces.application(gateway)
        server = Server(_uvicorn(application), gateway)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, setattr, server, "should_exit", True)
        watching = loop.create_task(pressure.watch())
        following = loop.create_task(self._follow(gateway))
        try:
            await server.serve(sockets=[listener])
        finally:
            following.cancel()
            watching.cancel()
            shadows.close()
            for writer in (durable, buffered):
                try:
                    await writer.close()
                except Unavailable as error:  # what it lost stands in the last report
                    logger.error("the log could not be closed: %s", error.message)
            await loop.run_in_executor(self._reading, heartbeats.write, self._reports, self._heartbeat())
            if traces is not None:
                await traces.close()
            self._close(intake, lookups)

    async def _start(self, gateway: Gateway) -> None:
        """Read the state and load what is placed before the first connection is taken, for a while at most."""
        snapshot = await self._first_snapshot()
        gateway.accept(snapshot.tokens)
        self._residency.want(self._endpoints.apply(snapshot), if_room=True)
        await self._residency.settled(FIRST_LOAD_SECONDS)
        gc.collect()
        gc.freeze()  # what lives now lives on: later collections need not look at it
        gc.set_threshold(_COLLECT_EVERY)

    async def _first_snapshot(self) -> Snapshot:
        """The state, as soon as the control plane has made its tables: both start at the same time."""
        deadline = time.monotonic() + FIRST_STATE_SECONDS
        while True:
            try:
                return await self._read(self._watch.read)
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(POLL_SECONDS)

    async def _follow(self, gateway: Gateway) -> None:
        """Every 100 ms: follow the state, and report. What fails is logged once, and tried on."""
        is_following = is_reporting = True
        while True:
            try:
                snapshot = await self._read(self._watch.poll)
                if snapshot is not None:
                    gateway.accept(snapshot.tokens)
                    self._residency.want(self._endpoints.apply(snapshot))
                is_following = True
            except Exception:
                if is_following:
                    logger.exception("following the state failed; answering by what was read before")
                is_following = False
            try:
                await self._report()
                is_reporting = True
            except Exception:
                if is_reporting:
                    logger.exception("reporting failed")
                is_reporting = False
            await asyncio.sleep(POLL_SECONDS)

    async def _read(self, function: Callable[..., T], *arguments: object) -> T:
        """Call ``function``, which reads the state, in the thread for it.

        Raises:
            Unavailable: The state store cannot be read.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reading, function, *arguments)
        except SQLAlchemyError as error:
            raise Unavailable("The state store cannot be read at the moment.") from error

    def _load(self, placement: Placement) -> LoadedVersion:
        return loader.load(placement, self._bundles)

    async def _report(self) -> None:
        heartbeat = self._heartbeat()
        last = self._last_report
        if last is None or (heartbeat.at - last.at).total_seconds() >= REPORT_SECONDS or _differ(heartbeat, last):
            self._last_report = heartbeat
            self._residency.look()
            await asyncio.get_running_loop().run_in_executor(self._reading, heartbeats.write, self._reports, heartbeat)

    def _heartbeat(self) -> Heartbeat:
        states, resting = self._endpoints.states()
        return Heartbeat(
            worker=self._number,
            pid=os.getpid(),
            boot=f"{self._boot:016x}",
            at=datetime.now(UTC),
            loaded=states,
            revisions={one.name: one.route.revision for one in self._endpoints if one.route is not None},
            counters=self._tallies.versions(),
            shadows=self._shadow_tallies.versions(),
            labels=self._tallies.labels(),
            shed=self._shedding.counts(),
            resting=resting,
            waiting=self._endpoints.waiting(),
            memory_bytes=self._endpoints.memory_bytes,
            budget_bytes=self._residency.budget_bytes,
            log=LogHealth() if self._recording is None else self._recording.health(),
        )

    async def _event_now(self, endpoint: LiveEndpoint) -> datetime:
        """The endpoint's event time, read now; a driver may have advanced it since the last poll."""
        if endpoint.replayed_at is not None:
            now = await self._read(self._watch.event_now, endpoint.name)
            endpoint.replayed_at = max(now, endpoint.replayed_at)
        return endpoint.now()

    async def _read_tokens(self) -> Tokens:
        """The accepted tokens; read at most every 100 ms, however many unknown ones are tried."""
        if self._tokens_reading is None:
            wait = self._tokens_read_at + TOKEN_SECONDS - time.monotonic()
            self._tokens_reading = asyncio.ensure_future(self._read_tokens_after(wait))
        return await asyncio.shield(self._tokens_reading)

    async def _read_tokens_after(self, seconds: float) -> Tokens:
        try:
            await asyncio.sleep(max(seconds, 0))
            self._tokens_read_at = time.monotonic()
            return await self._read(self._watch.tokens)
        finally:
            self._tokens_reading = None

    async def _read_metrics(self) -> bytes:
        own = self._heartbeat()

        def render() -> bytes:
            others = [one for one in heartbeats.read(self._reports) if one.boot != own.boot]
            reports = [*others, own]
            return metrics.exposition(reports, heartbeats.alive(reports, own.at))

        return await asyncio.get_running_loop().run_in_executor(self._predicting, render)

    def _close(self, intake: LabelIntake, lookups: Lookups) -> None:
        for threads in (
            self._loading,
            self._predicting,
            self._shadowing,
            self._explaining,
            self._writing,
            self._reading,
        ):
            threads.shutdown(wait=True, cancel_futures=True)
        self._endpoints.close()
        intake.close()
        lookups.close()
        self._watch.close()
        self._state.close()


def _traffic(server: Server) -> tuple[int, int]:
    """How many requests were answered so far, and how many are in flight."""
    return server.server_state.total_requests, len(server.server_state.tasks)


def _differ(one: Heartbeat, other: Heartbeat) -> bool:
    return replace(one, at=other.at) != other


def _uvicorn(application: Callable[[Scope, Receive, Send], Awaitable[None]]) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=STOP_SECONDS,
        backlog=2048,
    )


def main() -> None:
    """Run a worker until it is told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the listening socket, inherited")
    parser.add_argument("--worker", type=int, required=True, help="number of this worker among those on the socket")
    arguments = parser.parse_args()
    die_with_supervisor()
    settings = Settings()
    configure_logging(settings, f"gateway-{arguments.worker}")
    import uvloop

    async def serve() -> None:
        await Worker(settings, arguments.worker, Limits.of(settings)).run(socket.socket(fileno=arguments.fd))

    uvloop.run(serve())


if __name__ == "__main__":
    main()
