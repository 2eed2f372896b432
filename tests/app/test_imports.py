"""Models that an ordinary MLflow client logged to a running Relevo: imported, approved, called, compared to MLflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from running import Relevo, eventually
from team import copy_project

from relevo.errors import Conflict, Invalid, NotAllowed, NotFound

pytestmark = pytest.mark.timeout(600)
PROGRAM = Path(__file__).parent / "mlflow_user.py"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relevo]:
    """A Relevo of its own: parts of it are killed."""
    started = Relevo(tmp_path_factory.mktemp("imports") / "home")
    try:
        started.start()
        started.invite()
        yield started
    finally:
        started.close()


@pytest.fixture(scope="module")
def said(home: Relevo) -> dict[str, Any]:
    """What the data scientist registered, and what MLflow answers for it."""
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"{home.url}/mlflow",
        "MLFLOW_TRACKING_TOKEN": home.engineer.credentials.token,
    }
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def begin(relevo: Relevo, uri: str, **asked: object) -> str:
    started: str = relevo.engineer.post("/api/imports", {"uri": uri, **asked})["import"]
    return started


def ended(relevo: Relevo, import_id: str) -> dict[str, Any]:
    """The import once it is done."""

    def look() -> dict[str, Any] | None:
        shown: dict[str, Any] = relevo.admin.get(f"/api/imports/{import_id}")
        return None if shown["state"] == "running" else shown

    return eventually(look, f"{import_id} to end", 300)


def bring_live(relevo: Relevo, uri: str, **asked: object) -> dict[str, Any]:
    shown = ended(relevo, begin(relevo, uri, **asked))
    assert shown["state"] == "succeeded", shown["error"]
    relevo.bring_live(shown["release"])
    return shown


def predictions(relevo: Relevo, model: str, rows: list[dict[str, Any]]) -> list[float]:
    body = {"dataframe_records": rows}
    answers: list[float] = relevo.application.gateway_post(f"/endpoints/{model}/invocations", body)["predictions"]
    return answers


def test_a_pipeline_with_text_columns_is_compiled_reviewed_and_answers_as_mlflow_does(
    home: Relevo, said: dict[str, Any]
) -> None:
    shown = ended(home, begin(home, "models:/churn/1", reason="the notebook's best"))
    found = shown["found"]
    assert found["flavor"] == "sklearn" and found["runtime"] == "linear", found["agreement"]["refused"]
    assert found["signature"]["classes"] == ["leaves", "stays"]
    assert found["compared_on"] == "5 rows of the input example and 300 generated rows; there was no holdout"
    assert set(found["agreement"]["rows"]) >= {"generated", "unseen", "category", "large"}
    assert found["logged_metrics"] == {"accuracy": 0.9}
    release = home.await_state(shown["release"], "waiting_for_approval")
    assert (release["model"], release["version"]) == ("churn", 1)
    assert release["reason"] == "imported from models:/churn/1"
    with pytest.raises(NotAllowed):
        home.engineer.post(f"/api/releases/{shown['release']}/decision", {"approved": True, "reason": "mine"})
    assert home.bring_live(shown["release"]) == 1
    answers = predictions(home, "churn", said["churn"]["rows"])
    assert answers == pytest.approx(said["churn"]["probabilities"], abs=1e-9)
    assert ["stays" if answer > 0.5 else "leaves" for answer in answers] == said["churn"]["labels"]
    actions = [entry["action"] for entry in home.ledger("churn")]
    began = ["model imported", "release began", "version sealed", "gates judged"]
    assert actions[:6] == [*began, "load test judged", "release approved"]


def test_text_that_the_model_has_not_seen_is_answered_as_by_the_model_itself(
    home: Relevo, said: dict[str, Any]
) -> None:
    row = {**said["churn"]["rows"][0], "plan": "gold"}
    other = {**row, "plan": "silver"}
    assert predictions(home, "churn", [row]) == predictions(home, "churn", [other])
    with pytest.raises(Invalid, match="months"):
        predictions(home, "churn", [{**row, "months": None}])


def test_the_same_version_again_gives_the_same_import_and_a_next_one_replaces_it_by_a_canary(
    home: Relevo, said: dict[str, Any]
) -> None:
    assert begin(home, "models:/churn/1") == "import-churn-v1-1"
    shown = ended(home, begin(home, "models:/churn@chosen"))
    assert shown["state"] == "succeeded", shown["error"]
    home.await_state(shown["release"], "waiting_for_approval")
    home.approve(shown["release"])
    home.await_state(shown["release"], "canary")
    eventually(lambda: home.shares("churn") == [(1, 95), (2, 5)], "the canary's route")
    home.admin.post(f"/api/releases/{shown['release']}/cancel", {"reason": "seen enough"})
    assert home.shares("churn") == [(1, 100)]
    assert begin(home, "models:/churn/2") == "import-churn-v2-2"  # cancelled by no fault of its own
    again = ended(home, "import-churn-v2-2")
    assert home.await_state(again["release"], "canary", "waiting_for_approval")["version"] == 2
    home.admin.post(f"/api/releases/{again['release']}/cancel", {"reason": "enough"})


def test_a_booster_is_asked_through_its_own_library(home: Relevo, said: dict[str, Any]) -> None:
    shown = bring_live(home, "models:/spend/1")
    assert (shown["found"]["flavor"], shown["found"]["runtime"]) == ("lightgbm", "lightgbm")
    assert shown["found"]["compared_on"] == "300 generated rows; there was no holdout"
    assert predictions(home, "spend", said["spend"]["rows"]) == pytest.approx(said["spend"]["answers"], abs=1e-9)


@pytest.mark.parametrize(
    ("name", "flavor", "runtime"),
    [
        ("xgboost-booster", "xgboost", "xgboost"),
        ("xgboost-estimator", "xgboost", "xgboost"),
        ("catboost", "catboost", "isolated"),
    ],
)
def test_trees_of_other_libraries_are_asked_for_their_probabilities(
    home: Relevo, said: dict[str, Any], name: str, flavor: str, runtime: str
) -> None:
    shown = bring_live(home, f"models:/{name}/1")
    assert (shown["found"]["flavor"], shown["found"]["runtime"]) == (flavor, runtime), shown["found"]["agreement"]
    assert shown["found"]["signature"]["classes"] == ["0", "1"]
    expected = said["trees"]["probabilities"][name]
    assert predictions(home, name, said["trees"]["rows"]) == pytest.approx(expected, rel=1e-6)


def test_a_model_that_needs_another_scikit_learn_runs_in_that_one(home: Relevo, said: dict[str, Any]) -> None:
    assert metadata.version("scikit-learn") != "1.7.2"
    shown = bring_live(home, "models:/told/1")
    assert shown["found"]["environment"].endswith("pins, built by uv")
    assert "scikit-learn 1.7.2" in shown["found"]["libraries"]
    assert shown["found"]["runtime"] == "isolated"
    assert predictions(home, "told", said["spend"]["rows"][:2]) == [1.7, 1.7]


def test_a_python_model_gets_the_frame_that_its_signature_promises(home: Relevo, said: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="begins with a letter") as refused:
        begin(home, "models:/Premium prices/1")
    assert refused.value.hint == "Import it under another name: --as NAME."
    shown = bring_live(home, "models:/Premium prices/1", model="premium", owner="pricing", environment="own")
    assert (shown["found"]["flavor"], shown["found"]["runtime"]) == ("python_function", "isolated")
    assert predictions(home, "premium", said["premium"]["rows"]) == pytest.approx(said["premium"]["answers"], abs=1e-9)
    assert home.admin.get("/api/models/premium")["owner"] == "pricing"


def test_a_model_of_a_run_is_registered_first(home: Relevo, said: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="under which name"):
        begin(home, f"runs:/{said['run']}/spend")
    first = begin(home, f"runs:/{said['run']}/spend", model="spend-of-run")
    assert ended(home, first)["state"] == "succeeded"
    assert begin(home, f"runs:/{said['run']}/spend", model="spend-of-run") == first == "import-spend-of-run-v1-1"


@pytest.mark.usefixtures("said")
def test_what_cannot_be_imported_is_refused_with_what_to_do(home: Relevo) -> None:
    with pytest.raises(Invalid, match="no signature") as unsigned:
        begin(home, "models:/unsigned/1")
    assert "infer_signature" in (unsigned.value.hint or "")
    with pytest.raises(NotFound, match=r"has no version 9; its newest versions are: 2, 1"):
        begin(home, "models:/churn/9")
    with pytest.raises(NotFound, match="did you mean 'churn'"):
        begin(home, "models:/churm/1")
    with pytest.raises(Invalid, match="models:/NAME/VERSION"):
        begin(home, "s3://bucket/model")
    shown = ended(home, begin(home, "models:/impossible/1"))
    assert shown["state"] == "failed" and "scikit-learn" in shown["error"]["message"]
    assert "--environment own" in shown["error"]["hint"]
    with pytest.raises(NotFound):
        home.admin.get("/api/models/impossible")
    with pytest.raises(NotAllowed):
        home.application.post("/api/imports", {"uri": "models:/churn/1"})


@pytest.mark.usefixtures("said")
def test_names_of_contracts_and_of_imports_exclude_one_another(home: Relevo, tmp_path: Path) -> None:
    project = copy_project("parcels", tmp_path)
    home.apply(project.folder)
    with pytest.raises(Conflict, match="has a contract"):
        begin(home, "models:/churn/1", model="parcels")
    with pytest.raises(Conflict, match="imported from models:/churn, not from models:/spend"):
        begin(home, "models:/spend/1", model="churn")
    with pytest.raises(Conflict, match="nothing to train"):
        home.engineer.post("/api/models/churn/train", {"reason": "try"})
    taken = copy_project("churn", tmp_path / "taken")
    with pytest.raises(Conflict, match="is imported from models:/churn"):
        home.apply(taken.folder)


@pytest.mark.usefixtures("said")
def test_an_import_goes_on_after_the_control_plane_was_killed(home: Relevo) -> None:
    import_id = begin(home, "models:/churn/1", model="churn-again", environment="own")
    home.kill_and_await("control")
    shown = ended(home, import_id)
    assert shown["state"] == "succeeded", shown["error"]
    assert home.bring_live(shown["release"]) == 1
    assert len(home.ledger("churn-again", action="model imported")) == 1


@pytest.mark.usefixtures("said")
def test_the_command_shows_what_it_found_and_who_must_approve(home: Relevo) -> None:
    printed = home.command("import", "models:/spend/1", "--as", "spend-by-command")
    assert "lightgbm, compiled" in printed and "300 generated rows" in printed
    assert "relevo approve deliver-spend-by-command-r1" in printed
    refused = home.command("import", "models:/nothing/1", check=4)
    assert "There is no registered model 'nothing'" in refused
