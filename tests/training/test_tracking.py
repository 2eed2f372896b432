from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from relevo.errors import JobFailed
from relevo.platform.jobs import Job
from relevo.training.folder import RunFolder

Prepare = Callable[..., RunFolder]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real MLflow server on SQLite."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store, "--artifacts-destination", str(tmp_path / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, cwd=tmp_path, env=environment
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 150
        while not _answers(url):
            assert process.poll() is None, (tmp_path / "mlflow.log").read_text()
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


def child(package: Path, log: Path) -> Job:
    environment = {"PYTHONHASHSEED": "0", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "GIT_PYTHON_REFRESH": "quiet"}
    return Job("relevo.training.child", python=Path(sys.executable), package=package, log=log, environment=environment)


def test_a_run_is_tracked_once_however_often_the_step_is_repeated(
    server: str, prepare: Prepare, package: Path, tmp_path: Path
) -> None:
    folder = prepare(tracking_url=server)
    with child(package, tmp_path / "child.log") as job:
        for step in ("load_sources", "build", "fit", "evaluate", "track"):
            first = job.call(step, run=str(folder.path))
    with child(package, tmp_path / "child.log") as job:
        assert job.call("track", run=str(folder.path)) == first

    def ask(path: str, **body: object) -> dict:
        answer = httpx.request("POST" if body else "GET", f"{server}/api/2.0/mlflow/{path}", json=body or None)
        return dict(answer.raise_for_status().json())

    versions = ask("model-versions/search")["model_versions"]
    assert [(each["name"], each["version"], each["run_id"]) for each in versions] == [("rides", "1", first["run"])]
    assert first["version"] == 1
    run = ask(f"runs/get?run_id={first['run']}")["run"]
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert tags["relevo.workflow_id"] == "run-1"
    assert tags["relevo.dataset.rides"] == "0"
    assert len(tags["relevo.environment"]) == 64
    assert run["info"]["status"] == "FINISHED"
    metrics = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    assert metrics["roc_auc"] == folder.read("evaluation")["metrics"]["roc_auc"]
    assert {param["key"]: param["value"] for param in run["data"]["params"]} == {"strength": "1.0"}


def test_a_server_that_is_away_is_named(prepare: Prepare, package: Path, tmp_path: Path) -> None:
    folder = prepare(tracking_url="http://127.0.0.1:9")
    with child(package, tmp_path / "child.log") as job:
        for step in ("load_sources", "build", "fit", "evaluate"):
            job.call(step, run=str(folder.path))
        with pytest.raises(JobFailed, match=r"MLflow at http://127\.0\.0\.1:9"):
            job.call("track", run=str(folder.path))
