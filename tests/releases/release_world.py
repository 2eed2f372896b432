"""A model with real stores, small sealed bundles, and gateway reports that the test writes as a worker would."""

from __future__ import annotations

import os
from bisect import bisect_left
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from relevo.contract import store as contract_store
from relevo.contract.model import (
    AppliedContract,
    Ask,
    Canary,
    Contract,
    Gate,
    Label,
    LoadTest,
    Release,
    ServiceLevel,
    Source,
    Task,
    Training,
)
from relevo.contract.service import ContractService
from relevo.features.service import FeatureService
from relevo.identity.model import Principal, Role
from relevo.identity.service import Identity
from relevo.ledger.service import Ledger
from relevo.platform.clock import EventClock
from relevo.platform.objects import Objects
from relevo.platform.settings import Settings
from relevo.platform.state import State
from relevo.registry.bundles import write_bundle
from relevo.registry.load_rows import LOAD_ROWS_FILE, LoadRows
from relevo.registry.model import Stage
from relevo.registry.service import Registry
from relevo.releases.canary import CanarySteps
from relevo.releases.load_testing import LoadTesting
from relevo.releases.model import Evaluation, Evidence
from relevo.releases.model import Release as Recorded
from relevo.releases.service import Releases
from relevo.releases.shadowing import Shadowing
from relevo.runtimes.linear import FILE, LinearModel, LinearRuntime, Link, Number
from relevo.runtimes.loading import PROBE_FILE, Probe
from relevo.runtimes.model import Column, ColumnType, Signature
from relevo.serving import heartbeats
from relevo.serving.model import LATENCY_EDGES_MS, Counters, Heartbeat, ShadowCounters
from relevo.serving.policy import add
from relevo.serving.service import Serving

MODEL = "delay"
BEGIN = datetime(2013, 4, 1, tzinfo=UTC)
ERIN = Principal("erin", Role.ENGINEER)
RUTH = Principal("ruth", Role.REVIEWER)
RAY = Principal("ray", Role.REVIEWER)
OLGA = Principal("olga", Role.ENGINEER)

CONTRACT = Contract(
    model=MODEL,
    owner="operations",
    task=Task.CLASSIFICATION,
    package="delay",
    sources=(Source("flights", "delay:flights", ("id",), "at"),),
    ask=Ask("flights", ("hour",), "at"),
    label=Label("late", "flights"),
    training=Training("delay:train"),
    gates=(Gate(metric="roc_auc", at_least=0.7), Gate(metric="log_loss", better_than_champion_by=0.01)),
    release=Release(
        1,
        Canary((10, 50), minutes=10, requests=30),
        ServiceLevel(p99_ms=50, error_rate=0.01),
        LoadTest(requests=0),  # most tests report as a gateway, and run none
    ),
)
SIGNATURE = Signature(Task.CLASSIFICATION, (Column("hour", ColumnType.INTEGER),), classes=("0", "1"))


def sealed_files(version: int, load_rows: LoadRows | None = None) -> dict[str, bytes]:
    """The files of a small model that a real gateway loads: the later the hour, the likelier."""
    content = msgspec.json.encode(
        LinearModel(Link.LOGISTIC, (float(version),), (Number(0, 0.0, 1.0, (0.1,), 0.0),), ())
    )
    rows: list[list[Any]] = [[hour] for hour in (0, 12, 23)]
    answers: Any = LinearRuntime.load(content, SIGNATURE).predict(rows)
    return {
        FILE: content,
        PROBE_FILE: msgspec.json.encode(Probe(rows, list(answers), 1e-9)),
        LOAD_ROWS_FILE: msgspec.json.encode(load_rows or LoadRows(("hour",), [[hour] for hour in range(24)])),
    }


def evaluation(roc_auc: float = 0.8, log_loss: float = 0.4, champion: int | None = None, **changes: Any) -> Evaluation:
    """What a holdout showed; the champion's log loss is 0.5."""
    metrics = {} if champion is None else {"roc_auc": 0.75, "log_loss": 0.5}
    found = Evaluation({"roc_auc": roc_auc, "log_loss": log_loss}, champion, metrics, {"roc_auc": 0.5}, {}, 1000)
    return replace(found, **changes)


def counted(requests: int, *, failed: int = 0, latency_ms: float = 1.0, slow: int = 0, slow_ms: float = 80) -> Counters:
    """Counters of so many requests, ``slow`` of them at ``slow_ms``."""
    buckets = [0] * (len(LATENCY_EDGES_MS) + 1)
    buckets[bisect_left(LATENCY_EDGES_MS, latency_ms)] += requests - slow
    buckets[bisect_left(LATENCY_EDGES_MS, slow_ms)] += slow
    return Counters(requests=requests, rows=requests, failed=failed, latency=tuple(buckets))


