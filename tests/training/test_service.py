from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa

from relevo.contract.service import ContractService
from relevo.contract.upload import read_project
from relevo.datasets.service import Datasets
from relevo.datasets.tables import scan_version
from relevo.errors import JobFailed
from relevo.identity.model import RELEVO
from relevo.identity.service import Identity
from relevo.ledger.service import Ledger
from relevo.platform.objects import Objects
from relevo.platform.settings import Settings
from relevo.platform.state import State
from relevo.platform.workflows import Workflows
from relevo.registry.model import Stage
from relevo.registry.service import Registry
from relevo.training.rebuilding import TrainingSets
from relevo.training.service import Training

from .conftest import AS_OF, Project, contract_text

pytestmark = [
    pytest.mark.timeout(250),
    pytest.mark.parametrize("empty_state", ["sqlite"], indirect=True),
]


class Mortal(Training):
    """Its child dies once, between two steps, as if the machine had taken it."""

    die_before = ""

    def _call(self, run_id: str, function: str, **arguments: object) -> dict[str, Any]:
        if function == self.die_before:
            self.die_before = ""
            job = self._job(run_id)
            job.kill()
            job.close()
        return super()._call(run_id, function, **arguments)


@dataclass
class House:
    """Everything that training needs, composed as the control plane does."""

    state: State
    workflows: Workflows
    contracts: ContractService
    registry: Registry
    datasets: Datasets
    identity: Identity
    training: Mortal
    settings: Settings

    def apply(self, project: Project) -> int:
        (project.package / "relevo.yaml").write_text(contract_text())
        return self.contracts.apply(read_project(project.package), RELEVO).revision

    def train(self, run_id: str, revision: int, champion: int | None = None) -> Any:
        self.workflows.start(
            "train", run_id, model="rides", revision=revision, as_of=AS_OF.isoformat(), champion=champion
        )
        return self.workflows.wait(run_id, 150)


@pytest.fixture
def house(state: State, tmp_path: Path, mlflow_server: str) -> Iterator[House]:
    settings = Settings(home=tmp_path / "home")
    ledger, objects = Ledger(state), Objects(settings.folder("objects"))
    workflows, identity = Workflows(settings, state, poll_seconds=0.02), Identity(state)
    contracts = ContractService(state, objects, settings, ledger)
    registry, datasets = Registry(state, objects, settings, ledger), Datasets(state)
    training = Mortal(
        settings,
        state,
        workflows,
        contracts=contracts,
        datasets=datasets,
        registry=registry,
        identity=identity,
        tracking_url=mlflow_server,
    )

    @workflows.register("train")
    async def train(model: str, revision: int, as_of: str, champion: int | None) -> dict[str, Any]:
        return await training.train(workflows.workflow_id, model, revision, datetime.fromisoformat(as_of), champion)

    workflows.launch()
    yield House(state, workflows, contracts, registry, datasets, identity, training, settings)
    workflows.close()


def content(house: House, source: str, version: int) -> pl.DataFrame:
    return scan_version(house.settings.folder("tables", "rides"), source, version).collect()


def replace_in_place(house: House, source: str, frame: pl.DataFrame) -> None:
    """Put other rows into the one file of a table's first version, as no writer of ours would."""
    folder = house.settings.folder("tables", "rides") / source
    [file], [commit] = folder.glob("*.parquet"), (folder / "_delta_log").glob("*0.json")
    before = file.stat().st_size
    frame.write_parquet(file)
    commit.write_text(commit.read_text().replace(f'"size":{before}', f'"size":{file.stat().st_size}'))


def test_a_run_ends_in_a_sealed_candidate_that_the_next_one_is_compared_with(house: House, project: Project) -> None:
    revision = house.apply(project)
    status = house.train("deliver-a", revision)
    assert status.state == "succeeded", status.error
    facts = status.output
    version = house.registry.version("rides", facts["version"])
    assert version.stage is Stage.CANDIDATE
    assert (version.workflow_id, version.as_of, version.bundle) == ("deliver-a", AS_OF, facts["bundle"])
    assert facts["evaluation"]["metrics"]["roc_auc"] > 0.8
    assert facts["facts"]["contract_revision"] == revision
    assert {(each.source, each.version) for each in house.datasets.versions("rides")} == {("rides", 0), ("zones", 0)}
    assert house.registry.fetch(version.bundle).is_dir()

    sets = TrainingSets(house.settings, house.contracts, house.registry)
    pins = sets.pins("rides", version.number)
    assert pins.datasets.keys() == {"rides", "zones"}
    assert pins.views.keys() == {"traffic"}
    verified = sets.verify("rides", version.number)
    assert verified.is_same
    assert verified.rows == sum(pins.rows[part] for part in ("fitted", "held_out"))
    assert not list(house.settings.folder("jobs").glob("rebuild-*"))
    before = content(house, "rides", 0)
    replace_in_place(house, "rides", before.with_columns(distance=pl.col("distance") + 1))
    assert (sets.verify("rides", version.number).changed, verified.changed) == (("rides",), ())
    replace_in_place(house, "rides", before)
    assert sets.verify("rides", version.number).is_same

    house.training.die_before = "evaluate"
    second = house.train("deliver-b", revision, champion=version.number).output
    assert second["version"] == version.number + 1
    assert second["evaluation"]["champion"] == version.number
    assert second["evaluation"]["champion_metrics"] == pytest.approx(second["evaluation"]["metrics"])

    sources = project.package / "taxis" / "sources.py"
    sources.write_text(sources.read_text() + "\n\ndef rides(until):\n    raise RuntimeError('the vault is closed')\n")
    error = house.train("deliver-c", house.apply(project)).error
    assert isinstance(error, JobFailed)
    assert "the vault is closed (taxis/sources.py:" in error.message
    assert [each.workflow_id for each in house.registry.versions("rides")] == ["deliver-b", "deliver-a"]
    with house.state.read() as tx:
        said = tx.execute(sa.text("SELECT text FROM activities WHERE workflow_id = 'deliver-c'")).scalar()
        held = tx.execute(sa.text("SELECT count(*) FROM dataset_holds")).scalar()
    assert "the vault is closed" in str(said)
    assert held == 0, "a run that has ended holds no dataset"
    assert house.workflows.activities.open() == []
    assert all(token.revoked_at is not None for token in house.identity.tokens())


def test_a_run_reaches_the_database_of_a_query_and_its_password_is_nowhere(
    house: House, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELEVO_CONNECTION_HOUSE", "postgresql://me:hunter2@127.0.0.1:1/house")
    monkeypatch.setenv("RELEVO_CONNECTION_OTHER", "postgresql://me:hunter3@127.0.0.1:1/other")
    query = '{query: "SELECT * FROM zones", connection: house, key'
    text = contract_text().replace('{loader: "taxis.sources:zones", key', query)
    (project.package / "relevo.yaml").write_text(text)
    revision = house.contracts.apply(read_project(project.package), RELEVO).revision
    rides = project.package / "taxis" / "sources.py"
    assert "rides" in rides.read_text()
    error = house.train("deliver-q", revision).error
    assert isinstance(error, JobFailed)
    assert "source zones: the connection house cannot be reached: " in error.message
    assert error.hint == "Check the URL in RELEVO_CONNECTION_HOUSE, and whether the database runs."
    written = [path for path in house.settings.root.rglob("*") if path.is_file()]
    assert any(path.name == "run.json" for path in written)
    assert any(path.name == "child.log" for path in written)
    assert [path for path in written if b"hunter" in path.read_bytes()] == []
