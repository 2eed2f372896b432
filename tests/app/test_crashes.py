"""kill -9 of the control plane at the bad moments of a release: it is finished, and no finished step is repeated."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import httpx
from running import Load, Relevo, eventually
from team import Project, apply_next, finish_canary


def recorded_steps(home: Path, release: str) -> Counter[str]:
    """How often each named step of the workflow is recorded, looks and clock readings left out."""
    with closing(sqlite3.connect(f"file:{home / 'dbos.db'}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT function_name FROM operation_outputs WHERE workflow_uuid = ?", (release,)
        ).fetchall()
    names = [name for (name,) in rows]
    return Counter(name for name in names if not name.startswith(("look at", "DBOS.", "now", "await approval")))


def tracked(relevo: Relevo, model: str, release: str) -> tuple[list[str], list[int]]:
    """The runs that MLflow has for this release, and the versions made from them."""
    headers = {"Authorization": f"Bearer {relevo.engineer.credentials.token}"}
    with httpx.Client(base_url=f"{relevo.url}/mlflow/api/2.0/mlflow", headers=headers, timeout=120) as client:
        experiment = client.get("/experiments/get-by-name", params={"experiment_name": model}).json()["experiment"]
        body = {"experiment_ids": [experiment["experiment_id"]], "filter": f"tags.`relevo.workflow_id` = '{release}'"}
        runs = client.post("/runs/search", json=body).json().get("runs", [])
        versions = client.get("/model-versions/search", params={"filter": f"name='{model}'"}).json()["model_versions"]
    ids = [run["info"]["run_id"] for run in runs]
    return ids, [int(version["version"]) for version in versions if version["run_id"] in ids]


def check_done_once(relevo: Relevo, project: Project, release: str) -> None:
    """Every step of a live release was done once, by the workflow's record, MLflow, registry, ledger and routes."""
    version = relevo.release(release)["release"]["version"]
    steps = recorded_steps(relevo.home, release)
    assert steps.pop("prepare") == 2  # the release's own, and its training's
    assert set(steps.values()) == {1}, steps
    assert {"load sources", "fit", "track", "pack", "seal", "judge", "load", "promote"} <= set(steps)
    runs, versions = tracked(relevo, project.model, release)
    assert (len(runs), versions) == (1, [version])
    sealed = relevo.admin.get(f"/api/models/{project.model}/versions")
    assert [one["number"] for one in sealed if one["run_id"] in runs] == [version]
    actions = Counter(e["action"] for e in relevo.ledger(project.model) if e["facts"].get("release") == release)
    assert actions == {
        "release began": 1, "gates judged": 1, "load test judged": 1, "release approved": 1, "traffic shifted": 2,
        "version promoted": 1,
    }  # fmt: skip
    shares = [
        [(arm["version"], arm["percent"]) for arm in route["arms"]][-1]
        for route in relevo.admin.get(f"/api/models/{project.model}/history")
    ]
    assert [share for share in shares if share[0] == version][:3] == [(version, 10), (version, 50), (version, 100)]
    assert relevo.admin.get("/api/ledger/verification")["entries"] > 0


def test_a_kill_in_the_middle_of_training_repeats_only_the_step_in_flight(relevo: Relevo, contested: Project) -> None:
    before = len(contested.record())
    with Load(relevo, contested.model).running() as load:
        release = apply_next(relevo, contested, waits_for="after the kill")
        eventually(lambda: "fit began" in contested.record()[before:], "the fit to begin")
        relevo.kill("control")
        load.await_more(20)  # predictions do not need the control plane
        eventually(lambda: contested.record()[before:].count("fit began") == 2, "the fit to begin again")
        contested.let_go("after the kill")
        relevo.await_state(release, "waiting_for_approval")
        relevo.approve(release)
        finish_canary(relevo, contested, release)
        load.await_more(20)
    assert load.failures == []
    assert contested.record()[before:] == ["parcels loaded", "fit began", "fit began", "fit ended"]
    check_done_once(relevo, contested, release)


def test_a_kill_in_the_wait_for_approval_leaves_the_release_waiting(relevo: Relevo, contested: Project) -> None:
    with Load(relevo, contested.model).running() as load:
        release = apply_next(relevo, contested)
        relevo.await_state(release, "waiting_for_approval")
        relevo.kill_and_await("control")
        assert relevo.release(release)["release"]["state"] == "waiting_for_approval"
        relevo.approve(release)
        finish_canary(relevo, contested, release)
    assert load.failures == []
    check_done_once(relevo, contested, release)


def test_kills_right_after_the_approval_and_in_the_canary_lose_neither(relevo: Relevo, contested: Project) -> None:
    with Load(relevo, contested.model).running() as load:
        release = apply_next(relevo, contested)
        relevo.await_state(release, "waiting_for_approval")
        relevo.approve(release)
        relevo.kill_and_await("control")
        version = relevo.await_state(release, "canary")["version"]
        eventually(lambda: load.versions.get(version), "the challenger to be asked")
        relevo.kill("control")
        answered = load.versions[version]
        eventually(lambda: load.versions[version] > answered + 5, "the canary to go on without the control plane")
        eventually(relevo.answers, "the control plane to answer again")
        assert finish_canary(relevo, contested, release) == version
    assert load.failures == []
    check_done_once(relevo, contested, release)


def test_a_release_asked_for_while_the_workflows_come_up_begins(relevo: Relevo, contested: Project) -> None:
    relevo.kill_and_await("control")
    release = relevo.engineer.post(f"/api/models/{contested.model}/train", {"reason": "as soon as it answers"})[
        "release"
    ]
    relevo.admin.post(f"/api/releases/{release}/cancel", {"reason": "it has begun"})
    assert relevo.await_state(release, "cancelled")["outcome"] == "it has begun"
