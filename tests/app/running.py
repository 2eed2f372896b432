"""A real Relevo: ``relevo up`` as a process of its own on a home, with its people, and the ways to make it suffer."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from ports import free_ports
from relevo.cli.client import Client, Credentials
from relevo.contract.upload import read_project
from relevo.errors import NotFound, Unavailable
from relevo.platform.settings import Settings

MODULES = {
    "control": "relevo.app.control",
    "gateway": "relevo.serving.worker",
    "collector": "relevo.predictions.collector",
}
#: Generous: two cores may be shared with much else.
PATIENCE_SECONDS = 120.0
T = TypeVar("T")


def eventually(look: Callable[[], T | None], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """The first truthy result of ``look``."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.02)


def is_free(port: int) -> bool:
    """Whether nothing listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Relevo:
    """An installation that a test starts, stops, and kills parts of.

    Attributes:
        admin: Client of the first administrator; ``engineer`` and ``reviewer`` are the two people of a release.
    """

    admin: Client
    engineer: Client
    reviewer: Client
    application: Client

    def __init__(self, home: Path, *, workers: int = 1) -> None:
        self.home = home
        self.workers = workers
        self.use_ports(*free_ports(2))
        self.output = home.parent / f"{home.name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._clients: list[Client] = []

    def use_ports(self, port: int, gateway_port: int) -> None:
        """Listen there from the next start on."""
        self.port, self.gateway_port = port, gateway_port
        self.url, self.gateway = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{gateway_port}"

    # -- the process --------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """What the commands see."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RELEVO_")}
        return kept | {
            "RELEVO_HOME": str(self.home),
            "RELEVO_PORT": str(self.port),
            "RELEVO_GATEWAY_PORT": str(self.gateway_port),
            "RELEVO_GATEWAY_WORKERS": str(self.workers),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "300",
        }

    def command(self, *arguments: str, check: int | None = 0) -> str:
        """What a command of the command line prints, errors too; ``check`` is the exit status expected of it."""
        done = subprocess.run(
            [sys.executable, "-m", "relevo", *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert check is None or done.returncode == check, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self) -> None:
        """Start it, and wait until the console answers."""
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "relevo", "up"],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        eventually(self.answers, "the console to answer")

    def answers(self) -> bool:
        """Whether the console answers."""
        assert self.process is not None
        assert self.process.poll() is None, self.said()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health", timeout=PATIENCE_SECONDS).is_success
        return False

    def said(self) -> str:
        """What ``relevo up`` has printed so far."""
        return self.output.read_text()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask it to stop, and wait until it has."""
        if self.process is not None:
            self.process.send_signal(number)
            assert self.process.wait(60) == 0, self.said()
            self.process = None

    def close(self) -> None:
        """Stop it whatever happened to it, and close the clients."""
        for client in self._clients:
            client._http.close()
        process, self.process = self.process, None
        if process is not None:
            family = descendants(process.pid)
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            for one in [*family, psutil_or_none(process.pid)]:
                if one is not None:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.kill()
            process.wait(10)

    def child(self, name: str) -> psutil.Process | None:
        """The process of that name under the supervisor, None while there is none."""
        assert self.process is not None
        for one in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):
                if MODULES[name] in one.cmdline() and one.status() != psutil.STATUS_ZOMBIE:
                    return one
        return None

    def kill(self, name: str) -> int:
        """``kill -9`` of that child; gives its process id."""
        victim = eventually(lambda: self.child(name), f"a {name} to kill")
        victim.kill()
        return victim.pid

    def await_restart(self, name: str, old: int) -> int:
        """Wait until the supervisor has started the child again; gives the new process id."""

        def look() -> int | None:
            found = self.child(name)
            return None if found is None or found.pid == old else found.pid

        return eventually(look, f"{name} to be started again")

    def kill_and_await(self, name: str) -> None:
        """``kill -9``, and wait for the next one; of the control plane until it answers."""
        self.await_restart(name, self.kill(name))
        if name == "control":
            eventually(self.answers, "the control plane to answer again")

    # -- its people ---------------------------------------------------------------------------------------------

    def client(self, token: str) -> Client:
        """A client with that token."""
        made = Client(Credentials(self.url, self.gateway, token))
        self._clients.append(made)
        return made

    def invite(self) -> None:
        """Give it an engineer, a reviewer and an application."""
        from relevo.cli.client import credentials

        self.admin = self.client(credentials(Settings(home=self.home)).token)
        self.engineer, self.reviewer, self.application = (
            self.client(self._token(name, role))
            for name, role in (("maya", "engineer"), ("ruth", "reviewer"), ("shop", "application"))
        )

    def _token(self, name: str, role: str) -> str:
        self.admin.post("/api/principals", {"name": name, "role": role})
        token: str = self.admin.post("/api/tokens", {"principal": name})["token"]
        return token

    # -- a model ------------------------------------------------------------------------------------------------

    def replay(self, model: str, at: datetime) -> None:
        """Put the model's event time at ``at``."""
        self.admin.post(f"/api/models/{model}/replay", {"at": at.isoformat()})

    def advance(self, model: str, at: datetime) -> None:
        """Let event time go on to ``at``, for the gateway too, which follows the state within 100 ms."""
        self.admin.post(f"/api/models/{model}/replay/advance", {"at": at.isoformat()})
        eventually(lambda: self.event_at(model) >= at, f"the gateway to follow {model} to {at}")

    def event_at(self, model: str) -> datetime:
        """Where the event time of the endpoint stands for the gateway; waits for a gateway that is starting."""

        def look() -> datetime | None:
            with contextlib.suppress(Unavailable):
                return datetime.fromisoformat(self.engineer.gateway_get(f"/endpoints/{model}")["event_at"])
            return None

        return eventually(look, "the gateway to answer")

    def settle(self, model: str) -> None:
        """Judge the windows that are due, and wait until nothing works any more."""
        self.admin.post(f"/api/models/{model}/replay/settle")
        eventually(lambda: all(a["state"] != "working" for a in self.admin.get("/api/activity")), "work to settle")

    def apply(self, project: Path) -> str:
        """Apply a project as the engineer; gives the release that this started."""
        change = self.engineer.post_bytes("/api/contracts", read_project(project), "application/zip")
        assert change["is_applied"], change
        release: str = change["release"]
        return release

    def release(self, release_id: str) -> dict[str, Any]:
        """A release with its evidence and approvals; empty before it was begun."""
        for one in self.admin.get("/api/releases", limit=1000):
            if one["id"] == release_id:
                found: dict[str, Any] = self.admin.get(f"/api/releases/{release_id}")
                return found
        return {}

    def await_state(self, release_id: str, *states: str) -> dict[str, Any]:
        """The release, once it is in one of these states; fails when it ends in another."""

        def look() -> dict[str, Any] | None:
            found = self.release(release_id).get("release")
            if found is None or found["state"] not in states:
                ended = {"live", "rejected", "rolled_back", "failed", "cancelled"}
                assert found is None or found["state"] not in ended, found
                return None
            return found

        return eventually(look, f"{release_id} to be {' or '.join(states)}")

    def approve(self, release_id: str) -> None:
        """The reviewer's word."""
        self.reviewer.post(f"/api/releases/{release_id}/decision", {"approved": True, "reason": "The gates passed."})

    def bring_live(self, release_id: str) -> int:
        """Approve a release when it waits; the version, once it is live. The first of a model needs no traffic."""
        if self.await_state(release_id, "waiting_for_approval", "live")["state"] == "waiting_for_approval":
            self.approve(release_id)
        found = self.await_state(release_id, "live")
        model, version = found["model"], int(found["version"])
        # The gateway follows the state within 100 ms.
        eventually(
            lambda: self._route_of(model)["arms"] == [{"version": version, "percent": 100}], "the gateway's route"
        )
        return version

    def _route_of(self, model: str) -> dict[str, Any]:
        """The route that the gateway answers by."""
        try:
            return self.engineer.gateway_get(f"/endpoints/{model}")["route"] or {"arms": []}
        except NotFound:
            return {"arms": []}

    def shares(self, model: str) -> list[tuple[int, float]]:
        """The route in force: each version with its percentage, the champion first."""
        last = self.admin.get(f"/api/models/{model}/history")[-1]
        return [(arm["version"], arm["percent"]) for arm in last["arms"]]

    def alerts(self, model: str) -> list[dict[str, Any]]:
        """Open alerts of a model."""
        found: list[dict[str, Any]] = self.admin.get("/api/alerts", model=model)["alerts"]
        return found

    def ledger(self, model: str, *, action: str | None = None) -> list[dict[str, Any]]:
        """The entries about a model and its versions, the oldest first."""
        entries = [
            entry
            for entry in self.admin.get("/api/ledger", limit=1000)
            if entry["subject"].partition("/")[0] == model and action in (None, entry["action"])
        ]
        return entries[::-1]


