"""Which versions are in memory: what is placed is loaded while the budget lasts, and the rest rests until it is asked.

A version that is newly placed is always loaded and probed, since a release waits for that; the versions that have not
answered for the longest make room, and rest. A request for one that rests waits a moment while it is loaded. Versions
that share an endpoint's traffic, and those that a new route waits for, stay.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor

from relevo.errors import RelevoError, Unavailable
from relevo.serving.live import LiveEndpoint
from relevo.serving.live_endpoints import LiveEndpoints
from relevo.serving.model import Placement
from relevo.serving.versions import LoadedVersion

logger = logging.getLogger(__name__)

RETRY_LOAD_SECONDS = 10.0
#: How long a request waits for a version that rests.
WAKE_SECONDS = 3.0
#: Room is made down to this share of the budget, so that not every load has to look for some.
ROOM = 0.95


class Residency:
    """Loads versions and lets them rest. Belongs to the event loop.

    Args:
        endpoints: What is live here.
        load: Fetches, verifies, loads and probes a version; called in a thread.
        threads: Where it is called. One more than ``LOADERS``, or a request would wait behind what is placed.
        budget_bytes: What the versions in memory may take together.
    """

    #: How many versions that nobody has asked for are loaded at the same time.
    LOADERS = 2

    def __init__(
        self,
        endpoints: LiveEndpoints,
        load: Callable[[Placement], LoadedVersion],
        threads: Executor,
        budget_bytes: int,
    ) -> None:
        self._endpoints = endpoints
        self._load = load
        self._threads = threads
        self.budget_bytes = budget_bytes
        self._loads: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._queue: deque[tuple[Placement, bool]] = deque()
        self._loaders: set[asyncio.Task[None]] = set()

    def want(self, placements: Iterable[Placement], *, if_room: bool = False) -> None:
        """Load these, one after the other; with ``if_room`` only as long as the budget is not used up."""
        self._queue.extend((placement, if_room) for placement in placements)
        while len(self._loaders) < min(self.LOADERS, len(self._queue)):
            loader = asyncio.get_running_loop().create_task(self._work())
            self._loaders.add(loader)
            loader.add_done_callback(self._loaders.discard)

    async def settled(self, seconds: float) -> None:
        """Wait until everything that is wanted was loaded, or let rest; for so long at most."""
        if self._loaders:
            await asyncio.wait(self._loaders, timeout=seconds)

    async def wake(self, endpoint: LiveEndpoint, version: int) -> None:
        """Load a version that a request asks for; requests that come meanwhile wait for the same load.

        Raises:
            Unavailable: It takes longer than a request waits.
        """
        placement = self._endpoints.placement(endpoint.name, version)
        if placement is None or not self._endpoints.wants(placement):
            return
        loading = self._begin(placement)
        done, _ = await asyncio.wait([loading], timeout=WAKE_SECONDS)
        if not done:
            raise Unavailable(f"Version {endpoint.name}/{version} is being loaded; try again.")

    def look(self) -> None:
        """See who has answered since the last look, and who has grown; call it from time to time."""
        now = time.monotonic()
        for version in self._endpoints.resident:
            version.mark(now)
            self._endpoints.resize(version)
        self._make_room()

    def _make_room(self) -> None:
        """Let those rest that have not answered for the longest, until the budget is kept."""
        if self._endpoints.memory_bytes <= self.budget_bytes:
            return
        now = time.monotonic()
        for version in self._endpoints.resident:
            version.mark(now)
        for version in sorted(self._endpoints.resident, key=lambda one: one.used_at):
            if self._endpoints.memory_bytes <= self.budget_bytes * ROOM:
                return
            if not version.is_held and not self._endpoints.needs(version):
                self._rest(version)

    def _rest(self, version: LoadedVersion) -> None:
        if not self._endpoints.has_rested:
            gc.unfreeze()  # what was loaded at the start does not live on after all
        self._endpoints.rest(version)
        logger.info("%s/%s rests", version.endpoint, version.version)

    async def _work(self) -> None:
        while self._queue:
            placement, if_room = self._queue.popleft()
            if not self._endpoints.wants(placement):
                continue
            is_full = self._endpoints.has_rested or self._endpoints.memory_bytes >= self.budget_bytes * ROOM
            if if_room and is_full and not self._endpoints.is_needed(placement):
                self._endpoints.let_rest(placement)
            else:
                await asyncio.wait([self._begin(placement)])

    def _begin(self, placement: Placement) -> asyncio.Task[None]:
        """The load of the version, which may be under way."""
        key = placement.endpoint, placement.version
        task = self._loads.get(key)
        if task is None:
            self._endpoints.loading(placement)
            task = self._loads[key] = asyncio.get_running_loop().create_task(self._load_one(placement))
            task.add_done_callback(lambda _: self._loads.pop(key))
        return task

    async def _load_one(self, placement: Placement) -> None:
        """Load the version; when it fails, say so, and try again later as long as it is placed."""
        loop = asyncio.get_running_loop()
        try:
            version = await loop.run_in_executor(self._threads, self._load, placement)
        except Exception as error:
            why = error.message if isinstance(error, RelevoError) else f"{type(error).__name__}: {error}"
            logger.error("%s/%s cannot be loaded: %s", placement.endpoint, placement.version, why, exc_info=error)
            self._endpoints.failed(placement, why)
            loop.call_later(RETRY_LOAD_SECONDS, self._again, placement)
        else:
            self._endpoints.loaded(version, placement)
            self._make_room()
            logger.info("%s/%s is ready", placement.endpoint, placement.version)

    def _again(self, placement: Placement) -> None:
        if self._endpoints.wants(placement):
            self.want([placement])
