"""A small project, trained in real child processes."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from relevo.contract.model import Contract
from relevo.contract.parsing import parse_contract
from relevo.features import Entity, FeatureView, latest, mean
from relevo.features.model import FeatureView as View
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

VIEWS = (
    FeatureView(
        "traffic",
        entity=Entity("zone", key="zone"),
        source="zones",
        features={"busy": latest("busy"), "busy_6h": mean("busy", over="6h")},
    ),
)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The import root of the project."""
    root = tmp_path / "project"
    (root / "taxis").mkdir(parents=True)
    for name, text in {"__init__": "", "sources": SOURCES, "features": FEATURES, "train": TRAIN}.items():
        (root / "taxis" / f"{name}.py").write_text(textwrap.dedent(text))
    return root


def contract(**changes: str) -> Contract:
    values = {"task": "classification", "label": "is_late", "window": "expanding", "holdout": "7d"} | changes
    return parse_contract(CONTRACT.format(**values))


@pytest.fixture
def prepare(package: Path, tmp_path: Path) -> Callable[..., RunFolder]:
    """Makes the folder of a run, as the service does."""

    def made(
        run_id: str = "run-1",
        *,
        as_of: datetime = AS_OF,
        champion: Champion | None = None,
        views: tuple[View, ...] = VIEWS,
        tracking_url: str | None = None,
        declared: Contract | None = None,
        **changes: Any,
    ) -> RunFolder:
        folder = RunFolder(tmp_path / "jobs" / run_id)
        run = Run(
            id=run_id,
            workflow_id=run_id,
            model="rides",
            revision=1,
            as_of=as_of,
            contract=declared or contract(**changes),
            views=views,
            package=str(package),
            snapshot="s" * 64,
            tables=str(tmp_path / "tables" / "rides"),
            champion=champion,
            tracking_url=tracking_url,
        )
        folder.write("run", run)
        return folder

    return made
