"""A small project, trained in real child processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from relevo.contract.model import Contract
from relevo.contract.parsing import parse_contract
from relevo.features import Entity, FeatureView, latest, mean
from relevo.features.expressions import Transform
from relevo.platform.jobs import Job
from relevo.training.folder import RunFolder
from relevo.training.model import Champion, Run

AS_OF = datetime(2024, 3, 1, tzinfo=UTC)

CONTRACT = """
model: rides
owner: taxis
task: {task}
package: taxis
sources:
  rides: {{loader: "taxis.sources:rides", key: [ride_id], event_time: asked_at, known_time: ended_at}}
  zones: {{loader: "taxis.sources:zones", key: [zone], event_time: at}}
features: "taxis.features"
ask: {{source: rides, at: asked_at, inputs: [zone, distance, seats]}}
label: {{column: {label}, source: rides, available_after: 1h, allowance: 5h}}
training:
  window: {window}
  holdout: {holdout}
  entry: "taxis.train:train"
  params: {{strength: 1.0}}
monitor: {{window: 7d, slices: [zone]}}
"""

SOURCES = """
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

START = datetime(2024, 1, 1, tzinfo=UTC)


def rides(until: datetime) -> pl.DataFrame:
    random = np.random.default_rng(3)
    n = 6000
    asked_at = [START + timedelta(minutes=20 * i) for i in range(n)]
    zone = random.choice(["north", "south", "port"], n)
    distance = random.gamma(2.0, 3.0, n).round(2)
    busy = np.sin(np.arange(n) / 200)
    late = distance / 4 + (zone == "port") + 2 * busy + random.normal(0, 1, n) > 2.5
    took = np.where(np.arange(n) % 50 == 0, 300, 30)  # two in a hundred take five hours
    ended_at = [at + timedelta(minutes=int(m)) for at, m in zip(asked_at, took)]
    frame = pl.DataFrame({
        "ride_id": np.arange(n), "asked_at": asked_at, "ended_at": ended_at, "zone": zone, "distance": distance,
        "seats": random.integers(1, 7, n), "is_late": late, "minutes": 5 * distance + busy,
    })
    frame = frame.with_columns(
        is_late=pl.when(pl.col("ride_id") % 97 != 0).then("is_late"),
        seats=pl.when(pl.col("ride_id") % 11 != 0).then("seats"),
    )
    return frame.filter(pl.col("ended_at") <= until)


def zones() -> pl.LazyFrame:
    at = [START + timedelta(hours=i) for i in range(2500)]
    busy = np.sin(np.arange(2500) * 3 / 200)
    return pl.concat([
        pl.LazyFrame({"at": at, "busy": busy}).with_columns(zone=pl.lit(zone)) for zone in ("north", "south", "port")
    ])
"""

FEATURES = """
from relevo.features import Entity, FeatureView, latest, mean

zone = Entity("zone", key="zone")
traffic = FeatureView("traffic", entity=zone, source="zones",
                      features={"busy": latest("busy"), "busy_6h": mean("busy", over="6h")})
"""

TRAIN = '''
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


def train(training, params):
    """The pipeline that everybody writes first."""
    numbers = ["distance", "seats", "busy", "busy_6h"]
    prepare = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["zone"]),
        (make_pipeline(SimpleImputer(), StandardScaler()), numbers),
    )
    return make_pipeline(prepare, LogisticRegression(C=params["strength"])).fit(training.inputs, training.label)
'''

PLAIN = '''
from datetime import UTC, datetime

from sklearn.ensemble import HistGradientBoostingClassifier

from taxis import sources


def rides():
    """The same rides without times, in another order."""
    rows = sources.rides(datetime(2024, 3, 1, tzinfo=UTC))
    return rows.drop("asked_at", "ended_at").sample(fraction=1, shuffle=True, seed=1)


def train(training, params):
    model = HistGradientBoostingClassifier(categorical_features="from_dtype", max_iter=30, random_state=1)
    return model.fit(training.inputs, training.label)
'''

PLAIN_CONTRACT = """
model: rides
owner: taxis
task: classification
package: taxis
sources:
  rides: {loader: "taxis.plain:rides", key: [ride_id]}
ask: {source: rides, inputs: [zone, distance, seats]}
label: {column: is_late, source: rides}
training: {holdout: 0.25, entry: "taxis.plain:train", params: {}}
"""

TRAFFIC = {"busy": latest("busy"), "busy_6h": mean("busy", over="6h")}
VIEWS = (FeatureView("traffic", entity=Entity("zone", key="zone"), source="zones", features=TRAFFIC),)


class Project:
    """A team's project in a folder, and the runs that a service would make of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = folder / "project"
        self.views = VIEWS
        (self.package / "taxis").mkdir(parents=True)
        modules = {"__init__": "", "sources": SOURCES, "features": FEATURES, "train": TRAIN, "plain": PLAIN}
        for name, text in modules.items():
            (self.package / "taxis" / f"{name}.py").write_text(text)

    def prepare(
        self,
        run_id: str = "run-1",
        *,
        as_of: datetime = AS_OF,
        champion: Champion | None = None,
        views: tuple[FeatureView, ...] = VIEWS,
        transforms: tuple[Transform, ...] = (),
        tracking_url: str | None = None,
        is_plain: bool = False,
        **changes: str,
    ) -> RunFolder:
        """The folder of a run, with what its child needs to know."""
        folder = RunFolder(self.folder / "jobs" / run_id)
        run = Run(
            id=run_id,
            workflow_id=run_id,
            model="rides",
            revision=1,
            as_of=as_of,
            contract=parse_contract(PLAIN_CONTRACT) if is_plain else contract(**changes),
            views=() if is_plain else views,
            transforms=transforms,
            package=str(self.package),
            snapshot="s" * 64,
            tables=str(self.folder / "tables" / "rides"),
            champion=champion,
            tracking_url=tracking_url,
        )
        folder.write("run", run)
        return folder

    def job(self) -> Job:
        """A child for its runs."""
        environment = {"PYTHONHASHSEED": "0", "OMP_WAIT_POLICY": "PASSIVE", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        return Job(
            "relevo.training.child",
            python=Path(sys.executable),
            package=self.package,
            log=self.folder / "child.log",
            environment=environment,
        )


def contract_text(**changes: str) -> str:
    """The contract, with some of its values changed."""
    values = {"task": "classification", "label": "is_late", "window": "expanding", "holdout": "7d"} | changes
    return CONTRACT.format(**values)


def contract(**changes: str) -> Contract:
    return parse_contract(contract_text(**changes))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def job(project: Project) -> Iterator[Job]:
    with project.job() as made:
        yield made


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server on SQLite."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder)]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=folder, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 150
        while not _answers(url):
            assert process.poll() is None, (folder / "mlflow.log").read_text()
            assert time.monotonic() < deadline, "the MLflow server did not start in time"
            time.sleep(0.1)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").is_success
    except httpx.HTTPError:
        return False
