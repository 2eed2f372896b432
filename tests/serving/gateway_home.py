"""A home folder with a real gateway: sealed bundles, tokens, a listening socket, worker processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec

from namespaces import IN_A_NAMESPACE
from relevo.contract.model import ServingLimits, Task
from relevo.features.expressions import Transform
from relevo.features.model import FeatureView
from relevo.identity.model import Role
from relevo.identity.service import Identity
from relevo.platform.clock import EventClock
from relevo.platform.objects import Objects
from relevo.platform.settings import Settings
from relevo.platform.state import State, metadata
from relevo.predictions import frames
from relevo.registry.bundles import BundleCache, store_bundle, write_bundle
from relevo.registry.keys import load_signing_key
from relevo.runtimes.linear import FILE, LinearModel, LinearRuntime, Number, Table
from relevo.runtimes.loading import PROBE_FILE, Probe
from relevo.runtimes.model import Column, ColumnType, Link, Signature
from relevo.serving.model import Arm, Counters, EndpointSettings, LogMode, ShadowArm, ShadowCounters
from relevo.serving.service import Serving

ENDPOINT = "flight-delay"
SIGNATURE = Signature(
    Task.REGRESSION,
    (Column("distance", ColumnType.FLOAT, nullable=False), Column("carrier", ColumnType.TEXT)),
    at="scheduled_at",
)
NOW = datetime(2013, 4, 1, tzinfo=UTC)


def body(*distances: float, **more: Any) -> dict[str, Any]:
    return {"dataframe_split": {"columns": ["distance", "carrier"], "data": [[d, "UA"] for d in distances]}, **more}


@dataclass
class Load:
    """Callers that keep sending; every answer's ids and every failure are kept."""

    acknowledged: list[str] = field(default_factory=list)
    versions: dict[int, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, url: str, token: str, callers: int) -> None:
        for _ in range(callers):
            thread = threading.Thread(target=self._send, args=(url, token))
            thread.start()
            self._threads.append(thread)

    def until(self, answers: int, seconds: float = 15) -> None:
        """Wait until that many requests were answered in all."""
        deadline = time.monotonic() + seconds
        while len(self.acknowledged) < answers:
            assert time.monotonic() < deadline, f"{len(self.acknowledged)} answers, {self.failures[:3]}"
            assert self.is_running, self.failures[:3]
            time.sleep(0.01)

    def more(self, answers: int) -> None:
        self.until(len(self.acknowledged) + answers)

    @property
    def is_running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=20)
            assert not thread.is_alive()

    def _send(self, url: str, token: str) -> None:
        headers = {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=url, headers=headers, timeout=10) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post(f"/endpoints/{ENDPOINT}/invocations", json=body(100.0))
                except httpx.TransportError as error:
                    self.failures.append(repr(error))
                    return
                if answer.status_code != 200:
                    self.failures.append(answer.text)
                    return
                got = answer.json()
                with self._lock:
                    self.acknowledged += got["prediction_ids"]
                    self.versions[got["version"]] = self.versions.get(got["version"], 0) + 1


