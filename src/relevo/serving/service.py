"""What the control plane does with endpoints: place versions, set routes, read what the gateway reports."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from relevo.errors import Conflict, Invalid, NotFound, Unavailable, nearest
from relevo.identity.model import Principal
from relevo.platform.settings import Settings
from relevo.platform.state import State, Transaction
from relevo.serving import heartbeats, policy, store
from relevo.serving.model import (
    Arm,
    Counters,
    Endpoint,
    EndpointSettings,
    Heartbeat,
    LabelCounters,
    LogLosses,
    Placement,
    Route,
    ShadowArm,
    ShadowCounters,
)

#: States of a version that was loaded and probed. A worker names one that rests only soon after it was loaded.
LOADED = ("ready", "resting")


class Serving:
    """Endpoints, routes and placements. Thread-safe.

    Args:
        state: The state store.
        settings: Says where the gateway's workers report.
    """

    def __init__(self, state: State, settings: Settings) -> None:
        self._state = state
        self._reports = settings.folder("gateway")

    def ensure_endpoint(self, tx: Transaction, name: str, settings: EndpointSettings | None = None) -> Endpoint:
        """The endpoint of that name, made when it is not there, with these settings. Idempotent."""
        settings = settings or EndpointSettings()
        found = store.find_endpoint(tx, name)
        if found is None:
            return store.add_endpoint(tx, name, settings, datetime.now(UTC))
        if found.settings != settings:
            store.set_settings(tx, name, settings)
        return Endpoint(found.name, found.number, settings)

    def endpoint(self, name: str) -> Endpoint:
        """The endpoint of that name.

        Raises:
            NotFound: There is none; the message names the nearest.
        """
        with self._state.read() as tx:
            return _endpoint(tx, name)

    def endpoints(self) -> list[Endpoint]:
        """Every endpoint, by name."""
        with self._state.read() as tx:
            return store.all_endpoints(tx)

    def place(self, tx: Transaction, endpoint: str, version: int, bundle: str) -> Placement:
        """Ask every gateway worker to load the version; placed again, one that rests is loaded anew. Idempotent.

        Args:
            tx: An open transaction.
            endpoint: The endpoint's name.
            version: The version's number.
            bundle: Digest of its sealed bundle.

        Raises:
            Conflict: The version is placed with another bundle; a sealed version never changes.
        """
        _endpoint(tx, endpoint)
        for placed in store.all_placements(tx, endpoint):
            if placed.version == version:
                if placed.bundle != bundle:
                    raise Conflict(
                        f"Version {endpoint}/{version} is placed with bundle {placed.bundle[:12]}, got {bundle[:12]}."
                    )
                again = Placement(endpoint, version, bundle, datetime.now(UTC))
                store.place_again(tx, again)
                return again
        placement = Placement(endpoint, version, bundle, datetime.now(UTC))
        store.add_placement(tx, placement)
        return placement

    def unplace(self, tx: Transaction, endpoint: str, version: int) -> None:
        """Let the gateway unload the version. Idempotent.

        Raises:
            Conflict: The version takes traffic by the current route.
        """
        store.lock_endpoint(tx, endpoint)
        route = store.last_route(tx, endpoint)
        if route is not None and version in route.versions:
            raise Conflict(f"Version {endpoint}/{version} takes traffic by route revision {route.revision}.")
        store.remove_placement(tx, endpoint, version)

    def placements(self, endpoint: str | None = None) -> list[Placement]:
        """What the gateway is asked to keep loaded, for one endpoint or all."""
        with self._state.read() as tx:
            return store.all_placements(tx, endpoint)

    def set_route(
        self,
        tx: Transaction,
        endpoint: str,
        arms: Sequence[Arm],
        *,
        reason: str,
        set_by: Principal | str,
        effective_event_at: datetime,
        once: tuple[str, str] | None = None,
        shadow: ShadowArm | None = None,
    ) -> Route:
        """Record a new revision of the traffic split; the gateway follows within about 100 ms.

        The first arm is the champion. The first route of an endpoint has one arm.

        Args:
            tx: An open transaction.
            endpoint: The endpoint's name.
            arms: Versions and their shares in percent, which sum to 100.
            reason: Why.
            set_by: Who.
            effective_event_at: Since when in event time.
            once: Workflow and step: the same again returns the revision that was recorded then.
            shadow: The version that is asked with copies of the requests; None: no copies are made.

        Raises:
            NotFound: There is no such endpoint.
            Invalid: The arms are not a split, the first route has several, or the shadow is one of them.
            Conflict: A version is not placed.
        """
        if once is not None and (recorded := store.find_route_by_step(tx, once)) is not None:
            return recorded
        _endpoint(tx, endpoint)
        store.lock_endpoint(tx, endpoint)
        split = policy.checked_arms(arms)
        placed = {placement.version for placement in store.all_placements(tx, endpoint)}
        copied = policy.checked_shadow(shadow, split)
        for version in [arm.version for arm in split] + ([copied.version] if copied is not None else []):
            if version not in placed:
                raise Conflict(f"Version {endpoint}/{version} is not placed, so the gateway would not load it.")
        before = store.last_route(tx, endpoint)
        if before is None and len(split) > 1:
            raise Invalid(f"The first route of {endpoint} sends 100 % to one version, got {len(split)} arms.")
        route = Route(
            endpoint=endpoint,
            revision=1 if before is None else before.revision + 1,
            arms=split,
            recorded_at=datetime.now(UTC),
            effective_event_at=effective_event_at,
            reason=reason,
            set_by=set_by if isinstance(set_by, str) else set_by.name,
            shadow=copied,
        )
        store.add_route(tx, route, once)
        return route

    def current_route(self, endpoint: str, tx: Transaction | None = None) -> Route | None:
        """The route in force, or None before the first."""
        if tx is not None:
            return store.last_route(tx, endpoint)
        with self._state.read() as reading:
            return store.last_route(reading, endpoint)

    def route_at(self, endpoint: str, event_at: datetime) -> Route | None:
        """The route that was in force at that event time, or None before the first."""
        with self._state.read() as tx:
            return store.route_at(tx, endpoint, event_at)

    def routes(self, endpoint: str) -> list[Route]:
        """Every revision, the oldest first."""
        with self._state.read() as tx:
            return store.all_routes(tx, endpoint)

    def live_workers(self) -> list[Heartbeat]:
        """The last reports of the gateway workers that run."""
        return heartbeats.alive(heartbeats.read(self._reports), datetime.now(UTC))

    def loading(self) -> dict[str, dict[int, list[str]]]:
        """What each live gateway worker says of each version that it was asked to load, by endpoint and version.

        Empty when no worker is alive: nobody says anything.
        """
        said: dict[str, dict[int, list[str]]] = {}
        for worker in sorted(self.live_workers(), key=lambda one: one.worker):
            for endpoint, states in worker.loaded.items():
                versions = said.setdefault(endpoint, {})
                for version, state in states.items():
                    versions.setdefault(version, []).append(state)
        return said

    def placed_states(self, endpoint: str) -> dict[int, list[str]]:
        """Of each version that is placed, what each live gateway worker says: ready, loading, resting, or failed."""
        workers = sorted(self.live_workers(), key=lambda one: one.worker)
        placed = [placement.version for placement in self.placements(endpoint)]
        # A worker does not go on naming those that rest: there may be thousands.
        return {
            version: [one.loaded.get(endpoint, {}).get(version, "resting") for one in workers] for version in placed
        }

    def await_loaded(self, endpoint: str, version: int, timeout: float) -> None:
        """Wait until every live gateway worker has loaded and probed the version, which may rest after that.

        Blocks the thread; a workflow calls it in a step.

        Args:
            endpoint: The endpoint's name.
            version: The version's number; it has been placed and committed.
            timeout: Seconds to wait at most.

        Raises:
            Unavailable: A worker cannot load it, none is alive, or the time is over; the message says which.
        """
        deadline = time.monotonic() + timeout
        while True:
            states = {one.worker: one.loaded.get(endpoint, {}).get(version, "loading") for one in self.live_workers()}
            if states and all(state in LOADED for state in states.values()):
                return
            for worker, state in states.items():
                if state.startswith("failed"):
                    raise Unavailable(f"Gateway worker {worker} cannot load {endpoint}/{version}: {state}.")
            if time.monotonic() >= deadline:
                raise Unavailable(_waited(endpoint, version, timeout, states))
            time.sleep(0.05)

    def counters(self, endpoint: str) -> dict[int, Counters]:
        """Cumulative counters by version, over all workers and all their boots. ``policy.since`` takes differences."""
        return heartbeats.total(heartbeats.read(self._reports), endpoint)

    def shadow_counters(self, endpoint: str) -> dict[int, ShadowCounters]:
        """Cumulative counters of the versions that were shadows, over all workers and all their boots."""
        return heartbeats.total_shadows(heartbeats.read(self._reports), endpoint)

    def all_counters(self) -> dict[str, dict[int, Counters]]:
        """The same for every endpoint that was ever asked, from one reading of the reports."""
        reports = heartbeats.read(self._reports)
        names = {name for report in reports for name in report.counters}
        return {name: heartbeats.total(reports, name) for name in names}

    def log_losses(self, *, of_the_dead: bool = False) -> dict[str, LogLosses]:
        """What of each endpoint could not be logged so far; ``of_the_dead``: only by workers that run no more."""
        reports = heartbeats.read(self._reports)
        alive = heartbeats.alive(reports, datetime.now(UTC))
        counted = [one for one in reports if one not in alive] if of_the_dead else reports
        return heartbeats.log_losses(counted, alive)

    def label_counters(self, endpoint: str) -> LabelCounters:
        """Cumulative counters of the labels route, over all workers and all their boots."""
        return heartbeats.total_labels(heartbeats.read(self._reports), endpoint)


def _endpoint(tx: Transaction, name: str) -> Endpoint:
    found = store.find_endpoint(tx, name)
    if found is None:
        near = nearest(name, [endpoint.name for endpoint in store.all_endpoints(tx)])
        raise NotFound(f"There is no endpoint {name!r}.", hint=f"Did you mean {near!r}?" if near else None)
    return found


def _waited(endpoint: str, version: int, timeout: float, states: dict[int, str]) -> str:
    if not states:
        return f"No gateway worker reports, so {endpoint}/{version} is loaded nowhere; waited {timeout:g} s."
    waiting = ", ".join(str(worker) for worker, state in sorted(states.items()) if state not in LOADED)
    return f"Waited {timeout:g} s for {endpoint}/{version}; gateway worker {waiting} has not loaded it yet."
