from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import polars as pl
import pytest

from relevo.datasets.tables import content_digest
from relevo.errors import JobFailed
from relevo.features import FeatureView, latest, mean
from relevo.features.request import OnRequest, asked_at, value, where
from relevo.platform.jobs import Job
from relevo.registry.bundles import read_manifest, verify_files
from relevo.registry.load_rows import MOST_LOAD_ROWS, read_load_rows
from relevo.runtimes.decoders import build_decoder
from relevo.runtimes.loading import load_runtime
from relevo.runtimes.model import ColumnType
from relevo.statistics.baseline import parse_baseline
from relevo.training.folder import RunFolder
from relevo.training.model import Champion

from .conftest import Project


def call_all(job: Job, folder: RunFolder, *steps: str) -> dict:
    """Call the steps in order; what the last one gave."""
    answers = [job.call(step, run=str(folder.path)) for step in steps]
    return answers[-1]


def test_a_run_goes_from_loaders_to_an_evaluation(job: Job, project: Project) -> None:
    folder = project.prepare()
    said: list[str] = []

    def call(step: str) -> dict:
        return job.call(step, lambda text, _: said.append(text), run=str(folder.path))

    loaded = call("load_sources")
    assert loaded["rides"]["version"] == 0
    built = call("build")
    # 60 days of 72 rides a day, less the six hours in which labels may still come, less those without an outcome.
    assert built["fitted"] + built["held_out"] == built["rows"]
    assert built["held_out"] == pytest.approx(7 * 72, abs=10)
    assert built["unlabelled"] == pytest.approx(built["rows"] / 96, abs=3)
    assert [column["name"] for column in built["signature"]["inputs"]] == [
        "zone", "distance", "seats", "busy", "busy_6h",
    ]  # fmt: skip
    assert built["classes"] == ["false", "true"]
    fitted = call("fit")
    assert fitted["estimator"] == "Pipeline"
    found = call("evaluate")
    assert found["metrics"]["roc_auc"] > 0.8 > 0.6 > found["baseline_metrics"]["roc_auc"]
    assert found["metrics"]["log_loss"] < found["baseline_metrics"]["log_loss"]
    assert found["champion_metrics"] == {}
    assert found["rows"] == built["held_out"]
    assert set(found["slices"]) | set(found["slices_left_out"]) == {"zone=north", "zone=south", "zone=port"}
    assert f"fitting on {built['fitted']:,} rows" in said


def test_the_digest_of_a_training_set_covers_its_values_and_not_the_bytes_of_its_file(
    job: Job, project: Project
) -> None:
    folder = project.prepare()
    built = call_all(job, folder, "load_sources", "build")
    rows = pl.read_parquet(folder.rows)
    rows.write_parquet(folder.rows, compression="lz4", statistics=False)  # another writer, another file
    assert content_digest(pl.read_parquet(folder.rows)) == built["digest"]
    assert content_digest(rows.rename({"x_busy": "x_calm"})) != built["digest"]
    assert content_digest(rows.with_columns(pl.col("x_seats").cast(pl.Float64))) != built["digest"]
    assert content_digest(rows.with_columns(x_busy=pl.lit(0.0))) != built["digest"]
    pinned = {name: {"version": 0, "digest": "", "rows": 0} for name in ("rides", "zones")}
    again = job.call("rebuild", run=str(folder.path), pinned=pinned, digest=built["digest"])
    assert again == {"digest": built["digest"], "rows": built["rows"], "changed": []}


def test_no_row_is_younger_than_the_maturity_of_its_label(job: Job, project: Project) -> None:
    folder = project.prepare(as_of=datetime(2024, 2, 1, tzinfo=UTC))
    job.call("load_sources", run=str(folder.path))
    job.call("build", run=str(folder.path))
    rows = pl.read_parquet(folder.rows)
    cut = datetime(2024, 1, 31, 18, tzinfo=UTC)
    assert rows["at"].max() < cut  # type: ignore[operator]
    assert rows["at"].max() > cut - timedelta(hours=1)  # type: ignore[operator]
    held_out = rows.filter("is_held_out")
    assert held_out["at"].min() >= rows["at"].max() - timedelta(days=7)  # type: ignore[operator]
    assert rows.filter(~pl.col("is_held_out"))["at"].max() < held_out["at"].min()  # type: ignore[operator]


def test_a_sliding_window_leaves_out_what_is_older(job: Job, project: Project) -> None:
    folder = project.prepare(window="{sliding: 20d}")
    job.call("load_sources", run=str(folder.path))
    built = job.call("build", run=str(folder.path))
    assert built["fitted"] == pytest.approx(20 * 72 * 96 / 97, abs=10)