class World:
    """One model and everything that a release of it touches."""

    def __init__(self, state: State, settings: Settings) -> None:
        self.state, self.settings = state, settings
        self.ledger, self.clock = Ledger(state), EventClock(state)
        objects = Objects(settings.folder("objects"))
        self.registry = Registry(state, objects, settings, self.ledger)
        self.contracts = ContractService(state, objects, settings, self.ledger)
        self.serving = Serving(state, settings)
        self.releases = Releases(
            state,
            contracts=self.contracts,
            registry=self.registry,
            serving=self.serving,
            ledger=self.ledger,
            clock=self.clock,
        )
        self.identity = Identity(state)
        self.features = FeatureService(state, self.contracts, settings, self.clock)
        self.load_testing = LoadTesting(
            state,
            settings,
            releases=self.releases,
            registry=self.registry,
            serving=self.serving,
            identity=self.identity,
            features=self.features,
        )
        self.shadowing = Shadowing(
            state, releases=self.releases, registry=self.registry, serving=self.serving, clock=self.clock
        )
        self.canary = CanarySteps(
            state, releases=self.releases, registry=self.registry, serving=self.serving, clock=self.clock
        )
        self.loaded: dict[int, str] = {}
        self.counters: dict[int, Counters] = {}
        self.shadows: dict[int, ShadowCounters] = {}
        self.boot = "b1"

    # -- what surrounds a release -------------------------------------------------------------------------------

    def apply(self, contract: Contract = CONTRACT, revision: int = 1) -> None:
        applied = AppliedContract(MODEL, revision, contract, "", "s" * 64, {}, None, ERIN.name)
        with self.state.transaction() as tx:
            contract_store.insert(tx, replace(applied, applied_at=BEGIN))
            if revision == 1:
                self.clock.start_replay(tx, MODEL, BEGIN)

    def seal(self, version: int, workflow_id: str, files: dict[str, bytes] | None = None) -> None:
        folder = self.settings.folder("packed") / str(version)
        if not folder.exists():
            write_bundle(
                folder,
                model=MODEL,
                version=version,
                run_id="run",
                runtime="linear",
                signature=SIGNATURE,
                files=files or sealed_files(version),
                facts={},
            )
        with self.state.transaction() as tx:
            self.registry.seal(tx, folder, workflow_id=workflow_id, as_of=BEGIN)

    def restart_gateway(self, boot: str) -> None:
        """The worker starts anew: its counters begin at nothing, and the file of the boot before stays."""
        self.boot, self.counters = boot, {}
        self.beat()

    def beat(self) -> None:
        """Report as a gateway worker does that has loaded whatever is placed."""
        ready = {placed.version: self.loaded.get(placed.version, "ready") for placed in self.serving.placements(MODEL)}
        beat = Heartbeat(
            0,
            os.getpid(),
            self.boot,
            datetime.now(UTC),
            loaded={MODEL: ready},
            counters={MODEL: self.counters},
            shadows={MODEL: self.shadows},
        )
        heartbeats.write(self.settings.folder("gateway"), beat)

    def traffic(self, version: int, requests: int, **how: Any) -> None:
        self.counters[version] = add(self.counters.get(version, Counters()), counted(requests, **how))
        self.beat()

    def copies(self, version: int, requests: int, *, failed: int = 0, difference: float = 0.0) -> None:
        """Let the gateway have asked the version with so many more copies of a row each."""
        rows = requests - failed
        more = ShadowCounters(
            requests=requests,
            failed=failed,
            compared_rows=rows,
            decided_rows=rows,
            difference_total=rows * difference,
        )
        self.shadows[version] = add(self.shadows.get(version, ShadowCounters()), more)
        self.beat()

    def advance(self, at: datetime) -> None:
        with self.state.transaction() as tx:
            self.clock.advance(tx, MODEL, at)

    # -- a release, step by step --------------------------------------------------------------------------------

    def begin(self, version: int, requested_by: Principal = ERIN, revision: int = 1) -> Recorded:
        return self.releases.begin(
            f"r{version}",
            model=MODEL,
            revision=revision,
            as_of=BEGIN,
            reason="to see",
            requested_by=requested_by.name,
        )

    def judge(self, version: int, **changes: Any) -> Evidence:
        """Begin, seal and judge ``version``."""
        began = self.begin(version)
        champion = self.releases.prepare(began.id)["champion"]
        self.seal(version, began.id)
        return self.releases.judge(began.id, version, evaluation(champion=champion, **changes), {"bundle": "b"})

    def load(self, version: int) -> str:
        """Bring it as far as loaded: judged, approved, placed."""
        self.judge(version)
        self.releases.await_approval(f"r{version}")
        self.releases.decide(f"r{version}", RUTH, approved=True, reason="fine")
        with self.state.transaction() as tx:
            self.serving.ensure_endpoint(tx, MODEL)
            self.serving.place(tx, MODEL, version, self.registry.version(MODEL, version, tx).bundle)
        self.beat()
        self.releases.load(f"r{version}")
        return f"r{version}"

    def live(self, *versions: int) -> None:
        """Promote them, one after the other."""
        for version in versions:
            self.releases.promote(self.load(version))

    # -- what came of it ----------------------------------------------------------------------------------------

    def arms(self) -> list[tuple[int, float]]:
        route = self.serving.current_route(MODEL)
        return [] if route is None else [(arm.version, arm.percent) for arm in route.arms]

    def stages(self) -> dict[int, Stage]:
        return {version.number: version.stage for version in self.registry.versions(MODEL)}

    def placed(self) -> set[int]:
        return {placement.version for placement in self.serving.placements(MODEL)}

    def actions(self, release_id: str) -> list[str]:
        """The ledger's entries on a release, the first first."""
        entries = self.ledger.entries(limit=1000)
        return [entry.action for entry in reversed(entries) if entry.facts.get("release") == release_id]
