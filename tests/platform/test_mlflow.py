"""A real MLflow client, and callers with worse intentions, against MLflow behind its guard on a real server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from relevo.errors import NotFound
from relevo.platform.mlflow import check_path

FOLDER = Path(__file__).parent
ROUTES = FOLDER / "mlflow_routes.txt"
pytestmark = pytest.mark.timeout(180)


@contextmanager
def serving(home: Path, *arguments: str) -> Iterator[dict[str, Any]]:
    """The facts of a server that runs."""
    home.mkdir()
    with (home / "log").open("w") as log:
        command = [sys.executable, str(FOLDER / "tracking_server.py"), str(home), *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 90
        while not (home / "server.json").exists():
            assert process.poll() is None and time.monotonic() < deadline, (home / "log").read_text()[-3000:]
            time.sleep(0.1)
        yield json.loads((home / "server.json").read_text())
    finally:
        process.kill()
        process.wait()


def run_client(server: dict[str, Any], token: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MLFLOW_TRACKING_URI": server["url"], "MLFLOW_TRACKING_TOKEN": token}
    program = str(FOLDER / "tracking_client.py")
    return subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True, timeout=150, check=False
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with serving(tmp_path_factory.mktemp("mlflow") / "home") as facts:
        yield facts


@pytest.fixture(scope="module")
def seen(server: dict[str, Any]) -> dict[str, Any]:
    """What an engineer's script saw."""
    done = run_client(server, server["tokens"]["engineer"])
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def caller(server: dict[str, Any]) -> Iterator[Callable[..., httpx.Response]]:
    """Calls a path below the prefix, as it stands, with the token of a role."""
    with closing(httpx.Client(base_url=server["url"])) as client:

        def call(method: str, path: str, role: str = "engineer", **arguments: Any) -> httpx.Response:
            headers = {**arguments.pop("headers", {}), "Authorization": f"Bearer {server['tokens'][role]}"}
            return client.request(method, path, headers=headers, **arguments)

        yield call


def test_a_plain_client_logs_registers_and_loads_a_model_back(seen: dict[str, Any]) -> None:
    assert seen["params"] == {"own": "value", "C": "0.5"}
    assert {"own_metric", "training_roc_auc"} <= set(seen["metrics"])
    assert {"report.html", "estimator.html"} <= set(seen["artifacts"])
    assert seen["agrees"]


def test_a_governed_model_is_changed_by_releases_alone(seen: dict[str, Any]) -> None:
    refusals = {
        "alias": "change an alias",
        "delete alias": "change an alias",
        "stage": "change a stage",
        "rename": "rename it",
        "delete version": "delete a version",
        "delete": "delete it",
    }
    for action, words in refusals.items():
        expected = f"flight-delay is governed by a Relevo contract: releases decide on it, and MLflow may not {words}."
        assert expected in seen[f"flight-delay {action}"]
    assert "may not give its name to another model" in seen["free-2 takes its name"]
    assert seen["flight-delay describe"] == "done"


def test_other_models_are_as_free_as_ever(seen: dict[str, Any]) -> None:
    for action in ("alias", "delete alias", "stage", "describe", "rename", "delete version"):
        assert seen[f"free {action}"] == "done"
    assert seen["free-2 delete"] == "done"


def test_without_a_token_the_client_is_told_what_it_needs(server: dict[str, Any]) -> None:
    answer = httpx.get(f"{server['url']}/api/2.0/mlflow/experiments/search")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic")
    body = answer.json()
    assert body["error_code"] == "NOT_AUTHENTICATED"
    assert "MLFLOW_TRACKING_TOKEN" in body["message"] == body["error"]["message"]
    wrong = run_client(server, "rlv_wrong")
    assert wrong.returncode != 0
    assert "The token is not known here" in wrong.stderr


def test_a_viewer_reads_and_does_not_write(seen: dict[str, Any], caller: Callable[..., httpx.Response]) -> None:
    experiment = {"experiment_ids": [seen["experiment"]]}
    assert caller("POST", "/api/2.0/mlflow/runs/search", "viewer", json=experiment).json()["runs"]
    assert caller("GET", f"/get-artifact?path=report.html&run_uuid={seen['run']}", "viewer").status_code == 200
    parameter = {"run_id": seen["run"], "key": "a", "value": "b"}
    for role, status in {"viewer": 403, "application": 403, "engineer": 200, "run": 200}.items():
        assert caller("POST", "/api/2.0/mlflow/runs/log-parameter", role, json=parameter).status_code == status
    refused = caller("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{seen['experiment']}/x", "viewer", content=b"x")
    assert (refused.status_code, refused.json()["error_code"]) == (403, "NOT_ALLOWED")
    assert caller("GET", "/api/2.0/mlflow/experiments/search?max_results=1", "application").status_code == 403


