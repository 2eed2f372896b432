"""The endpoints as a gateway worker answers for them: loaded versions, and the route that it follows.

A worker takes over a new route once every arm of it is loaded here. Until then it answers by the route before, so that
a worker which is late never refuses a request. An arm that cannot be loaded gives its share to the others.
"""

from __future__ import annotations

import random
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from relevo.errors import NotFound, Unavailable, nearest
from relevo.serving.counters import Tallies
from relevo.serving.limits import Limits
from relevo.serving.model import Arm, Endpoint, EndpointSettings, Placement, Route
from relevo.serving.policy import bounds
from relevo.serving.splitting import next_in_turn, place_of
from relevo.serving.versions import LoadedVersion
from relevo.serving.watch import Snapshot, Topology

READY = "ready"
LOADING = "loading"
#: Out of memory until it is asked; see ``residency``.
RESTING = "resting"
#: For so long a version that rests is still reported one by one, so that who waits for its load learns of it.
REPORT_RESTING_SECONDS = 60.0


class Resting(Unavailable):
    """The version that is to answer is not in memory, and may be once somebody has loaded it."""

    def __init__(self, endpoint: str, version: int, state: str) -> None:
        super().__init__(f"Version {endpoint}/{version} is not loaded: {state}.")
        self.version = version


