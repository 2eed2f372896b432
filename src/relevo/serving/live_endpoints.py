"""Every endpoint that a gateway worker answers for, as the state store declares them, and what is in memory of them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from relevo.errors import NotFound, nearest
from relevo.serving.counters import Tallies
from relevo.serving.limits import Limits
from relevo.serving.live import LOADING, READY, RESTING, LiveEndpoint
from relevo.serving.model import Placement
from relevo.serving.versions import LoadedVersion
from relevo.serving.watch import Snapshot, Topology

#: For so long a version that rests is still reported one by one, so that who waits for its load learns of it.
REPORT_RESTING_SECONDS = 60.0


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