class Home:
    """An installation with a gateway and nothing else."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.settings = Settings(home=folder, **settings)
        self.state = State(self.settings.state_database)
        with self.state.transaction() as tx:
            metadata.create_all(tx)
            self.identity = Identity(self.state)
            self.admin = self.identity.bootstrap(tx) or ""
        self.objects = Objects(self.settings.folder("objects"))
        self.clock = EventClock(self.state)
        self.serving = Serving(self.state, self.settings)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.set_inheritable(True)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.workers: list[subprocess.Popen[bytes]] = []

    def token(self, name: str, role: Role) -> str:
        with self.state.transaction() as tx:
            self.identity.create_principal(tx, name, role)
            return self.identity.create_token(tx, name, role, note="test")

    def endpoint(self, log: LogMode = "durable", **settings: Any) -> None:
        with self.state.transaction() as tx:
            self.serving.ensure_endpoint(tx, ENDPOINT, EndpointSettings(log=log, **settings))

    def place(self, version: int, **model: Any) -> str:
        bundle = self.seal(version, **model)
        with self.state.transaction() as tx:
            self.serving.place(tx, ENDPOINT, version, bundle)
        return bundle

    def route(self, *arms: tuple[int, float], shadow: ShadowArm | None = None) -> None:
        with self.state.transaction() as tx:
            self.serving.set_route(
                tx,
                ENDPOINT,
                [Arm(version, percent) for version, percent in arms],
                reason="test",
                set_by="ada",
                effective_event_at=NOW,
                shadow=shadow,
            )

    def launch(self, worker: int = 0, *, log_bytes: int | None = None) -> subprocess.Popen[bytes]:
        """Start a worker's process; with ``log_bytes`` its log lies on a file system of that size, its own."""
        small = () if log_bytes is None else (*IN_A_NAMESPACE, str(log_bytes), str(self.settings.folder("log")))
        with self.output(worker).open("ab") as output:
            process = subprocess.Popen(
                [
                    *small,
                    *(sys.executable, "-m", "relevo.serving.worker"),
                    *("--fd", str(self.listener.fileno()), "--worker", str(worker)),
                ],
                pass_fds=[self.listener.fileno()],
                env={**os.environ, "RELEVO_HOME": str(self.settings.root), **self._environment()},
                stdout=output,
                stderr=output,
            )
        self.workers.append(process)
        return process

    def _environment(self) -> dict[str, str]:
        names = self.settings.model_fields_set - {"home"}
        return {f"RELEVO_{name.upper()}": str(getattr(self.settings, name)) for name in names}

    def start(self, worker: int = 0, *, log_bytes: int | None = None) -> subprocess.Popen[bytes]:
        """A worker that has reported."""
        process = self.launch(worker, log_bytes=log_bytes)
        deadline = time.monotonic() + 30
        while not any(one.pid == process.pid for one in self.serving.live_workers()):
            assert process.poll() is None, (process.returncode, self.output(worker).read_text())
            assert time.monotonic() < deadline, self.output(worker).read_text()
            time.sleep(0.02)
        return process

    def output(self, worker: int) -> Path:
        """What the worker's process writes."""
        return self.settings.folder("logs") / f"worker-{worker}.out"

    def stop_workers(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.terminate()
        for worker in self.workers:
            assert worker.wait(timeout=20) is not None

    def stop(self) -> None:
        self.stop_workers()
        self.listener.close()
        self.state.close()

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {"authorization": f"Bearer {token or self.admin}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20)

    def predict(self, client: httpx.Client, *distances: float, **more: Any) -> httpx.Response:
        return client.post(f"/endpoints/{ENDPOINT}/invocations", json=body(*(distances or (100.0,)), **more))

    def load(self, callers: int = 4) -> Load:
        load = Load()
        load.start(self.url, self.admin, callers)
        return load

    def count(self, version: int) -> Counters:
        """What the version has answered, as far as the workers have reported."""
        return self.serving.counters(ENDPOINT).get(version, Counters())

    def shadowed(self, version: int) -> ShadowCounters:
        """What the version made of copies, as far as the workers have reported."""
        return self.serving.shadow_counters(ENDPOINT).get(version, ShadowCounters())

    def spoil(self, bundle: str) -> None:
        """Change one byte of the bundle's runtime, where the gateway keeps it."""
        path = BundleCache(self.objects, self.settings).fetch(bundle) / FILE
        path.write_bytes(path.read_bytes().replace(b"2.0", b"3.0"))

    def eventually(self, claim: Callable[[], bool], seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not claim():
            assert time.monotonic() < deadline, "it did not become so in time"
            time.sleep(0.02)

    def log_of(self, process: subprocess.Popen[bytes]) -> Path:
        """The log folder as the worker sees it, which may be on a file system of its own."""
        return Path(f"/proc/{process.pid}/root{self.settings.folder('log')}")

    def records(self, log: Path | None = None) -> list[frames.Record]:
        """Every record in every segment of every worker."""
        return [
            record
            for path in sorted((log or self.settings.folder("log")).glob("*/*-*.*"))
            for record in frames.scan(path.read_bytes())
        ]

    def seal(
        self,
        version: int,
        *,
        weight: float = 0.0,
        known_carriers: tuple[str, ...] | None = None,
        signature: Signature = SIGNATURE,
        views: tuple[FeatureView, ...] = (),
        transforms: tuple[Transform, ...] = (),
        delay_weight: float | None = None,
        endpoint: str = ENDPOINT,
    ) -> str:
        """A sealed bundle of a linear model that answers its version's number plus ``weight * distance``.

        With ``delay_weight`` it has a third input, whose null counts as -1.
        """
        tables = ()
        if known_carriers is not None:
            tables = (Table(1, tuple((name, (0.0,)) for name in known_carriers), missing=(0.0,)),)
        numbers = (Number(0, 0.0, 1.0, (weight,), 0.0),)
        if delay_weight is not None:
            numbers += (Number(2, 0.0, 1.0, (delay_weight,), -1.0),)
        model = LinearModel(Link.IDENTITY, (float(version),), numbers, tables)
        content = msgspec.json.encode(model)
        rows: list[list[Any]] = [[1.0, *[None] * (len(signature.inputs) - 1)]]
        answers: Any = LinearRuntime.load(content, signature).predict(rows)
        files: dict[str, bytes] = {FILE: content, PROBE_FILE: msgspec.json.encode(Probe(rows, list(answers), 1e-9))}
        return self.keep(version, "linear", signature, files, views, transforms, endpoint)

    def keep(
        self,
        version: int,
        runtime: str,
        signature: Signature,
        files: dict[str, bytes],
        views: tuple[FeatureView, ...] = (),
        transforms: tuple[Transform, ...] = (),
        endpoint: str = ENDPOINT,
    ) -> str:
        """A sealed bundle of these files."""
        folder = self.settings.folder("jobs") / f"bundle-{len(list(self.settings.folder('jobs').iterdir()))}"
        manifest = write_bundle(
            folder,
            model=endpoint,
            version=version,
            run_id="run",
            runtime=runtime,
            signature=signature,
            files=files,
            views=views,
            transforms=transforms,
        )
        return store_bundle(folder, manifest, self.objects, load_signing_key(self.settings.folder("keys")))


@contextlib.contextmanager
def live_home(
    folder: Path, *, versions: Sequence[int] = (1,), limits: ServingLimits | None = None, **settings: Any
) -> Iterator[Home]:
    """A home with its workers, of whose loaded versions the first is in production and logs buffered."""
    home = Home(folder, **settings)
    try:
        home.endpoint("buffered", limits=limits or ServingLimits())
        for version in versions:
            home.place(version)
        home.route((versions[0], 100))
        for worker in range(home.settings.gateway_workers):
            home.start(worker)
        for version in versions:
            home.serving.await_loaded(ENDPOINT, version, 20)
        yield home
    finally:
        home.stop()


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)
