from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from relevo.contract.parsing import parse_contract
from relevo.errors import JobFailed
from relevo.features import Entity, FeatureView, latest, mean
from relevo.platform.jobs import Job
from relevo.registry.bundles import read_manifest, verify_files
from relevo.runtimes.loading import load_runtime
from relevo.statistics.baseline import parse_baseline
from relevo.training.folder import RunFolder
from relevo.training.model import Champion

Prepare = Callable[..., RunFolder]

TRAFFIC = {"busy": latest("busy"), "busy_6h": mean("busy", over="6h")}
VIEWS = (FeatureView("traffic", entity=Entity("zone", key="zone"), source="zones", features=TRAFFIC),)


@pytest.fixture
def job(package: Path, tmp_path: Path) -> Iterator[Job]:
    environment = {"PYTHONHASHSEED": "0"}
    log = tmp_path / "child.log"
    with Job(
        "relevo.training.child", python=Path(sys.executable), package=package, log=log, environment=environment
    ) as made:
        yield made


def call_all(job: Job, folder: RunFolder, *steps: str) -> dict:
    """Call the steps in order; what the last one gave."""
    answers = [job.call(step, run=str(folder.path)) for step in steps]
    return answers[-1]


def test_a_run_goes_from_loaders_to_an_evaluation(job: Job, prepare: Prepare) -> None:
    folder = prepare()
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


def test_no_row_is_younger_than_the_maturity_of_its_label(job: Job, prepare: Prepare) -> None:
    folder = prepare(as_of=datetime(2024, 2, 1, tzinfo=UTC))
    job.call("load_sources", run=str(folder.path))
    job.call("build", run=str(folder.path))
    rows = pl.read_parquet(folder.rows)
    cut = datetime(2024, 1, 31, 18, tzinfo=UTC)
    assert rows["at"].max() < cut  # type: ignore[operator]
    assert rows["at"].max() > cut - timedelta(hours=1)  # type: ignore[operator]
    held_out = rows.filter("is_held_out")
    assert held_out["at"].min() >= rows["at"].max() - timedelta(days=7)  # type: ignore[operator]
    assert rows.filter(~pl.col("is_held_out"))["at"].max() < held_out["at"].min()  # type: ignore[operator]


def test_a_sliding_window_leaves_out_what_is_older(job: Job, prepare: Prepare) -> None:
    folder = prepare(window="{sliding: 20d}")
    job.call("load_sources", run=str(folder.path))
    built = job.call("build", run=str(folder.path))
    assert built["fitted"] == pytest.approx(20 * 72 * 96 / 97, abs=10)


def test_a_regression_is_measured_as_one(job: Job, prepare: Prepare, package: Path) -> None:
    train = package / "taxis" / "train.py"
    train.write_text(train.read_text().replace("LogisticRegression(C=params", "Ridge(alpha=params").replace(
        "import LogisticRegression", "import Ridge"
    ))  # fmt: skip
    folder = prepare(task="regression", label="minutes", holdout="0.25")
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
def test_bad_loaders_fail_the_run_with_their_own_words(
    job: Job, prepare: Prepare, package: Path, broken: str, message: str
) -> None:
    sources = package / "taxis" / "sources.py"
    text = sources.read_text().replace("def rides(", "def _rides(")
    sources.write_text(f"{text}\n\ndef rides(until):\n{broken}\n")
    folder = prepare()
    with pytest.raises(JobFailed, match=message):
        call_all(job, folder, "load_sources", "build")


def test_a_function_that_gives_no_estimator_is_named(job: Job, prepare: Prepare, package: Path) -> None:
    (package / "taxis" / "train.py").write_text("def train(training, params):\n    return 3\n")
    folder = prepare()
    call_all(job, folder, "load_sources", "build")
    with pytest.raises(
        JobFailed, match=r"taxis\.train:train should give a fitted estimator with predict_proba, got int"
    ):
        job.call("fit", run=str(folder.path))


def pack(job: Job, folder: RunFolder, number: int) -> dict:
    """Everything up to the bundle, with a version's number that no server gave."""
    call_all(job, folder, "load_sources", "build", "fit", "evaluate")
    folder.write("tracked", {"run": "run", "version": number})
    return job.call("pack", run=str(folder.path))