def test_artifacts_of_a_registered_version_are_written_once(
    seen: dict[str, Any], caller: Callable[..., httpx.Response]
) -> None:
    folder = seen["artifact_location"].removeprefix("mlflow-artifacts:/")
    above = folder.removesuffix("/artifacts")
    for api in ("/api/2.0/mlflow-artifacts", "/ajax-api/2.0/mlflow-artifacts"):
        before = caller("GET", f"{api}/artifacts/{folder}/MLmodel").content
        for method, path in {
            "PUT": f"{folder}/MLmodel",
            "DELETE": f"{folder}/MLmodel",
        }.items():
            answer = caller(method, f"{api}/artifacts/{path}", content=b"changed")
            assert (answer.status_code, "never change" in answer.json()["message"]) == (403, True)
        for path in (folder, above, f"{above}/", above.rpartition("/")[0]):
            assert caller("DELETE", f"{api}/artifacts/{path}").status_code == 403
        for path in (seen["experiment"], "file:1/x", f"file:{folder}/MLmodel"):
            assert caller("DELETE", f"{api}/artifacts/{path}").status_code == 400
            assert caller("PUT", f"{api}/artifacts/{path}", content=b"x").status_code == 400
        for part in ("create", "complete", "abort"):
            assert caller("POST", f"{api}/mpu/{part}/{folder}/MLmodel", json={}).status_code == 404
        assert caller("GET", f"{api}/artifacts/{folder}/MLmodel").content == before
    upload = f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={seen['run']}&path=x"
    assert caller("POST", upload, content=b"x").status_code == 404


def test_artifacts_of_a_run_may_change(seen: dict[str, Any], caller: Callable[..., httpx.Response]) -> None:
    path = f"/api/2.0/mlflow-artifacts/artifacts/{seen['experiment']}/{seen['run']}/artifacts/note.txt"
    for content in (b"one", b"two"):
        assert caller("PUT", path, content=content).status_code == 200
    assert caller("GET", path).content == b"two"
    assert caller("DELETE", path).status_code == 200


@pytest.mark.parametrize("source", ["file:///etc", "mlflow-artifacts://elsewhere/1/a/b", "mlflow-artifacts:/1", "/etc"])
def test_a_version_comes_from_artifacts_kept_here(source: str, caller: Callable[..., httpx.Response]) -> None:
    caller("POST", "/api/2.0/mlflow/registered-models/create", json={"name": "sources"})
    body = {"name": "sources", "source": source}
    assert caller("POST", "/api/2.0/mlflow/model-versions/create", json=body).status_code == 400


def test_an_uploaded_page_is_shown_without_our_origin(
    seen: dict[str, Any], caller: Callable[..., httpx.Response]
) -> None:
    folder = seen["artifact_location"].removeprefix("mlflow-artifacts:/")
    model_id = folder.split("/")[2]
    for path in (
        f"/get-artifact?path=report.html&run_uuid={seen['run']}",
        f"/api/2.0/mlflow-artifacts/artifacts/{seen['experiment']}/{seen['run']}/artifacts/report.html",
        "/model-versions/get-artifact?path=MLmodel&name=flight-delay&version=1",
        f"/ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files?artifact_file_path=MLmodel",
    ):
        answer = caller("GET", path)
        assert answer.status_code == 200, path
        assert "sandbox" in answer.headers.get_list("content-security-policy")
        assert "nosniff" in answer.headers["x-content-type-options"]


@pytest.mark.parametrize(
    "path",
    [
        "/ajax-api/3.0/mlflow/assistant/config",
        "/gateway/openai/v1/chat/completions",
        "/ajax-api/2.0/mlflow/gateway-proxy",
        "/ajax-api/3.0/jobs",
        "/api/2.0/mlflow/webhooks",
        "/ajax-api/3.0/mlflow/mcp-servers",
        "/api/3.0/mlflow/scorers/list",
        "/ajax-api/3.0/mlflow/prompt-optimization/jobs",
        "/api/3.0/mlflow/gateway/secrets/list",
        "/ajax-api/2.0/mlflow/runs/create-promptlab-run",
        "/ajax-api/2.0/mlflow/get-trace-artifact?request_id=x",
        "/v1/traces",
        "/metrics",
        "/unknown",
        "//api/2.0/mlflow/experiments/search",
        "/api/2.0/mlflow/runs//search",
        "/static-files/%2e%2e/%2e%2e/etc/passwd",
        "/api/2.0/mlflow-artifacts/artifacts/1/%252e%252e/%252e%252e/state.db",
        "/api/2.0/mlflow-artifacts/artifacts/1/a%255cb",
        "/api/2.0/mlflow-artifacts/artifacts/1/..%5c..%5cstate.db",
        "/api/2.0/mlflow-artifacts/artifacts/1/./x",
        "/api/2.0/mlflow/registered-models/%2e%2e/webhooks",
        "/api/2.0/mlflow/experiments/get%0a",
    ],
)
def test_paths_that_were_not_looked_at_are_refused(path: str, server: dict[str, Any]) -> None:
    raw = server["url"].split("://")[1]
    host, _, _ = raw.partition("/")
    # httpx would tidy the path up; a bad caller does not.
    with closing(httpx.Client(transport=httpx.HTTPTransport())) as client:
        request = client.build_request(
            "GET", f"http://{host}/", headers={"Authorization": f"Bearer {server['tokens']['engineer']}"}
        )
        request.extensions["target"] = f"/mlflow{path}".encode()
        answer = client.send(request)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("path", ["/api/2.0/mlflow-artifacts/artifacts/1/x", "/api/2.0/mlflow/experiments/search", "/"])
