"""The parity proof over a real contract, real children, a real online store and a real log."""

from __future__ import annotations

import re
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from relevo.contract.service import ContractService
from relevo.contract.upload import read_project
from relevo.errors import Conflict, NotFound
from relevo.features.comparing import Comparing
from relevo.features.online import OnlineStore
from relevo.features.parity import Cause
from relevo.features.service import FeatureService
from relevo.identity.model import Principal, Role
from relevo.ledger.service import Ledger
from relevo.monitoring.model import Parity
from relevo.monitoring.parity import ParityService
from relevo.platform.clock import EventClock
from relevo.platform.objects import Objects
from relevo.platform.settings import Settings
from relevo.platform.state import State
from relevo.predictions import frames
from relevo.predictions.columns import prediction_rows
from relevo.predictions.log import PredictionLog
from relevo.predictions.tables import LogTable, table_path
from relevo.registry.bundles import write_bundle
from relevo.registry.service import Registry
from relevo.runtimes.model import Column, ColumnType, Signature, Task

START = datetime(2026, 1, 1, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ENGINEER = Principal("erin", Role.ENGINEER)
INPUTS = ("place", "trips_3h", "load_9h", "last_load")

CONTRACT = """
model: trips
owner: ops
task: regression
package: trips
sources:
  trips: {loader: "trips.team:trips", key: [trip_id], event_time: at}
features: "trips.team"
ask: {source: trips, at: at, inputs: [place]}
label: {column: took, source: trips}
training: {entry: "trips.team:train", holdout: 1d}
"""

TEAM = """
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from relevo.features import Entity, FeatureView, count, latest, mean

place = Entity("place", key="place")
recent = FeatureView("recent", entity=place, source="trips", features={
    "trips_3h": count(over="3h"), "load_9h": mean("load", over="9h")})
newest = FeatureView("newest", entity=place, source="trips", features={"last_load": latest("load")}, ttl="5h")


def trips(until):
    n = 400
    at = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=12 * i) for i in range(n)]
    frame = pl.DataFrame({
        "trip_id": range(n), "place": ["a", "b"] * (n // 2), "at": at, "distance": 1.0, "took": 1.0,
        "load": [FACTOR * (i % 7) / 10 for i in range(n)],
    })
    if Path("HISTORY").exists():  # the team's warehouse corrects what it once gave
        frame = frame.with_columns(load=pl.when(pl.col("place") == "a").then(pl.col("load") + 1).otherwise("load"))
    return frame.filter(pl.col("at") <= until)


def train(training, params):
    raise NotImplementedError
"""


@dataclass
class World:
    """One model whose predictions are logged as the gateway does it."""

    state: State
    settings: Settings
    folder: Path
    contracts: ContractService
    features: FeatureService
    registry: Registry
    log: PredictionLog
    clock: EventClock
    proofs: ParityService
    table: LogTable
    count: int = 0
    sealed: list[int] = field(default_factory=list)

    def apply(self, factor: str = "1") -> int:
        project = self.folder / "project"
        (project / "trips").mkdir(parents=True, exist_ok=True)
        (project / "relevo.yaml").write_text(CONTRACT)
        (project / "trips" / "__init__.py").touch()
        team = TEAM.replace("FACTOR", factor).replace("HISTORY", str(self.folder / "corrected"))
        (project / "trips" / "team.py").write_text(team)
        self.contracts.apply(read_project(project), ENGINEER)
        return self.contracts.current("trips").revision

    def seal(self, number: int, revision: int) -> None:
        """A version that was trained by that revision."""
        columns = [Column("place", ColumnType.TEXT)]
        columns += [
            Column(name, ColumnType.INTEGER if name == "trips_3h" else ColumnType.FLOAT, view=view)
            for name, view in (("trips_3h", "recent"), ("load_9h", "recent"), ("last_load", "newest"))
        ]
        signature = Signature(Task.REGRESSION, tuple(columns), at="at")
        folder = self.folder / f"bundle-{number}"
        write_bundle(
            folder, model="trips", version=number, run_id="run", runtime="linear", signature=signature,
            files={"runtime/linear.json": b"{}"}, views=self.features.views("trips"),
            facts={"contract_revision": revision},
        )  # fmt: skip
        with self.state.transaction() as tx:
            self.registry.seal(tx, folder, workflow_id=f"w-{number}", as_of=START)

    def materialise(self, hour: float, *revisions: int) -> None:
        self.features.materialise("trips", START + timedelta(hours=hour), live_revisions=revisions)

    def serve(self, *hours: float, version: int = 1, sent: dict[str, float] | None = None) -> None:
        """Answer one request an hour for place ``a`` and one for ``b``, with what the online store says now."""
        records = []
        with closing(OnlineStore(self.settings.online_store)) as online:
            for hour in hours:
                at = START + timedelta(hours=hour)
                for place in ("a", "b"):
                    found = online.find("trips", self.features.views("trips"), [{"place": place}], [at])
                    values = {"place": place, **found.rows[0], **(sent or {})}
                    looked_up = [i for i, name in enumerate(INPUTS) if i and name not in (sent or {})]
                    records.append(self._record(version, at, values, looked_up, found.materialised_through))
        self.table.append(prediction_rows(records, self.table.columns()), {f"s{self.count}": 1})

    def _record(self, version, at, values, looked_up, through) -> frames.Record:
        self.count += 1
        at_us = (at - EPOCH) // timedelta(microseconds=1)
        types = [(name, "integer" if name == "trips_3h" else "text" if name == "place" else "float") for name in INPUTS]
        return frames.Record(
            endpoint="trips", version=version, logged_at_us=at_us, asked_at_us=[at_us], ids=[f"p{self.count}"],
            layout=frames.layout(types), inputs=[[values[name] for name in INPUTS]],
            keys=[], predictions=[1.0], looked_up=frames.marks(looked_up),
            materialised_through_us=through and (through - EPOCH) // timedelta(microseconds=1),
        )  # fmt: skip

    def prove(self, hours: float = 24) -> Parity:
        return self.proofs.prove("trips", last=timedelta(hours=hours))


@pytest.fixture
def world(state: State, tmp_path: Path) -> Iterator[World]:
    settings = Settings(home=tmp_path / "home")
    ledger, objects, clock = Ledger(state), Objects(settings.folder("objects")), EventClock(state)
    contracts = ContractService(state, objects, settings, ledger)
    features = FeatureService(state, contracts, settings, clock)
    registry, log = Registry(state, objects, settings, ledger), PredictionLog(settings)
    proofs = ParityService(
        state, settings, log=log, registry=registry, contracts=contracts, clock=clock,
        comparing=Comparing(contracts, settings),
    )  # fmt: skip
    table = LogTable(table_path(settings.root, "predictions", "trips"))
    made = World(state, settings, tmp_path, contracts, features, registry, log, clock, proofs, table)
    made.seal(1, made.apply())
    yield made
    features.close()
    log.close()


pytestmark = pytest.mark.parametrize("empty_state", ["sqlite"], indirect=True)


def by_name(found: Parity) -> dict[str, object]:
    return {one.feature: one for one in found.features}


def tamper(path: Path) -> None:
    """Add a half to every load in the entries of the view ``newest``."""
    loads = {struct.pack(">d", step / 10): struct.pack(">d", step / 10 + 0.5) for step in range(7)}
    pattern = re.compile(b"\xcb(" + b"|".join(map(re.escape, loads)) + b")", re.DOTALL)
    with closing(sqlite3.connect(path)) as connection, connection:
        for name, value in connection.execute("SELECT name, value FROM entries").fetchall():
            changed = pattern.sub(lambda match: b"\xcb" + loads[match[1]], value)
            connection.execute("UPDATE entries SET value = ? WHERE name = ?", (changed, name))


def test_what_was_served_is_what_the_sources_give_as_of_the_time_that_was_logged(world: World) -> None:
    world.materialise(10)
    world.serve(9, 9.5, 10)  # current
    world.serve(11, 12.9)  # one hour and nearly three behind
    world.serve(10, sent={"load_9h": 7.0})
    found = world.prove()
    assert (found.different, found.causes) == (0, {})
    assert (found.rows, found.sampled, found.versions) == (12, 12, (1,))
    assert (found.compared, found.sent) == (12 * 3 - 2, 2)
    assert found.compared == found.exact
    assert found.lag is not None
    assert (found.lag.p50_seconds, found.lag.max_seconds) == (0.0, 2.9 * 3600)
    # At 11:00 and 12:54 the places had been at new trips that the store did not know yet.
    assert found.lag.behind > 0
    assert by_name(found)["trips_3h"].behind == 4
    assert world.proofs.latest("trips") == found
    assert not list(world.settings.folder("jobs").glob("parity-*"))


def test_a_stored_value_that_was_changed_is_found(world: World) -> None:
    world.materialise(10)
    world.serve(10)
    tamper(world.settings.root / "online.db")
    world.serve(10)
    found = world.prove()
    one = by_name(found)["last_load"]
    assert (found.different, one.different, one.compared) == (2, 2, 4)
    assert found.causes == one.causes == {Cause.STORED: 2}
    assert {example.prediction_id for example in one.examples} == {"p3", "p4"}
    assert all(example.online == example.logged != example.expected for example in one.examples)


def test_a_store_that_was_filled_anew_since_says_so(world: World) -> None:
    world.materialise(10)
    tamper(world.settings.root / "online.db")
    world.serve(10)
    world.features.close()
    for file in world.settings.root.glob("online.db*"):
        file.unlink()
    world.materialise(10)
    assert world.prove().causes == {Cause.REPLACED: 2}


def test_a_loader_that_rewrites_history_is_found(world: World) -> None:
    world.materialise(10)
    world.serve(9, 10)
    (world.folder / "corrected").touch()
    found = world.prove()
    assert by_name(found)["trips_3h"].different == 0
    assert {one.feature: one.different for one in found.features if one.different} == {"load_9h": 2, "last_load": 2}
    assert found.causes == {Cause.SOURCE: 4}
    assert all(example.entity == {"place": "a"} for one in found.features for example in one.examples)


def test_each_version_is_asked_by_its_own_code_and_other_code_that_fills_a_view_is_named(world: World) -> None:
    world.materialise(10, 1)
    world.serve(10)
    second = world.apply(factor="2")
    world.seal(2, second)
    world.materialise(11, 1, second)  # the same views by the newer code: filled anew
    world.serve(11, version=1)
    world.serve(11, version=2)
    found = world.prove()
    assert found.versions == (1, 2)
    assert found.causes == {Cause.CODE: found.different}
    assert by_name(found)["trips_3h"].different == 0
    ids = {example.prediction_id for one in found.features for example in one.examples}
    assert ids <= {"p3", "p4"}


def test_what_the_store_does_not_keep_is_told_apart(world: World) -> None:
    world.materialise(60)
    world.serve(1, 60)
    found = world.prove(72)
    assert found.causes == {Cause.NOT_KEPT: found.different}
    assert found.different > 0


def test_rows_of_a_time_without_the_marks_and_before_the_first_fill_are_counted_apart(world: World) -> None:
    world.serve(1)
    world.materialise(10)
    world.serve(10)
    old = prediction_rows([world._record(1, START + timedelta(hours=9), dict.fromkeys(INPUTS), [], None)], {})
    world.table.append(old.drop("looked_up"), {"old": 1})
    found = world.prove()
    assert (found.rows, found.sampled, found.unlogged, found.unfilled) == (5, 2, 1, 2)
    assert found.different == 0


def test_a_window_without_predictions_and_a_second_proof_at_once_are_refused(world: World) -> None:
    with pytest.raises(NotFound, match="trips has no prediction from"):
        world.prove()
    with world.proofs._locks["trips"], pytest.raises(Conflict, match="is under way"):
        world.prove()


def test_a_limit_takes_about_so_many_rows_whichever_versions_answered_them(world: World) -> None:
    world.materialise(10)
    world.serve(*(5 + step / 20 for step in range(100)))
    found = world.proofs.prove("trips", limit=50)
    assert 20 < found.sampled < 90
    assert (found.rows, found.different) == (200, 0)
