"""Endpoints and routes: which versions answer, in which shares, and what the gateway counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from relevo.contract.model import ServingLimits
from relevo.runtimes.batches import ROWS_EDGES, WAIT_EDGES_MS

LogMode = Literal["durable", "buffered"]
WhenLogFull = Literal["refuse", "serve"]

#: Upper bounds of the latency buckets, in milliseconds; one more bucket holds what is slower.
LATENCY_EDGES_MS: tuple[float, ...] = (
    0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5, 7.5, 10, 15, 20, 25, 30, 40, 50, 75, 100,
    150, 200, 300, 500, 750, 1000, 2000, 5000, 10000,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """How every gateway worker treats an endpoint's requests, as the contract of the live version says.

    ``sticky`` is the column whose value decides which arm of a split answers; None: the arms take turns.
    """

    log: LogMode = "durable"
    log_sample: float = 1.0  # share of the answered rows that is logged
    log_when_full: WhenLogFull = "refuse"
    sticky: str | None = None
    limits: ServingLimits = field(default_factory=ServingLimits)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A name that applications call. ``number`` is its part of a prediction id."""

    name: str
    number: int
    settings: EndpointSettings = EndpointSettings()


@dataclass(frozen=True, slots=True)
class Arm:
    """A version and its share of the requests, in percent."""

    version: int
    percent: float


@dataclass(frozen=True, slots=True)
class ShadowArm:
    """A version that is asked with copies of this share of the answered requests, and answers nobody."""

    version: int
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Route:
    """One revision of an endpoint's traffic split. The percents of the arms sum to 100."""

    endpoint: str
    revision: int
    arms: tuple[Arm, ...]
    recorded_at: datetime
    effective_event_at: datetime
    reason: str
    set_by: str
    shadow: ShadowArm | None = None

    @property
    def versions(self) -> set[int]:
        """Every version that it asks: those of the arms, and the shadow."""
        return {arm.version for arm in self.arms} | ({self.shadow.version} if self.shadow is not None else set())

    @property
    def champion(self) -> int:
        """The version with the first arm: the one that a canary is measured against."""
        return self.arms[0].version


@dataclass(frozen=True, slots=True)
class Placement:
    """A version that every gateway worker answers for, and the digest of its sealed bundle.

    ``placed_at``: when it was last asked to be loaded.
    """

    endpoint: str
    version: int
    bundle: str
    placed_at: datetime


@dataclass(frozen=True, slots=True)
class Counters:
    """What one version of an endpoint has answered since the counters began.

    ``requests`` are those whose input was right and that the split sent here; ``failed`` of them could not be answered
    by this version. ``refused`` had a wrong input, ``addressed`` named the version by header, ``explained`` asked
    why instead of what, ``unlogged`` were turned
    away since the log could not take them, ``unfilled`` since the online store could not be asked: none of these counts
    as traffic of the arm. Of the answered rows the sample of the log left out ``unsampled_rows``, and ``missed_rows``
    were to be logged and could not be: the endpoint answers all the same when the log is full. ``replaced`` are
    processes of the version's own that took the place of one that hung, died or grew too large. ``latency`` counts
    ``requests`` by ``LATENCY_EDGES_MS``, shape ``(n_edges + 1,)``, and ``sizes`` by ``ROWS_EDGES``. ``batches`` are the
    calls of the version's own process by ``ROWS_EDGES``, ``batch_rows`` their rows, and ``waits`` the requests in them,
    whoever made them, by the time that they had waited, by ``WAIT_EDGES_MS``.
    """

    requests: int = 0
    rows: int = 0
    failed: int = 0
    refused: int = 0
    addressed: int = 0
    explained: int = 0
    replaced: int = 0
    unlogged: int = 0
    unfilled: int = 0
    unsampled_rows: int = 0
    missed_rows: int = 0
    latency_ms_total: float = 0.0
    latency: tuple[int, ...] = (0,) * (len(LATENCY_EDGES_MS) + 1)
    sizes: tuple[int, ...] = (0,) * (len(ROWS_EDGES) + 1)
    batch_rows: int = 0
    batches: tuple[int, ...] = (0,) * (len(ROWS_EDGES) + 1)
    wait_ms_total: float = 0.0
    waits: tuple[int, ...] = (0,) * (len(WAIT_EDGES_MS) + 1)