class LiveEndpoint:
    """One endpoint in this worker. Belongs to the event loop.

    Attributes:
        settings: How its contract wants requests treated.
        limits: What its requests may take: those of the gateway, but for what the contract declares.
        timeout_seconds: The time of a prediction.
        patience_seconds: The time of explanations and labels: that of the gateway, or a longer one of the contract.
        concurrency: How many of them may be in flight, when the contract declares it.
        shadow: The version that is asked with copies of the requests, when the route has one and it is loaded.
        copies_in_flight: How many copies its shadow works on.
        sole: The version that every request goes to, when there is no other arm to choose or to fall back on.
    """

    def __init__(self, endpoint: Endpoint, secret: bytes, limits: Limits) -> None:
        self.name = endpoint.name
        self.number = endpoint.number
        self.replayed_at: datetime | None = None
        self.versions: dict[int, LoadedVersion] = {}
        self._worker_limits = limits
        self.adopt(endpoint.settings)
        self.states: dict[int, str] = {}
        self.route: Route | None = None
        self._wanted: Route | None = None
        self.sole: LoadedVersion | None = None
        self.shadow: LoadedVersion | None = None
        self.copies_in_flight = 0
        self._arms: tuple[LoadedVersion, ...] = ()
        self._bounds: tuple[float, ...] = ()
        self._position = random.random()
        self._secret = secret

    @property
    def is_durable(self) -> bool:
        """Whether an answer waits until it is on the disk."""
        return self.settings.log == "durable"

    def adopt(self, settings: EndpointSettings) -> None:
        """Treat requests as the contract says now."""
        self.settings = settings
        self.limits = self._worker_limits.of_endpoint(settings.limits)
        self.timeout_seconds = self.limits.timeout_ms / 1000
        self.patience_seconds = max(self.limits.timeout_ms, self._worker_limits.timeout_ms) / 1000
        self.queue_seconds = self.limits.queue_ms / 1000
        self.concurrency = settings.limits.concurrency
        for version in self.versions.values():
            version.runtime.protect(self.limits.of_process)

    def now(self) -> datetime:
        """Event time, as far as this worker has read it."""
        return self.replayed_at or datetime.now(UTC)

    @property
    def in_flight(self) -> int:
        """How many requests its versions work on, without the copies that a shadow is asked with."""
        return sum(version.uses for version in self.versions.values()) - self.copies_in_flight

    def choose(self) -> LoadedVersion:
        """The version for the next request; the arms of a split take turns by their shares.

        Raises:
            Unavailable: No version that the route names is loaded.
        """
        if self.sole is not None:
            return self.sole
        self._position = next_in_turn(self._position)
        return self._arm_at(self._position)

    def choose_for(self, key: bytes) -> LoadedVersion:
        """The version of a split that answers this key, now and as long as the shares stay."""
        return self._arm_at(place_of(self._secret, self.name, key))

    def reader(self) -> LoadedVersion:
        """The version of a split that reads a request of which nobody knows yet who answers it."""
        if not self._arms:
            raise self._unready()
        return self._arms[0]

    def champion(self) -> LoadedVersion | None:
        """The version of the route's first arm, when it is loaded."""
        return None if self.route is None else self.versions.get(self.route.champion)

    def first(self) -> LoadedVersion:
        """The champion, or while it is not loaded another arm of the route.

        Raises:
            Unavailable: No version that the route names is loaded.
        """
        found = self.champion() or next(iter(self._arms), None)
        if found is None:
            raise self._unready()
        return found

    def addressed(self, version: int) -> LoadedVersion:
        """The version of that number, whatever the route says.

        Raises:
            NotFound: It is not placed here.
            Unavailable: It is not loaded (yet).
        """
        found = self.versions.get(version)
        if found is not None:
            return found
        if version not in self.states:
            placed = ", ".join(str(one) for one in sorted(self.states)) or "none"
            raise NotFound(f"Version {self.name}/{version} is not placed on the gateway; placed: {placed}.")
        raise self._unloaded(version)

    def follow(self, route: Route | None) -> None:
        """Take over the route if its arms are loaded, or as soon as they are."""
        self._wanted = route
        self.settle()

    def settle(self) -> None:
        """Decide again which route to answer by, after a version was loaded or failed to."""
        wanted = self._wanted
        if wanted is None:
            self._apply(None, ())
            return
        ready = [arm for arm in wanted.arms if arm.version in self.versions]
        is_waiting = any(map(self.may_come, wanted.versions))
        if (is_waiting or not ready) and self._only_loaded(self.route):
            return
        # A canary answers nobody while its champion is on its way: requests wait for that one.
        self._apply(wanted, [] if self.may_come(wanted.champion) else ready)

    def keeps(self) -> set[int]:
        """Versions that the route in use needs, placed or not."""
        return set() if self.route is None else self.route.versions

    def needs(self) -> set[int]:
        """Versions that must be in memory: those that share or shadow the traffic, and those a new route waits for."""
        needed: set[int] = set()
        for route in (self.route, self._wanted):
            if route is not None and (len(route.versions) > 1 or (route is self._wanted and self._is_new(route))):
                needed.update(route.versions)
        return needed

    def _is_new(self, wanted: Route) -> bool:
        return self.route is None or self.route.revision != wanted.revision

    def may_come(self, version: int) -> bool:
        """Whether the version is not in memory now, and will be or can be."""
        return version not in self.versions and self.states.get(version, LOADING) in (LOADING, RESTING)

    def _only_loaded(self, route: Route | None) -> bool:
        return route is not None and all(arm.version in self.versions for arm in route.arms)

    def _apply(self, route: Route | None, ready: Iterable[Arm]) -> None:
        arms = tuple(ready)
        self.route = route
        self._arms = tuple(self.versions[arm.version] for arm in arms)
        self._bounds = bounds(arms) if arms else ()
        self.sole = self._arms[0] if len(arms) == 1 else None
        copied = None if route is None or not arms else route.shadow
        self.shadow = None if copied is None else self.versions.get(copied.version)

    def _arm_at(self, place: float) -> LoadedVersion:
        if not self._arms:
            raise self._unready()
        return self._arms[bisect_right(self._bounds, place, hi=len(self._bounds) - 1)]

    def _unready(self) -> Unavailable:
        if self._wanted is None:
            return Unavailable(f"Endpoint {self.name} has no version in production yet.")
        return self._unloaded(self._wanted.champion)

    def _unloaded(self, version: int) -> Unavailable:
        state = self.states.get(version, LOADING)
        if state in (LOADING, RESTING):
            return Resting(self.name, version, state)
        return Unavailable(f"Version {self.name}/{version} is not loaded: {state}.")