def test_a_regression_is_measured_as_one(job: Job, project: Project) -> None:
    train = project.package / "taxis" / "train.py"
    train.write_text(train.read_text().replace("LogisticRegression(C=params", "Ridge(alpha=params").replace(
        "import LogisticRegression", "import Ridge"
    ))  # fmt: skip
    folder = project.prepare(task="regression", label="minutes", holdout="0.25")
    found = call_all(job, folder, "load_sources", "build", "fit", "evaluate")
    assert found["metrics"]["r2"] > 0.9
    assert set(found["baseline_metrics"]) == {"rmse", "mae", "r2"}
    assert folder.read("built")["held_out"] == pytest.approx(folder.read("built")["rows"] / 4, abs=2)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            '    raise RuntimeError("the vault is closed")',
            r"RuntimeError: the vault is closed \(taxis/sources\.py:\d+\)",
        ),
        ("    return _rides(until).head(0)", r"source rides: the loader taxis\.sources:rides gave no rows"),
        ("    return pl.concat([_rides(until)] * 2)", r"source rides: \d+ of \d+ rows repeat another row's .*ride_id"),
        ('    return _rides(until).with_columns(pl.col("asked_at").dt.replace_time_zone(None))', r"naive times"),
        ("    return _rides(until).with_columns(is_late=None)", r"none of \d+ matured rows has a label 'is_late'"),
        ("    return _rides(until).with_columns(is_late=True)", r"one class only"),
    ],
)
def test_bad_loaders_fail_the_run_with_their_own_words(job: Job, project: Project, broken: str, message: str) -> None:
    sources = project.package / "taxis" / "sources.py"
    text = sources.read_text().replace("def rides(", "def _rides(")
    sources.write_text(f"{text}\n\ndef rides(until):\n{broken}\n")
    folder = project.prepare()
    with pytest.raises(JobFailed, match=message):
        call_all(job, folder, "load_sources", "build")


def test_a_function_that_gives_no_estimator_is_named(job: Job, project: Project) -> None:
    (project.package / "taxis" / "train.py").write_text("def train(training, params):\n    return 3\n")
    folder = project.prepare()
    call_all(job, folder, "load_sources", "build")
    with pytest.raises(
        JobFailed, match=r"taxis\.train:train should give a fitted model with predict_proba or predict, got int"
    ):
        job.call("fit", run=str(folder.path))


BOOSTER = """
import lightgbm

def train(training, params):
    data = lightgbm.Dataset(training.inputs, training.label)
    return lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, data, num_boost_round=20)
"""
OWN_CLASS = """
class Share:
    def __init__(self, longest):
        self.longest = longest

    def predict(self, frame):
        return ANSWER


def train(training, params):
    return Share(training.inputs["distance"].max())
"""
MARGINS = """
from sklearn.svm import LinearSVC

def train(training, params):
    return LinearSVC().fit(training.inputs[["distance"]], training.label)
"""


@pytest.mark.parametrize(
    "train", [BOOSTER, OWN_CLASS.replace("ANSWER", "(frame['distance'] / self.longest).clip(0, 1).fillna(0.5)")]
)
def test_a_classifier_may_give_its_probabilities_from_predict(job: Job, project: Project, train: str) -> None:
    (project.package / "taxis" / "train.py").write_text(train)
    folder = project.prepare()
    found = call_all(job, folder, "load_sources", "build", "fit", "evaluate")
    assert found["metrics"]["roc_auc"] > 0.6


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (MARGINS, r"LinearSVC gives labels and no probabilities\."),
        (OWN_CLASS.replace("ANSWER", "(frame['distance'] > 5).astype(int)"), "probabilities, got only 0 and 1 for 200"),
        (OWN_CLASS.replace("ANSWER", "frame['distance']"), r"Expected Share\.predict to give probabilities, got [1-9]"),
        (OWN_CLASS.replace("ANSWER", "['late'] * len(frame)"), "to give probabilities, got could not convert"),
    ],
)
def test_a_classifier_that_gives_no_probabilities_is_refused_by_its_name(
    job: Job, project: Project, train: str, message: str
) -> None:
    (project.package / "taxis" / "train.py").write_text(train)
    folder = project.prepare()
    call_all(job, folder, "load_sources", "build")
    with pytest.raises(JobFailed, match=message):
        job.call("fit", run=str(folder.path))


@dataclass(frozen=True)
class Sealed:
    """A packed champion of 20 February, its project, and a child that has MLflow imported already."""

    project: Project
    job: Job
    folder: RunFolder

    @property
    def champion(self) -> Champion:
        return Champion(1, str(self.folder.bundle), sys.executable)

    def challenge(self, as_of: datetime, **changes: Any) -> tuple[RunFolder, dict]:
        folder = self.project.prepare("run-2", as_of=as_of, champion=self.champion, **changes)
        return folder, call_all(self.job, folder, "load_sources", "build", "fit", "evaluate")


