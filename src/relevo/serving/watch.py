"""What a gateway worker reads from the state store: a cheap check for change, then everything it needs at once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

from relevo.identity.model import Accepted
from relevo.identity.service import Identity
from relevo.platform.clock import EventClock
from relevo.platform.state import State
from relevo.serving import store
from relevo.serving.model import Endpoint, Placement, Route

#: SHA-256 of a token in hex -> whose it is, when it expires, and how much it may ask.
Tokens = dict[str, Accepted]

#: Seconds after which everything is read again, changed or not.
READ_ANYWAY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Topology:
    """Endpoints, the routes in force, and what is placed. The same object as long as none of it changes."""

    endpoints: tuple[Endpoint, ...]
    routes: dict[str, Route]
    placements: tuple[Placement, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state as one reading found it. ``replays`` has the event time of each endpoint that a replay drives."""

    topology: Topology
    replays: dict[str, datetime]
    tokens: Tokens


class StateWatch:
    """Reads the state for the event loop. One thread at a time uses it.

    On SQLite a poll is one pragma until somebody commits. Then, and elsewhere each time, it reads a number that every
    change of the topology raises; and the topology itself, thousands of rows, when that number has changed.
    """

    def __init__(self, state: State, clock: EventClock, identity: Identity) -> None:
        self._state = state
        self._clock = clock
        self._identity = identity
        self._connection = state.engine.connect()
        self._seen: int | None = None
        self._read_at = 0.0
        self._topology: tuple[int, Topology] | None = None

    def poll(self) -> Snapshot | None:
        """A new reading when something may have changed, else None."""
        try:
            version = store.data_version(self._connection)
        finally:
            self._connection.rollback()
        is_due = time.monotonic() - self._read_at >= READ_ANYWAY_SECONDS
        if version is not None and version == self._seen and not is_due:
            return None
        self._seen = version
        return self.read()

    def read(self) -> Snapshot:
        """A reading of the state."""
        self._read_at = time.monotonic()
        with self._state.read() as tx:
            changes = store.changes(tx)  # before the rest: what changes meanwhile is read again
            if self._topology is None or self._topology[0] != changes:
                endpoints = tuple(store.all_endpoints(tx))
                routes = {route.endpoint: route for route in store.current_routes(tx)}
                self._topology = changes, Topology(endpoints, routes, tuple(store.all_placements(tx)))
        return Snapshot(self._topology[1], self._clock.replays(), self.tokens())

    def tokens(self) -> Tokens:
        """The tokens that are accepted now."""
        return self._identity.active_tokens()

    def event_now(self, endpoint: str) -> datetime:
        """The endpoint's event time, read now."""
        return self._clock.now(endpoint)

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()
