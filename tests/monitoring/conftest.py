"""A simulated endpoint: real tables of predictions and labels, a real state store, a clock that tests move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from relevo.contract import store as contract_store
from relevo.contract.model import (
    AppliedContract,
    Ask,
    Contract,
    Gate,
    Label,
    Monitor,
    Source,
    Task,
    Training,
)
from relevo.contract.service import ContractService
from relevo.ledger.service import Ledger
from relevo.monitoring.model import Window
from relevo.monitoring.references import References
from relevo.monitoring.service import Monitoring
from relevo.platform.clock import EventClock
from relevo.platform.encoding import canonical
from relevo.platform.objects import Objects
from relevo.platform.settings import Settings
from relevo.platform.state import State
from relevo.predictions.columns import LABELS, PREDICTIONS
from relevo.predictions.log import PredictionLog
from relevo.predictions.tables import LogTable, table_path
from relevo.registry.bundles import write_bundle
from relevo.registry.service import Registry
from relevo.runtimes.linear import FILE, LinearModel, Number
from relevo.runtimes.loading import PROBE_FILE
from relevo.runtimes.model import Column, ColumnType, Link, Signature
from relevo.serving.model import Arm
from relevo.serving.service import Serving
from relevo.statistics.baseline import Baseline, Profile, category_profile, numeric_profile
from relevo.statistics.metrics import Array

ENDPOINT = "delay"
BEGIN = datetime(2013, 4, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
WAIT = timedelta(hours=30)

CONTRACT = Contract(
    model=ENDPOINT,
    owner="operations",
    task=Task.CLASSIFICATION,
    package="delay",
    sources=(Source("flights", "delay:flights", ("id",), "at"),),
    ask=Ask("flights", ("hour", "speed", "origin"), "at"),
    label=Label("late", "flights", timedelta(hours=6), timedelta(hours=24)),
    training=Training("delay:train"),
    gates=(Gate(metric="roc_auc", at_least=0.6),),
    monitor=Monitor(WEEK, ("origin",)),
)


@dataclass(frozen=True)
class Traffic:
    """Rows of one week: ``shift`` moves an input in standard deviations; ``skill`` is how much the inputs tell."""

    rows: int = 1000
    shift: float = 0.0
    skill: float = 1.5
    nulls: float = 0.0
    failed: int = 0
    version: int = 1
    labelled: float = 1.0
    known_after: timedelta = timedelta(hours=5)


def inputs(rng: np.random.Generator, rows: int, shift: float = 0.0, nulls: float = 0.0) -> dict[str, pl.Series]:
    """Inputs as they are logged."""
    speed = [None if rng.uniform() < nulls else float(value) for value in rng.normal(100 + 15 * shift, 15, rows)]
    return {
        "hour": pl.Series(rng.integers(5, 23, rows)),
        "speed": pl.Series(speed, dtype=pl.Float64),
        "origin": pl.Series(rng.choice(["EWR", "JFK", "LGA"], rows, p=[0.4, 0.3, 0.3])),
    }


def probabilities(hour: pl.Series) -> Array:
    """What the model of these tests answers."""
    return np.asarray(1 / (1 + np.exp(-(hour.to_numpy().astype(float) - 16) / 4)))


SIGNATURE = Signature(
    Task.CLASSIFICATION,
    (
        Column("hour", ColumnType.INTEGER),
        Column("speed", ColumnType.FLOAT),
        Column("origin", ColumnType.TEXT),
    ),
    at="at",
    classes=("0", "1"),
)


def baseline() -> Baseline:
    """Profiles of a training set from the same distribution as the usual traffic."""
    sample = inputs(np.random.default_rng(99), 20_000)
    columns: dict[str, Profile] = {
        "hour": numeric_profile(sample["hour"].to_numpy()),
        "speed": numeric_profile(sample["speed"].to_numpy()),
        "origin": category_profile(sample["origin"].to_list()),
    }
    return Baseline(columns, numeric_profile(probabilities(sample["hour"])))


class World:
    """One endpoint with its log, its clock and its monitoring."""

    def __init__(self, state: State, home: Path) -> None:
        self.state = state
        self.settings = Settings(home=home)
        self.ledger = Ledger(state)
        self.clock = EventClock(state)
        self.log = PredictionLog(self.settings)
        self.contracts = ContractService(state, Objects(self.settings.folder("objects")), self.settings, self.ledger)
        self.serving = Serving(state, self.settings)
        self.registry = Registry(state, Objects(self.settings.folder("objects")), self.settings, self.ledger)
        self.monitoring = Monitoring(
            state,
            contracts=self.contracts,
            references=References(self.registry),
            serving=self.serving,
            log=self.log,
            clock=self.clock,
            ledger=self.ledger,
        )
        self._tables = {
            kind: LogTable(table_path(self.settings.root, kind, ENDPOINT)) for kind in ("predictions", "labels")
        }
        self._rng = np.random.default_rng(5)
        self._written = 0
        self._revision = 0
        with state.transaction() as tx:
            self.serving.ensure_endpoint(tx, ENDPOINT)
            self.serving.place(tx, ENDPOINT, 1, "b" * 64)
            self.clock.start_replay(tx, ENDPOINT, BEGIN)
        self.apply(CONTRACT)
        self.seal(1)
        self.route(BEGIN + timedelta(hours=9))

    def apply(self, contract: Contract) -> None:
        self._revision += 1
        applied = AppliedContract(ENDPOINT, self._revision, contract, "", "s" * 64, {}, None, "ada")
        with self.state.transaction() as tx:
            contract_store.insert(tx, replace(applied, applied_at=BEGIN))

    def seal(self, version: int, *, weight: float = 1.0, metrics: dict[str, float] | None = None) -> None:
        """Seal a version that answers by the hour, times ``weight``; with 0 it knows nothing and answers one half."""
        model = LinearModel(Link.LOGISTIC, (0.0,), (Number(0, 16.0, 4.0, (weight,)),))
        folder = self.settings.folder("packed", str(version))
        write_bundle(
            folder,
            model=ENDPOINT,
            version=version,
            run_id="run",
            runtime="linear",
            signature=SIGNATURE,
            files={
                FILE: canonical(model),
                PROBE_FILE: canonical({"rows": [], "outputs": [], "tolerance": 1e-9}),
                "baseline.json": canonical(baseline()),
            },
            facts={
                "metrics": metrics or {"roc_auc": 0.8, "log_loss": 0.5},
                "importances": {"hour": 0.5, "speed": 0.25, "origin": 0.25},
            },
        )
        with self.state.transaction() as tx:
            self.registry.seal(tx, folder, workflow_id=f"deliver-{version}", as_of=BEGIN)

    def route(self, at: datetime) -> None:
        with self.state.transaction() as tx:
            self.serving.set_route(tx, ENDPOINT, [Arm(1, 100)], reason="first", set_by="ada", effective_event_at=at)

    def advance(self, at: datetime) -> None:
        with self.state.transaction() as tx:
            self.clock.advance(tx, ENDPOINT, at)

    def send(self, week: int, traffic: Traffic = Traffic()) -> pl.DataFrame:
        """Write a week of predictions and of labels; returns the predictions."""
        n = traffic.rows
        columns = inputs(self._rng, n, traffic.shift, traffic.nulls)
        answers = probabilities(columns["hour"])
        score = traffic.skill * (columns["hour"].to_numpy() - 16) / 4
        labels = (self._rng.uniform(size=n) < 1 / (1 + np.exp(-score))).astype(float)
        asked_at = [BEGIN + week * WEEK + WEEK * (i / n) for i in range(n)]
        ids = [f"p{self._written + i}" for i in range(n)]
        self._written += n
        rows = self._predictions(ids, asked_at, traffic.version, answers).with_columns(
            **{f"x_{name}": values for name, values in columns.items()}
        )
        if traffic.failed:
            empty = pl.DataFrame({"status": ["failed"] * traffic.failed, "asked_at": asked_at[: traffic.failed]})
            rows = pl.concat([rows, empty.cast({"asked_at": rows.schema["asked_at"]})], how="diagonal")
        self._tables["predictions"].append(rows, {})
        kept = self._rng.uniform(size=n) < traffic.labelled
        self.label([(ids[i], float(labels[i]), asked_at[i] + traffic.known_after) for i in range(n) if kept[i]])
        return rows

    def label(self, labels: list[tuple[str, float | None, datetime]], revision: int = 1) -> None:
        """Write labels: prediction id, value (None: there is no outcome), and since when it is known."""
        rows = [
            (id_, revision, value, "none" if value is None else "known", known_at, known_at)
            for id_, value, known_at in labels
        ]
        self._tables["labels"].append(pl.DataFrame(rows, schema=LABELS, orient="row"), {})

    def watch(self, until: datetime) -> list[Window]:
        """Analyse, record and judge whatever is due by then, as the watch does."""
        self.advance(until)
        recorded: list[Window] = []
        while due := self.monitoring.due(ENDPOINT):
            window = self.monitoring.analyse(ENDPOINT, *due[0])
            with self.state.transaction() as tx:
                self.monitoring.record(tx, window)
                self.monitoring.judge(tx, ENDPOINT)
            recorded.append(window)
        return recorded

    def _predictions(self, ids: list[str], asked_at: list[datetime], version: int, answers: Array) -> pl.DataFrame:
        values = {
            "prediction_id": ids,
            "version": [version] * len(ids),
            "asked_at": asked_at,
            "logged_at": asked_at,
            "status": ["ok"] * len(ids),
            "prediction": answers,
        }
        series = [
            pl.Series(name, values.get(name, [None] * len(ids)), dtype=kind) for name, kind in PREDICTIONS.items()
        ]
        return pl.DataFrame(series)


@pytest.fixture
def world(state: State, tmp_path: Path) -> Iterator[World]:
    """On both databases."""
    made = World(state, tmp_path / "home")
    yield made
    made.log.close()


@pytest.fixture
def local_world(tmp_path: Path) -> Iterator[World]:
    """On SQLite alone, for what does not depend on the database."""
    from relevo.platform.state import metadata

    state = State(f"sqlite:///{tmp_path / 'state.db'}")
    with state.transaction() as tx:
        metadata.create_all(tx)
    made = World(state, tmp_path / "home")
    yield made
    made.log.close()
    state.close()


@pytest.fixture
def traffic() -> type[Traffic]:
    return Traffic


@pytest.fixture
def contract() -> Contract:
    return CONTRACT


@pytest.fixture
def shuffled() -> Callable[[np.random.Generator, int], pl.DataFrame]:
    """Rows from the very distribution of the baseline."""

    def make(rng: np.random.Generator, rows: int) -> pl.DataFrame:
        columns = inputs(rng, rows)
        frame = pl.DataFrame({f"x_{name}": values for name, values in columns.items()})
        return frame.with_columns(prediction=probabilities(columns["hour"]))

    return make