def pack(job: Job, folder: RunFolder) -> dict:
    """Everything up to the bundle, with a version's number that no server gave."""
    call_all(job, folder, "load_sources", "build", "fit", "evaluate")
    folder.write("tracked", {"run": "run", "version": 1})
    return job.call("pack", run=str(folder.path))


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sealed]:
    project = Project(tmp_path_factory.mktemp("sealed"))
    with project.job() as job:
        folder = project.prepare("run-1", as_of=datetime(2024, 2, 20, tzinfo=UTC))
        pack(job, folder)
        yield Sealed(project, job, folder)


def test_a_bundle_holds_what_serving_and_monitoring_need(sealed: Sealed) -> None:
    folder, bundle = sealed.folder, sealed.folder.bundle
    manifest = read_manifest(bundle)
    verify_files(bundle, manifest)
    assert (manifest.model, manifest.version, manifest.runtime) == ("rides", 1, "linear")
    assert manifest.views == sealed.project.views
    paths = {file.path for file in manifest.files}
    assert {"baseline.json", "importances.json", "environment.txt", "training_set.json", "model/MLmodel"} <= paths
    runtime = load_runtime(bundle, manifest)
    assert runtime.probe() > 0
    runtime.close()
    facts: dict[str, Any] = manifest.facts
    assert facts["trained_until"] == folder.read("built")["split"]["holdout_start"]
    assert facts["datasets"]["rides"]["version"] == 0
    assert max(facts["importances"], key=facts["importances"].get) in {"distance", "busy", "busy_6h"}
    assert sum(facts["importances"].values()) == pytest.approx(1)
    profiles = parse_baseline(json.loads((bundle / "baseline.json").read_text()))
    assert profiles.columns["zone"].rows == folder.read("built")["fitted"]
    assert profiles.columns["seats"].null_rate == pytest.approx(1 / 11, abs=0.02)
    assert profiles.prediction is not None
    assert profiles.prediction.rows == folder.read("built")["held_out"]


def test_a_bundle_holds_held_out_rows_as_requests_that_its_signature_reads(sealed: Sealed) -> None:
    manifest, load_rows = read_manifest(sealed.folder.bundle), read_load_rows(sealed.folder.bundle)
    assert load_rows is not None
    assert load_rows.columns == ("zone", "distance", "seats", "busy", "busy_6h")
    held_out = sealed.folder.read("built")["held_out"]
    assert held_out / 2 <= len(load_rows.rows) <= min(held_out, MOST_LOAD_ROWS)
    decode = build_decoder(manifest.signature)
    for sent in (("zone", "distance", "seats"), load_rows.columns):  # a view fills the others, or they are sent
        bodies = load_rows.bodies(sent, 1)
        assert len(bodies) == len(load_rows.rows)
        assert all(len(decode(body).rows) == 1 for body in bodies)
    seats = [row[2] for row in load_rows.rows]
    assert None in seats and all(seat is None or isinstance(seat, int) for seat in seats)


def test_champion_and_challenger_meet_on_rows_that_neither_was_trained_on(sealed: Sealed) -> None:
    folder, later = sealed.challenge(datetime(2024, 3, 1, tzinfo=UTC))
    assert later["champion"] == 1
    assert later["champion_metrics"]["roc_auc"] == pytest.approx(later["metrics"]["roc_auc"], abs=0.05)
    assert later["rows"] == folder.read("built")["held_out"]
    # As of two days before the champion, the first two of the seven days held out were part of its training set.
    folder, before = sealed.challenge(datetime(2024, 2, 18, tzinfo=UTC))
    trained_until = str(read_manifest(sealed.folder.bundle).facts["trained_until"])
    assert datetime.fromisoformat(before["holdout"][0]) >= datetime.fromisoformat(trained_until)
    assert before["rows"] == pytest.approx(folder.read("built")["held_out"] * 5 / 7, abs=5)
    assert before["champion_metrics"]
    _, long_before = sealed.challenge(datetime(2024, 2, 10, tzinfo=UTC))
    assert long_before["champion_metrics"] == {}
    assert "Not compared with version 1: it was trained until" in long_before["champion_note"]


def test_a_champion_with_other_views_looks_its_own_features_up(sealed: Sealed) -> None:
    entity = sealed.project.views[0].entity
    features = {"busy": latest("busy"), "busy_6h": mean("busy", over="48h")}
    changed = FeatureView("traffic", entity=entity, source="zones", features=features)
    folder, found = sealed.challenge(datetime(2024, 3, 1, tzinfo=UTC), views=(changed,))
    rows = pl.read_parquet(folder.rows)
    assert rows["c_busy_6h"].to_list() != rows["x_busy_6h"].to_list()
    assert found["champion_metrics"]["roc_auc"] > 0.8