def test_a_bundle_holds_what_serving_and_monitoring_need(job: Job, prepare: Prepare) -> None:
    folder = prepare()
    packed = pack(job, folder, 1)
    manifest = read_manifest(folder.bundle)
    verify_files(folder.bundle, manifest)
    assert packed["runtime"] == manifest.runtime == "linear"
    assert manifest.views == VIEWS
    paths = {file.path for file in manifest.files}
    assert {"baseline.json", "importances.json", "environment.txt", "training_set.json", "model/MLmodel"} <= paths
    runtime = load_runtime(folder.bundle, manifest)
    assert runtime.probe() > 0
    runtime.close()
    facts = manifest.facts
    assert facts["trained_until"] == folder.read("built")["split"]["holdout_start"]
    assert facts["datasets"]["rides"]["version"] == 0
    assert max(facts["importances"], key=facts["importances"].get) in {"distance", "busy", "busy_6h"}
    assert sum(facts["importances"].values()) == pytest.approx(1)
    profiles = parse_baseline(json.loads((folder.bundle / "baseline.json").read_text()))
    assert profiles.columns["zone"].rows == folder.read("built")["fitted"]
    assert profiles.columns["seats"].null_rate == pytest.approx(1 / 11, abs=0.02)
    assert profiles.prediction is not None
    assert profiles.prediction.rows == folder.read("built")["held_out"]


def test_champion_and_challenger_meet_on_rows_that_neither_was_trained_on(
    job: Job, prepare: Prepare, tmp_path: Path
) -> None:
    first = prepare("run-1", as_of=datetime(2024, 2, 20, tzinfo=UTC))
    pack(job, first, 1)
    champion = Champion(1, str(first.bundle))

    def challenge(as_of: datetime, **changes: object) -> dict:
        folder = prepare("run-2", as_of=as_of, champion=champion, **changes)
        return call_all(job, folder, "load_sources", "build", "fit", "evaluate")

    later = challenge(datetime(2024, 3, 1, tzinfo=UTC))
    assert later["champion"] == 1
    assert later["champion_metrics"]["roc_auc"] == pytest.approx(later["metrics"]["roc_auc"], abs=0.05)
    assert later["rows"] == pytest.approx(7 * 72, abs=10)
    # Two days later the challenger holds out five days that the champion has seen nothing of, and the two after.
    trained_until = read_manifest(first.bundle).facts["trained_until"]
    soon = challenge(datetime(2024, 2, 18, tzinfo=UTC))
    assert datetime.fromisoformat(soon["holdout"][0]) >= datetime.fromisoformat(str(trained_until))
    assert soon["rows"] < 6 * 72
    long_before = challenge(datetime(2024, 2, 10, tzinfo=UTC))
    assert long_before["champion_metrics"] == {}
    assert "Not compared with version 1: it was trained until" in long_before["champion_note"]


def test_a_champion_with_other_views_looks_its_own_features_up(job: Job, prepare: Prepare) -> None:
    first = prepare("run-1", as_of=datetime(2024, 2, 20, tzinfo=UTC))
    pack(job, first, 1)
    traffic = VIEWS[0]
    changed = FeatureView(
        "traffic",
        entity=traffic.entity,
        source="zones",
        features={"busy": latest("busy"), "busy_6h": mean("busy", over="48h")},
    )
    folder = prepare("run-2", champion=Champion(1, str(first.bundle)), views=(changed,))
    found = call_all(job, folder, "load_sources", "build", "fit", "evaluate")
    rows = pl.read_parquet(folder.rows)
    assert "c_busy_6h" in rows.columns
    assert rows["c_busy_6h"].to_list() != rows["x_busy_6h"].to_list()
    assert found["champion_metrics"]["roc_auc"] > 0.8


def test_without_event_time_a_key_is_held_out_in_every_run(job: Job, prepare: Prepare, package: Path) -> None:
    declared = parse_contract(
        """
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
    )
    (package / "taxis" / "plain.py").write_text(
        "from datetime import UTC, datetime\n"
        "from sklearn.ensemble import HistGradientBoostingClassifier\n"
        "from taxis import sources\n\n\n"
        "def rides():\n"
        "    rows = sources.rides(datetime(2024, 3, 1, tzinfo=UTC))\n"
        '    return rows.drop("asked_at", "ended_at").sample(fraction=1, shuffle=True, seed=1)\n\n\n'
        "def train(training, params):\n"
        '    model = HistGradientBoostingClassifier(categorical_features="from_dtype", max_iter=30, random_state=1)\n'
        "    return model.fit(training.inputs, training.label)\n"
    )
    first = prepare("run-1", declared=declared, views=())
    packed = pack(job, first, 1)
    assert packed["facts"]["trained_until"] is None
    second = prepare("run-2", declared=declared, views=(), champion=Champion(1, str(first.bundle)))
    found = call_all(job, second, "load_sources", "build", "fit", "evaluate")
    assert found["holdout"] is None
    assert found["rows"] == pytest.approx(second.read("built")["rows"] / 4, rel=0.1)
    assert found["champion_metrics"] == pytest.approx(found["metrics"])
