"""An endpoint as a gateway worker answers for it: loaded versions, and the route that it follows.

A worker takes over a new route once every arm of it is loaded here. Until then it answers by the route before, so that
a worker which is late never refuses a request. An arm that cannot be loaded gives its share to the others.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable
from datetime import UTC, datetime

from relevo.errors import NotFound, Unavailable
from relevo.serving.limits import Limits
from relevo.serving.model import Arm, Endpoint, EndpointSettings, Route
from relevo.serving.policy import bounds
from relevo.serving.splitting import next_in_turn, place_of
from relevo.serving.versions import LoadedVersion

READY = "ready"
LOADING = "loading"
#: Out of memory until it is asked; see ``residency``.
RESTING = "resting"


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
