"""The endpoints as a gateway worker answers for them: loaded versions, and the route that it follows.

A worker takes over a new route once every arm of it is loaded here. Until then it answers by the route before, so that
a worker which is late never refuses a request. An arm that cannot be loaded gives its share to the others.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from relevo.errors import NotFound, Unavailable, nearest
from relevo.serving.counters import Tallies
from relevo.serving.model import Arm, Endpoint, Placement, Route
from relevo.serving.policy import GOLDEN, bounds
from relevo.serving.versions import LoadedVersion
from relevo.serving.watch import Snapshot

READY = "ready"
LOADING = "loading"


class LiveEndpoint:
    """One endpoint in this worker. Belongs to the event loop.

    Attributes:
        sole: The version that every request goes to, when there is no other arm to choose or to fall back on.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = endpoint.name
        self.number = endpoint.number
        self.settings = endpoint.settings
        self.replayed_at: datetime | None = None
        self.versions: dict[int, LoadedVersion] = {}
        self.states: dict[int, str] = {}
        self.route: Route | None = None
        self._wanted: Route | None = None
        self.sole: LoadedVersion | None = None
        self._arms: tuple[LoadedVersion, ...] = ()
        self._bounds: tuple[float, ...] = ()
        self._position = random.random()

    @property
    def is_durable(self) -> bool:
        """Whether an answer waits until it is on the disk."""
        return self.settings.log == "durable"

    def now(self) -> datetime:
        """Event time, as far as this worker has read it."""
        return self.replayed_at or datetime.now(UTC)

    def choose(self) -> LoadedVersion:
        """The version for the next request.

        Follows a golden-ratio sequence, so that a share of 5 % is 5 of any 100 requests, give or take one.

        Raises:
            Unavailable: No version that the route names is loaded.
        """
        if self.sole is not None:
            return self.sole
        if not self._arms:
            raise self._unready()
        position = self._position = (self._position + GOLDEN) % 1.0
        for version, bound in zip(self._arms, self._bounds, strict=True):
            if position < bound:
                return version
        return self._arms[-1]

    def champion(self) -> LoadedVersion | None:
        """The version of the route's first arm, when it is loaded."""
        return None if self.route is None else self.versions.get(self.route.champion)

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
        raise Unavailable(f"Version {self.name}/{version} is not loaded: {self.states[version]}.")

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
        is_waiting = any(self.states.get(arm.version, LOADING) == LOADING for arm in wanted.arms)
        if (is_waiting or not ready) and self._only_loaded(self.route):
            return
        self._apply(wanted, ready)

    def keeps(self) -> set[int]:
        """Versions that the route in use needs, placed or not."""
        return set() if self.route is None else {arm.version for arm in self.route.arms}

    def _only_loaded(self, route: Route | None) -> bool:
        return route is not None and all(arm.version in self.versions for arm in route.arms)

    def _apply(self, route: Route | None, ready: Iterable[Arm]) -> None:
        arms = tuple(ready)
        self.route = route
        self._arms = tuple(self.versions[arm.version] for arm in arms)
        self._bounds = bounds(arms) if arms else ()
        self.sole = self._arms[0] if len(arms) == 1 else None

    def _unready(self) -> Unavailable:
        if self._wanted is None:
            return Unavailable(f"Endpoint {self.name} has no version in production yet.")
        champion = self._wanted.champion
        return Unavailable(f"Version {self.name}/{champion} is not loaded: {self.states.get(champion, LOADING)}.")


class LiveEndpoints:
    """Every endpoint in this worker. Belongs to the event loop."""

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies
        self._endpoints: dict[str, LiveEndpoint] = {}

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

    def apply(self, snapshot: Snapshot) -> list[Placement]:
        """Follow the snapshot; gives the placements that are to be loaded."""
        for endpoint in snapshot.endpoints:
            live = self._endpoints.get(endpoint.name)
            if live is None:
                live = self._endpoints[endpoint.name] = LiveEndpoint(endpoint)
            live.settings = endpoint.settings
            live.replayed_at = snapshot.replays.get(endpoint.name)
        missing = self._place(snapshot.placements)
        for live in self._endpoints.values():
            live.follow(snapshot.routes.get(live.name))
        self._retire(snapshot.placements)
        return missing

    def loaded(self, version: LoadedVersion) -> None:
        """A version is ready for traffic; one that was unplaced meanwhile is closed."""
        live = self._endpoints[version.endpoint]
        if version.version not in live.states or version.version in live.versions:
            version.retire()
            return
        version.tally = self._tallies.of(version.endpoint, version.version)
        live.versions[version.version] = version
        live.states[version.version] = READY
        live.settle()

    def failed(self, placement: Placement, why: str) -> None:
        """A version cannot be loaded, for now."""
        live = self._endpoints[placement.endpoint]
        if self.wants(placement):
            live.states[placement.version] = f"failed: {why}"
            live.settle()

    def wants(self, placement: Placement) -> bool:
        """Whether the version is still to be loaded."""
        live = self._endpoints[placement.endpoint]
        return placement.version in live.states and placement.version not in live.versions

    def close(self) -> None:
        """Close every runtime."""
        for live in self._endpoints.values():
            for version in live.versions.values():
                version.retire()

    def _place(self, placements: Iterable[Placement]) -> list[Placement]:
        missing = []
        for placement in placements:
            live = self._endpoints[placement.endpoint]
            if placement.version not in live.states:
                live.states[placement.version] = LOADING
                missing.append(placement)
        return missing

    def _retire(self, placements: Iterable[Placement]) -> None:
        placed = {(placement.endpoint, placement.version) for placement in placements}
        for live in self._endpoints.values():
            keep = live.keeps() | {version for endpoint, version in placed if endpoint == live.name}
            for version in [version for version in live.states if version not in keep]:
                del live.states[version]
                gone = live.versions.pop(version, None)
                if gone is not None:
                    gone.retire()
