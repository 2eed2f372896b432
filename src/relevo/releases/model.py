"""Evidence, gates and approvals of a release."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class ReleaseState(StrEnum):
    """Where a release stands."""

    TRAINING = "training"
    WAITING_FOR_APPROVAL = "waiting_for_approval"
    SHADOW = "shadow"
    CANARY = "canary"
    LIVE = "live"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_open(self) -> bool:
        """Whether the release is still under way."""
        return self.is_moving or self in {ReleaseState.TRAINING, ReleaseState.WAITING_FOR_APPROVAL}

    @property
    def is_moving(self) -> bool:
        """Whether live traffic reaches its version."""
        return self in {ReleaseState.SHADOW, ReleaseState.CANARY}


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate's verdict in words: ``roc_auc needs >= 0.740, got 0.731``."""

    gate: str
    passed: bool
    message: str


@dataclass(frozen=True, slots=True)
class LoadFigures:
    """What a load test measured at the gateway, as its callers saw it; latencies in milliseconds.

    ``failure`` says why the first of the ``failed`` requests was not answered. ``is_looked_up``: feature views filled
    their inputs, as for any caller; else they were sent with the rows. Of several ``runs`` the one with the lowest p99
    counts: what slows a run down from outside is no property of the version.
    """

    requests: int
    failed: int
    concurrency: int
    rows: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    requests_per_second: float
    failure: str | None = None
    is_looked_up: bool = True
    runs: int = 1


@dataclass(frozen=True, slots=True)
class ShadowFigures:
    """What a version made of copies of live requests, beside what callers got.

    ``difference`` is the mean absolute difference of the predictions, ``agreement`` the share of rows that both decide
    alike; None where nothing could be compared, or nothing is decided. ``p99_ms`` None: slower than anything counted.
    """

    requests: int
    failed: int
    dropped: int
    compared_rows: int
    difference: float | None
    agreement: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the holdout showed of a challenger, and of the champion and a simple baseline on the same rows."""

    metrics: dict[str, float]
    champion: int | None
    champion_metrics: dict[str, float]
    baseline_metrics: dict[str, float]
    slices: dict[str, dict[str, float]]
    rows: int
    holdout: tuple[str, str] | None = None  # first and last asked time, when the model has event time
    champion_note: str | None = None  # why the champion could not be measured on the same rows
    slices_left_out: dict[str, str] = field(default_factory=dict)  # name -> why


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a decision rests on. ``digest`` is the SHA-256 of its canonical JSON."""

    digest: str
    model: str
    version: int
    evaluation: Evaluation
    gates: tuple[GateResult, ...]
    facts: dict[str, object]  # bundle, snapshot, dataset versions, environment, runtime agreement

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(gate.passed for gate in self.gates)


@dataclass(frozen=True, slots=True)
class Approval:
    """A second person's word on one version's evidence."""

    model: str
    version: int
    principal: str
    approved: bool
    reason: str
    evidence: str
    given_at: datetime


@dataclass(frozen=True, slots=True)
class Release:
    """One attempt to bring a model to production, from training to live. ``id`` is its workflow's."""

    id: str
    model: str
    contract_revision: int
    version: int | None
    state: ReleaseState
    reason: str
    requested_by: str
    evidence: str | None
    outcome: str | None
    started_at: datetime
    updated_at: datetime
    event_at: datetime
