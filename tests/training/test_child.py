from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from relevo.errors import JobFailed
from relevo.platform.jobs import Job
from relevo.training.folder import RunFolder

Prepare = Callable[..., RunFolder]


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
