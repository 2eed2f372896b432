"""The contract: what a team declares once about a model. Frozen, validated, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

Scalar = str | int | float | bool


class Task(StrEnum):
    """What the model predicts."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"


#: What gives the rows of a source; each has exactly one.
SOURCE_KINDS = ("loader", "files", "query", "table")

#: How a pattern of files ends, by what is in them: Parquet, CSV, JSON lines.
FILE_KINDS = (".parquet", ".csv", ".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Source:
    """A table that the model learns from or looks up in.

    Exactly one of ``loader``, ``files``, ``query`` (with its ``connection``) and ``table`` gives the rows. ``loader``
    and ``checks`` are ``module:name`` references into the team's package; a relative ``files`` is a pattern inside the
    project, an absolute one on the machine of the control plane. ``known_time`` is the column that says since when a
    row is known; without it a row is known at ``event_time``. An incremental load reads again what became known in
    the last ``lateness``. ``keep``: how long versions are kept that nothing refers to; None: for ever.
    """

    name: str
    loader: str | None = None
    key: tuple[str, ...] = ()  # a contract gives it; nothing but order makes it look optional
    event_time: str | None = None
    known_time: str | None = None
    checks: str | None = None
    files: str | None = None
    query: str | None = None
    connection: str | None = None
    table: str | None = None
    on_failure: Literal["fail", "quarantine", "warn"] = "fail"
    load: Literal["full", "incremental"] = "full"
    lateness: timedelta = timedelta(0)
    keep: timedelta | None = None

    @property
    def origin(self) -> str:
        """What gives the rows, in words for messages: ``the loader m:f``, ``the files data/*.csv``."""
        if self.query is not None:
            return f"the query on connection {self.connection}"
        return next(f"the {kind} {value}" for kind in SOURCE_KINDS if (value := getattr(self, kind)) is not None)


@dataclass(frozen=True, slots=True)
class Ask:
    """What the caller of the endpoint knows (``inputs``) and when (``at``, a column of ``source``)."""

    source: str
    inputs: tuple[str, ...]
    at: str | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """The outcome, and how long after the ask it is due (``available_after``) and waited for (``allowance``)."""

    column: str
    source: str
    available_after: timedelta = timedelta(0)
    allowance: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Training:
    """How the model is fitted: on which window, with which holdout (a duration, or a fraction without times)."""

    entry: str
    window: timedelta | None = None  # None: expanding
    holdout: timedelta | float = 0.2
    params: dict[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gate:
    """A condition on the evidence: a metric of the holdout with exactly one bound, or a CEL ``rule``."""

    metric: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    better_than_champion_by: float | None = None
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class Canary:
    """Traffic shares in percent; each step lasts its minutes of event time *and* its predictions per arm.

    ``sticky`` is a column of the request: rows with the same value are answered by the same version.
    """

    steps: tuple[int, ...] = (5, 25, 50)
    minutes: int = 10
    requests: int = 500
    sticky: str | None = None


@dataclass(frozen=True, slots=True)
class ServiceLevel:
    """Bounds for a load test, a canary and live traffic: p99 latency in milliseconds, share of failed requests."""

    p99_ms: float = 50.0
    error_rate: float = 0.001


@dataclass(frozen=True, slots=True)
class LoadTest:
    """What a version must pass before people decide on it: held-out rows as requests, so many at once.

    With 0 ``requests`` there is none.
    """

    requests: int = 500
    concurrency: int = 4
    rows: int = 1


@dataclass(frozen=True, slots=True)
class Shadow:
    """Before the canary, a version answers copies of live requests, which nobody gets.

    It lasts its minutes of event time *and* its requests. ``share`` is that of the requests that are copied.
    ``max_difference`` bounds the mean absolute difference from the champion's predictions, ``min_agreement`` the share
    of rows that both decide alike.
    """

    minutes: int = 10
    requests: int = 500
    share: float = 1.0
    max_difference: float | None = None
    min_agreement: float | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """How a version goes live."""

    approvals: int = 1
    canary: Canary = Canary()
    slo: ServiceLevel = ServiceLevel()
    load_test: LoadTest = LoadTest()
    shadow: Shadow | None = None


@dataclass(frozen=True, slots=True)
class Monitor:
    """Length of a monitoring window of event time, and the columns that slice it."""

    window: timedelta = timedelta(days=7)
    slices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Guards:
    """Limits on corrective action, all in event time."""

    cool_down: timedelta = timedelta(0)
    at_most: tuple[int, timedelta] | None = None
    freeze_without_labels: bool = True


@dataclass(frozen=True, slots=True)
class Condition:
    """One trigger of the rule: ``performance_drop`` (of the primary metric), ``age``, or ``drift``."""

    kind: Literal["performance_drop", "age", "drift"]
    threshold: float | timedelta


@dataclass(frozen=True, slots=True)
class Retrain:
    """When to train again: any condition on ``k`` of the last ``n`` final windows, inside the guards."""

    any_of: tuple[Condition, ...]
    windows: tuple[int, int] = (1, 1)
    guards: Guards = Guards()


@dataclass(frozen=True, slots=True)
class Imported:
    """The registered version in MLflow that a model is made of which was not trained here."""

    name: str  # of the registered model
    version: int
    import_id: str  # of the workflow that prepared its bundle
    environment: Literal["model", "own"] = "model"


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """How predictions are logged: before the answer or soon after, which share, and what when they cannot be."""

    mode: Literal["durable", "buffered"] = "durable"
    sample: float = 1.0  # of the answered rows; failures are always logged
    when_full: Literal["refuse", "serve"] = "refuse"


@dataclass(frozen=True, slots=True)
class ServingLimits:
    """What requests to the endpoint may take in one gateway worker; None: as the gateway's settings say."""

    body_bytes: int | None = None
    rows: int | None = None
    concurrency: int | None = None
    timeout_ms: int | None = None
    queue_ms: int | None = None
    process_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    """How the gateway protects itself and the model from requests."""

    limits: ServingLimits = ServingLimits()


@dataclass(frozen=True, slots=True)
class Contract:
    """The whole declaration of one model.

    An imported model has no package, sources, label and training: those are empty.
    """

    model: str
    owner: str
    task: Task
    package: str
    sources: tuple[Source, ...]
    ask: Ask
    label: Label
    training: Training
    features: str | None = None
    gates: tuple[Gate, ...] = ()
    release: Release = Release()
    log: LogPolicy = LogPolicy()
    serving: Serving = Serving()
    monitor: Monitor = Monitor()
    retrain: Retrain | None = None
    imported: Imported | None = None

    def source(self, name: str) -> Source:
        """The source of that name; ``KeyError`` when there is none."""
        return {source.name: source for source in self.sources}[name]


@dataclass(frozen=True, slots=True)
class AppliedContract:
    """A contract as it was applied: its revision, its text, and the code snapshot that it runs."""

    model: str
    revision: int
    contract: Contract
    text: str
    snapshot: str  # digest of the package and its lock
    description: dict[str, object]  # what the package declared, as JSON
    git_commit: str | None
    applied_by: str
    applied_at: datetime | None = None  # None: planned, not applied


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of a contract that changes; None where the field is not there before, or not any more."""

    field: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        if self.old is None:
            return f"+ {self.field}: {self.new}"
        return f"- {self.field}: {self.old}" if self.new is None else f"~ {self.field}: {self.old} -> {self.new}"


@dataclass(frozen=True, slots=True)
class Change:
    """What applying an upload changes, or changed.

    ``revision`` is the revision that it makes or made; the live one when nothing changes. ``code`` lists the files
    of the snapshot that differ (``+ path``, ``- path``, ``~ path``). ``release`` is the release that the change
    started, when one was.
    """

    model: str
    revision: int
    live_revision: int | None
    differences: tuple[Difference, ...]
    code: tuple[str, ...]
    snapshot: str
    git_commit: str | None
    is_applied: bool = False
    release: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the upload is what is live already."""
        return not self.differences and not self.code

    def lines(self) -> list[str]:
        """The change for people, one difference a line."""
        if self.is_empty:
            return [f"{self.model}: nothing changes; revision {self.revision} is applied"]
        word = "applied as" if self.is_applied else "would become"
        lines = [f"{self.model}: {word} revision {self.revision}", *(f"  {each}" for each in self.differences)]
        return [*lines, *(f"  code {each}" for each in self.code)]