@dataclass
class Load:
    """Callers that keep asking an endpoint; what was acknowledged and what failed is kept.

    With ``is_patient`` a caller tries the same row again after a refused connection or a 503: a gateway that was killed
    answers nobody. Without, that is a failure.
    """

    relevo: Relevo
    model: str
    rows: int = 1
    is_patient: bool = False
    pause_seconds: float = 0.01  # between a caller's requests: two cores are for Relevo too
    row: dict[str, Any] = field(default_factory=lambda: {"depot": "port", "weight": 2.0})
    acknowledged: list[str] = field(default_factory=list)
    versions: dict[int, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self, callers: int = 2) -> Iterator[Load]:
        """Callers for as long as the block lasts."""
        self._threads = [threading.Thread(target=self._call) for _ in range(callers)]
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self.stop()

    def stop(self) -> None:
        """Let every caller finish its request."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)

    def await_more(self, answers: int) -> None:
        """Wait for that many further acknowledged predictions."""
        wanted = len(self.acknowledged) + answers
        eventually(lambda: len(self.acknowledged) >= wanted or not self._is_running(), f"{answers} more answers")
        assert self._is_running(), self.failures[:3]

    def _is_running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _call(self) -> None:
        headers = {"Authorization": f"Bearer {self.relevo.application.credentials.token}"}
        with httpx.Client(base_url=self.relevo.gateway, headers=headers, timeout=PATIENCE_SECONDS) as client:
            while not self._stop.is_set():
                body = {"dataframe_records": [self.row] * self.rows}
                try:
                    answer = client.post(f"/endpoints/{self.model}/invocations", json=body)
                except httpx.TransportError as error:
                    self._failed(repr(error))
                    continue
                if answer.status_code != 200:
                    self._failed(answer.text)
                    continue
                with self._lock:
                    got = answer.json()
                    self.acknowledged += got["prediction_ids"]
                    self.versions[got["version"]] = self.versions.get(got["version"], 0) + 1
                self._stop.wait(self.pause_seconds)

    def _failed(self, what: str) -> None:
        self.failures.append(what)
        if self.is_patient:
            time.sleep(0.02)
        else:
            self._stop.set()


def descendants(pid: int) -> list[psutil.Process]:
    """Every process that this one started, and theirs."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def psutil_or_none(pid: int) -> psutil.Process | None:
    """The process, if it is there."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid)
    return None