@dataclass(frozen=True, slots=True)
class ShadowCounters:
    """What a version made of the copies that it was asked with as a shadow: no caller had anything of it.

    ``requests`` are copies that it was asked with, ``failed`` of them it could not answer; ``dropped`` are copies that
    found the queue full, ``unfilled`` those whose features could not be looked up, and ``unlogged`` answers that the
    log did not take. ``compared_rows`` were answered by both: ``difference_total`` sums the absolute differences of the
    predictions (with more than two classes the mean over the classes), and ``decided_rows`` of them are decisions
    between classes, ``changed_rows`` of which differ. ``latency`` counts ``requests`` by ``LATENCY_EDGES_MS``.
    """

    requests: int = 0
    failed: int = 0
    dropped: int = 0
    unfilled: int = 0
    unlogged: int = 0
    compared_rows: int = 0
    decided_rows: int = 0
    changed_rows: int = 0
    difference_total: float = 0.0
    latency_ms_total: float = 0.0
    latency: tuple[int, ...] = (0,) * (len(LATENCY_EDGES_MS) + 1)

    @property
    def difference(self) -> float | None:
        """The mean absolute difference from the predictions that were given; None without a row."""
        return self.difference_total / self.compared_rows if self.compared_rows else None

    @property
    def agreement(self) -> float | None:
        """The share of rows that both decide alike; None where nothing is decided."""
        return 1 - self.changed_rows / self.decided_rows if self.decided_rows else None


@dataclass(frozen=True, slots=True)
class LabelCounters:
    """What callers sent to an endpoint's labels route, in labels."""

    accepted: int = 0
    duplicates: int = 0
    conflicts: int = 0
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class LogHealth:
    """How a worker's log fares: batches that could not be written, frames lost with them, bytes that wait, and why."""

    failures: int = 0
    lost_frames: int = 0
    waiting_bytes: int = 0
    error: str | None = None  # None: the last batch was written


@dataclass(frozen=True, slots=True)
class LogLosses:
    """What of an endpoint was not logged since the log could not be written.

    ``missed_rows`` were answered all the same, ``unlogged`` requests were turned away. ``error`` is what a worker says
    now; None when every worker writes.
    """

    missed_rows: int = 0
    unlogged: int = 0
    error: str | None = None

    def since(self, before: LogLosses) -> str | None:
        """What was lost after ``before``, in words; None when nothing was, and the log can be written."""
        missed, refused = self.missed_rows - before.missed_rows, self.unlogged - before.unlogged
        if not (missed or refused or self.error):
            return None
        why = self.error or "it can be written again"
        return (
            f"{missed:,} answered rows were not logged and {refused:,} requests were refused in the last look: {why}."
        )


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a gateway worker last said of itself.

    ``loaded`` maps endpoint and version to ``ready``, ``loading``, ``failed: why``, or for a minute after it has left
    memory ``resting``; ``resting`` counts all of those. ``waiting`` are the rows that wait for a version's own process.
    ``revisions`` maps an endpoint to the route revision that this worker answers by. ``shed`` counts the requests that
    were sent away by endpoint (empty: before it was known) and reason. Counters are those of this boot alone.
    """

    worker: int
    pid: int
    boot: str
    at: datetime
    loaded: dict[str, dict[int, str]] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)
    counters: dict[str, dict[int, Counters]] = field(default_factory=dict)
    shadows: dict[str, dict[int, ShadowCounters]] = field(default_factory=dict)
    labels: dict[str, LabelCounters] = field(default_factory=dict)
    shed: dict[str, dict[str, int]] = field(default_factory=dict)
    resting: int = 0
    waiting: dict[str, dict[int, int]] = field(default_factory=dict)
    memory_bytes: int = 0
    budget_bytes: int = 0
    log: LogHealth = LogHealth()