def test_nothing_of_mlflow_answers_outside_its_prefix(path: str, server: dict[str, Any]) -> None:
    root = server["url"].removesuffix("/mlflow")
    headers = {"Authorization": f"Bearer {server['tokens']['engineer']}"}
    answer = httpx.get(f"{root}{path}", headers=headers)
    assert (answer.status_code, answer.text) == (404, "Not Found")


def test_pages_load_with_a_session_and_another_site_cannot_use_it(server: dict[str, Any]) -> None:
    url, host = server["url"], server["url"].removesuffix("/mlflow")
    with closing(httpx.Client(cookies={"relevo_session": server["tokens"]["session"]})) as browser:
        page = browser.get(f"{url}/")
        assert page.status_code == 200
        files = re.findall(r'(?:src|href)="(?:\./)?(static-files/[^"]+)"', page.text)
        assert any(name.endswith(".js") for name in files)
        for name in files:
            assert browser.get(f"{url}/{name}").status_code == 200, name
        search = f"{url}/ajax-api/2.0/mlflow/runs/search"
        for origin, status in {host: 200, "http://elsewhere.example": 403, "null": 403, "": 403}.items():
            headers = {"Origin": origin} if origin else {}
            assert browser.post(search, json={"experiment_ids": ["0"]}, headers=headers).status_code == status
        # A viewer's session does not write, wherever it comes from.
        create = f"{url}/ajax-api/2.0/mlflow/experiments/create"
        assert browser.post(create, json={"name": "x"}, headers={"Origin": host}).status_code == 403


def test_the_routes_of_mlflow_are_those_that_were_looked_at(server: dict[str, Any]) -> None:
    """An upgrade that adds a route fails here: look at it, then write the list anew (``+`` is let through)."""
    # Its gateway is refused as a whole, whichever providers it passes requests on to.
    looked_at = [line for line in server["routes"] if not re.match(r"- [A-Z]+ /mlflow/gateway/", line)]
    found = "\n".join(looked_at) + "\n"
    if os.environ.get("RELEVO_WRITE_SNAPSHOTS"):
        ROUTES.write_text(found)
    assert found == ROUTES.read_text()
    assert not [line for line in server["routes"] if line.startswith("+") and " /mlflow" not in line]


@pytest.mark.parametrize("path", ["/", "/api/2.0/mlflow/runs/create", "/static-files/static/js/main.js"])
def test_what_clients_need_passes(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize(
    "path",
    ["/%2e%2e/x", "/api/2.0/mlflow/runs/../webhooks", "/api/2.0/mlflow/artifacts/presigned-upload-url", "/x\x00"],
)
def test_what_could_be_read_as_another_path_does_not(path: str) -> None:
    with pytest.raises(NotFound):
        check_path(path)


def test_a_shared_postgresql_holds_mlflow_in_a_schema_of_its_own(postgresql: str, tmp_path: Path) -> None:
    server_url = sa.make_url(postgresql).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(server_url, isolation_level="AUTOCOMMIT")
    name = f"relevo_mlflow_{os.getpid()}"
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    shared = server_url.set(database=name)
    try:
        with serving(tmp_path / "home", shared.render_as_string(hide_password=False)) as facts:
            headers = {"Authorization": f"Bearer {facts['tokens']['engineer']}"}
            answer = httpx.post(
                f"{facts['url']}/api/2.0/mlflow/experiments/create", json={"name": "one"}, headers=headers
            )
            assert answer.status_code == 200
            reading = sa.create_engine(shared)
            tables = sa.inspect(reading).get_table_names(schema="mlflow")
            assert {"experiments", "model_versions", "alembic_version"} <= set(tables)
            assert sa.inspect(reading).get_table_names(schema="public") == []
            reading.dispose()
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        engine.dispose()