class LiveEndpoints:
    """Every endpoint in this worker. Belongs to the event loop.

    Args:
        tallies: Count what the versions answer.
        secret: The installation's key, by which keys find their arm of a split.
        limits: What requests may take where an endpoint declares nothing else.

    Attributes:
        resident: The versions in memory, which take ``memory_bytes`` together.
        has_rested: Whether any version had to leave memory for others.
    """

    def __init__(self, tallies: Tallies, secret: bytes, limits: Limits) -> None:
        self._tallies = tallies
        self._secret = secret
        self._limits = limits
        self._endpoints: dict[str, LiveEndpoint] = {}
        self._placements: dict[tuple[str, int], Placement] = {}
        self._topology: Topology | None = None
        self._rested: dict[tuple[str, int], float] = {}
        self.resident: set[LoadedVersion] = set()
        self.memory_bytes = 0
        self.has_rested = False

    def __iter__(self) -> Iterator[LiveEndpoint]:
        return iter(self._endpoints.values())

    def find(self, name: str) -> LiveEndpoint:
        """The endpoint of that name.

        Raises:
            NotFound: There is none; the hint names the nearest.
        """
        found = self._endpoints.get(name)
        if found is None:
            near = nearest(name, self._endpoints)
            raise NotFound(f"There is no endpoint {name!r}.", hint=f"Did you mean {near!r}?" if near else None)
        return found

    def placement(self, endpoint: str, version: int) -> Placement | None:
        """The placement of the version, when it is placed."""
        return self._placements.get((endpoint, version))

    def apply(self, snapshot: Snapshot) -> list[Placement]:
        """Follow the snapshot; gives the placements that are to be loaded, those first that are needed."""
        for live in self._endpoints.values():
            live.replayed_at = snapshot.replays.get(live.name)
        if snapshot.topology is self._topology:
            return []
        self._topology = topology = snapshot.topology
        for endpoint in topology.endpoints:
            if endpoint.name not in self._endpoints:
                self._endpoints[endpoint.name] = LiveEndpoint(endpoint, self._secret, self._limits)
                self._endpoints[endpoint.name].replayed_at = snapshot.replays.get(endpoint.name)
            self._endpoints[endpoint.name].adopt(endpoint.settings)
        missing = self._place(topology.placements)
        for live in self._endpoints.values():
            live.follow(topology.routes.get(live.name))
        self._retire()
        waited_for = [
            self._placements[live.name, version]
            for live in self._endpoints.values()
            for version in live.needs()
            if live.states.get(version) == RESTING and (live.name, version) in self._placements
        ]
        return sorted({*missing, *waited_for}, key=self._order)

    def loading(self, placement: Placement) -> None:
        """The version is about to be loaded."""
        live = self._endpoints[placement.endpoint]
        if live.states.get(placement.version) == RESTING:
            live.states[placement.version] = LOADING

    def loaded(self, version: LoadedVersion, placement: Placement) -> None:
        """A version is ready for traffic; one that was unplaced meanwhile is closed."""
        live = self._endpoints[version.endpoint]
        if version.version not in live.states or version.version in live.versions:
            version.retire()
            return
        version.tally = self._tallies.of(version.endpoint, version.version)
        version.runtime.count_batches(version.tally.batches)
        version.mark(time.monotonic())
        version.runtime.protect(live.limits.of_process)
        live.versions[version.version] = version
        live.states[version.version] = READY
        self.resident.add(version)
        self.memory_bytes += version.memory_bytes
        live.settle()

    def failed(self, placement: Placement, why: str) -> None:
        """A version cannot be loaded, for now."""
        live = self._endpoints[placement.endpoint]
        if self.wants(placement):
            live.states[placement.version] = f"failed: {why}"
            live.settle()

    def wants(self, placement: Placement) -> bool:
        """Whether the version is placed and not in memory."""
        live = self._endpoints[placement.endpoint]
        return placement.version in live.states and placement.version not in live.versions

    def is_needed(self, placement: Placement) -> bool:
        """Whether the version must be in memory."""
        return placement.version in self._endpoints[placement.endpoint].needs()

    def needs(self, version: LoadedVersion) -> bool:
        """Whether the version must stay in memory."""
        return version.version in self._endpoints[version.endpoint].needs()

    def resize(self, version: LoadedVersion) -> None:
        """Look again what a version takes that grows, one in a process of its own, and how often that was replaced."""
        version.count_replaced()
        grown = version.runtime.process_bytes
        if grown is not None:
            self.memory_bytes += grown - version.memory_bytes
            version.memory_bytes = grown

    def rest(self, version: LoadedVersion) -> None:
        """A version leaves memory until it is asked."""
        live = self._endpoints[version.endpoint]
        live.states[version.version] = RESTING
        self._rested[version.endpoint, version.version] = time.monotonic()
        self.has_rested = True
        self._remove(live, version.version)
        live.settle()

    def let_rest(self, placement: Placement) -> None:
        """A version is not loaded before it is asked."""
        live = self._endpoints[placement.endpoint]
        live.states[placement.version] = RESTING
        live.settle()

    def states(self) -> tuple[dict[str, dict[int, str]], int]:
        """The state of the versions by endpoint, without those that rest for some time; and how many rest."""
        until = time.monotonic() - REPORT_RESTING_SECONDS
        self._rested = {key: at for key, at in self._rested.items() if at > until}
        found: dict[str, dict[int, str]] = {}
        resting = 0
        for live in self._endpoints.values():
            for version, state in live.states.items():
                is_resting = state is RESTING
                resting += is_resting
                if not is_resting or (live.name, version) in self._rested:
                    found.setdefault(live.name, {})[version] = state
        return found, resting

    def waiting(self) -> dict[str, dict[int, int]]:
        """Rows that wait for the processes of models that have one, by endpoint and version."""
        found: dict[str, dict[int, int]] = {}
        for version in self.resident:
            rows = version.runtime.waiting_rows
            if rows is not None:
                found.setdefault(version.endpoint, {})[version.version] = rows
        return found

    def close(self) -> None:
        """Close every runtime."""
        for version in self.resident:
            version.retire()

    def _order(self, placement: Placement) -> tuple[int, str, int]:
        live = self._endpoints[placement.endpoint]
        route = live.route
        is_champion = route is not None and route.champion == placement.version
        rank = 0 if placement.version in live.needs() else 1 if is_champion else 2
        return rank, placement.endpoint, placement.version

    def _place(self, placements: Iterable[Placement]) -> list[Placement]:
        """Take over what is placed; gives what is new, and what was placed again while it rested."""
        missing = []
        before, self._placements = self._placements, {(one.endpoint, one.version): one for one in placements}
        for key, placement in self._placements.items():
            states = self._endpoints[placement.endpoint].states
            is_again = key in before and before[key].placed_at != placement.placed_at
            if placement.version not in states or (is_again and states[placement.version] == RESTING):
                states[placement.version] = LOADING
                self._rested.pop(key, None)
                missing.append(placement)
        return missing

    def _retire(self) -> None:
        for live in self._endpoints.values():
            for version in [one for one in live.states if (live.name, one) not in self._placements]:
                if version not in live.keeps():
                    del live.states[version]
                    self._remove(live, version)

    def _remove(self, live: LiveEndpoint, version: int) -> None:
        gone = live.versions.pop(version, None)
        if gone is not None:
            self.resident.discard(gone)
            self.memory_bytes -= gone.memory_bytes
            gone.retire()