def test_transforms_are_inputs_of_the_model_and_of_its_bundle(sealed: Sealed) -> None:
    declared = OnRequest(
        {
            "busier": value("busy") - value("busy_6h"),
            "is_far": (value("distance") > 6) & (value("zone") != "port"),
            "is_night": where(asked_at.in_zone("Europe/Madrid").hour < 6, "night", "day"),
        }
    )
    folder = sealed.project.prepare("transformed", transforms=declared.transforms, champion=sealed.champion)
    pack(sealed.job, folder)
    manifest = read_manifest(folder.bundle)
    assert manifest.transforms == declared.transforms
    columns = {column.name: (column.type, column.is_computed, column.is_asked) for column in manifest.signature.inputs}
    assert columns["busier"] == (ColumnType.FLOAT, True, False)
    assert columns["is_far"] == (ColumnType.BOOLEAN, True, False)
    assert columns["is_night"] == (ColumnType.TEXT, True, False)
    assert columns["busy"][1:] == (False, False) and columns["distance"][1:] == (False, True)
    rows = pl.read_parquet(folder.rows)
    assert rows["x_busier"].equals(rows["x_busy"] - rows["x_busy_6h"])
    local = rows["at"].dt.convert_time_zone("Europe/Madrid").dt.hour()
    assert (rows["x_is_night"] == "night").equals(local < 6)
    # The champion knows no transforms, and is asked with the inputs that it has.
    assert "c_busy" in rows.columns and "c_busier" not in rows.columns
    assert folder.read("evaluation")["champion_metrics"]["roc_auc"] > 0.8


def test_a_transform_that_does_not_fit_its_inputs_fails_the_run_with_its_name(sealed: Sealed) -> None:
    declared = OnRequest({"double": value("zone") * 2})
    folder = sealed.project.prepare("misfit", transforms=declared.transforms)
    sealed.job.call("load_sources", run=str(folder.path))
    with pytest.raises(JobFailed, match="transform double: multiply expects a number, got a text"):
        sealed.job.call("build", run=str(folder.path))


def test_without_event_time_a_key_is_held_out_in_every_run(sealed: Sealed) -> None:
    project, job = sealed.project, sealed.job
    first = project.prepare("plain-1", is_plain=True)
    packed = pack(job, first)
    assert packed["facts"]["trained_until"] is None
    champion = Champion(1, str(first.bundle), sys.executable)
    second = project.prepare("plain-2", is_plain=True, champion=champion)
    found = call_all(job, second, "load_sources", "build", "fit", "evaluate")
    assert found["holdout"] is None
    assert found["rows"] == pytest.approx(second.read("built")["rows"] / 4, rel=0.1)
    assert found["champion_metrics"] == pytest.approx(found["metrics"])


@pytest.mark.timeout(250)
def test_a_run_is_tracked_once_however_often_the_step_is_repeated(
    mlflow_server: str, job: Job, project: Project
) -> None:
    folder = project.prepare(tracking_url=mlflow_server)
    first = call_all(job, folder, "load_sources", "build", "fit", "evaluate", "track")
    job.close()
    with project.job() as fresh:
        assert fresh.call("track", run=str(folder.path)) == first

    def ask(path: str) -> dict:
        answer = httpx.get(f"{mlflow_server}/api/2.0/mlflow/{path}").raise_for_status()
        return dict(answer.json())

    versions = ask("model-versions/search")["model_versions"]
    found = [(each["name"], each["version"]) for each in versions if each["run_id"] == first["run"]]
    assert found == [("rides", str(first["version"]))]
    run = ask(f"runs/get?run_id={first['run']}")["run"]
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert tags["relevo.workflow_id"] == "run-1"
    assert tags["relevo.dataset.rides"] == "0"
    assert len(tags["relevo.environment"]) == 64
    assert run["info"]["status"] == "FINISHED"
    metrics = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    assert metrics["roc_auc"] == folder.read("evaluation")["metrics"]["roc_auc"]
    assert {param["key"]: param["value"] for param in run["data"]["params"]} == {"strength": "1.0"}


def test_a_tracking_server_that_is_away_is_named(sealed: Sealed) -> None:
    folder = sealed.project.prepare("away", tracking_url="http://127.0.0.1:9")
    call_all(sealed.job, folder, "load_sources", "build", "fit", "evaluate")
    with pytest.raises(JobFailed, match=r"MLflow at http://127\.0\.0\.1:9"):
        sealed.job.call("track", run=str(folder.path))
