"""``relevo up``: one command that starts, guards, restarts and stops everything."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from running import MODULES, Relevo, descendants, eventually, is_free

from ports import free_ports
from relevo.app.control import build
from relevo.app.installation import prepare
from relevo.app.services import compose
from relevo.identity.api import declared_permissions
from relevo.platform.settings import Settings

OPEN = {"GET /health", "GET /login", "POST /login", "MOUNT /static"}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relevo]:
    """A Relevo of this module's own, which tests stop and start; started when a test begins."""
    made = Relevo(tmp_path_factory.mktemp("up") / "home")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def running(own: Relevo) -> Relevo:
    """It, running."""
    if own.process is None:
        own.start()
    return own


def test_the_first_admin_token_is_shown_once(running: Relevo) -> None:
    kept = running.home / "cli.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    running.invite()
    token = running.admin.credentials.token
    assert running.said().count(f"First admin token, shown once: {token}\n") == 1
    assert running.admin.get("/api/me") == {"name": "admin", "role": "admin"}
    running.stop()
    running.start()
    assert running.said().count("First admin token") == 1
    assert running.said().count(token) == 1
    assert all(token.encode() not in path.read_bytes() for path in (running.home / "logs").rglob("*.log"))
    assert running.admin.get("/api/me")["name"] == "admin"


def test_a_second_up_on_the_same_home_is_refused_with_the_reason(running: Relevo) -> None:
    assert running.process is not None
    said = running.command("up", check=5)
    assert f"is in use by process {running.process.pid}, which serves {running.url}" in said
    assert "RELEVO_HOME" in said
    assert running.answers()


@pytest.mark.parametrize(("which", "setting"), [("port", "RELEVO_PORT"), ("gateway_port", "RELEVO_GATEWAY_PORT")])
def test_a_port_in_use_is_named_with_its_owner(which: str, setting: str, tmp_path: Path) -> None:
    waiting = Relevo(tmp_path / "home")
    with socket.create_server(("127.0.0.1", getattr(waiting, which))) as taken:
        said = waiting.command("up", check=5)
        owner = f"{psutil.Process().name()} (process {os.getpid()})"
        assert f"Port {taken.getsockname()[1]} on 127.0.0.1 is in use by {owner}." in said
        assert setting in said
        assert f"in use by {owner}" in waiting.command("doctor", check=1)


def test_a_child_that_is_killed_is_started_again_after_a_growing_pause(running: Relevo) -> None:
    for name in MODULES:
        running.kill_and_await(name)
    running.kill_and_await("collector")
    said = running.said()
    assert "collector ended with status -9; starting it again in 0.5 s" in said
    assert "collector ended with status -9; starting it again in 1.0 s" in said
    assert "gateway-0 ended with status -9; starting it again in 0.5 s" in said
    eventually(lambda: gateway_answers(running), "the gateway to answer again")
    eventually(running.answers, "the control plane to answer again")


def gateway_answers(relevo: Relevo) -> bool:
    try:
        return httpx.get(f"{relevo.gateway}/health", timeout=60).is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_and_frees_the_ports(number: signal.Signals, running: Relevo) -> None:
    assert running.process is not None
    family = descendants(running.process.pid)
    assert len(family) >= len(MODULES)
    running.stop(number)
    assert [one for one in family if one.is_running()] == []
    assert is_free(running.port)
    assert is_free(running.gateway_port)


def test_commands_find_relevo_on_the_ports_of_its_last_start(own: Relevo) -> None:
    if own.process is not None:
        own.stop()
    own.use_ports(*free_ports(2))
    own.start()
    ports = {name: value for name, value in own.environment().items() if "PORT" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "relevo", "status"], env=ports, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "No model yet" in done.stdout


def test_nothing_outlives_a_killed_supervisor(running: Relevo) -> None:
    assert running.process is not None
    family = descendants(running.process.pid)
    running.process.kill()
    running.process.wait()
    running.process = None
    eventually(lambda: not any(one.is_running() for one in family), "the children to end")
    assert is_free(running.port)
    assert is_free(running.gateway_port)
    running.start()  # the lock of the dead one is free


def test_every_route_but_the_open_ones_refuses_who_shows_no_token(running: Relevo, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    prepare(settings, keep=lambda token: None)
    services = compose(settings)
    declared = declared_permissions(build(services))
    services.close()
    assert {route for route, permission in declared.items() if permission is None} <= OPEN
    assert len(declared) > 30
    with httpx.Client(base_url=running.url, timeout=60) as client:
        for route in declared.keys() - OPEN:
            method, path = route.split()
            answer = client.request(method, path.replace("{", "").replace("}", "").replace(":path", ""))
            is_refused = answer.status_code == 401 or answer.headers.get("location", "").startswith("/login")
            assert is_refused, f"{route} answered {answer.status_code}: {answer.text[:200]}"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/ajax-api/2.0/mlflow/experiments/search",
        "/api/2.0/mlflow/registered-models/search",
        "/api/2.0/mlflow-artifacts/artifacts/1/model.pkl",
        "/get-artifact?path=model",
        "/static-files/index.html",
        "/graphql",
        "/health",
    ],
)
@pytest.mark.parametrize("token", [None, "rlv_" + "a" * 43])
def test_mlflow_refuses_who_shows_no_token(path: str, token: str | None, running: Relevo) -> None:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{running.url}/mlflow{path}", headers=headers, timeout=60).status_code == 401
    assert httpx.post(f"{running.url}/mlflow{path}", headers=headers, timeout=60).status_code == 401


@pytest.mark.parametrize("token", [None, "rlv_" + "a" * 43])
def test_the_gateway_refuses_who_shows_no_token(token: str | None, running: Relevo) -> None:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=running.gateway, headers=headers, timeout=60) as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/endpoints/any").status_code == 401
        assert client.get("/nothing").status_code == 401
        for action in ("invocations", "labels"):
            refused = client.post(f"/endpoints/any/{action}", json={})
            assert refused.status_code == 401
            assert refused.json()["error"]["code"] == "not_authenticated"
        assert client.get("/health").status_code == 200


def test_the_command_line_says_what_is_wrong_without_a_token(tmp_path: Path) -> None:
    environment = {**os.environ, "RELEVO_HOME": str(tmp_path / "none")}
    done = subprocess.run(
        [sys.executable, "-m", "relevo", "status"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "relevo up" in done.stderr
