"""The gateway beside bare uvicorn: requests a second, latency and processor time of one-row requests.

A real worker process answers with a sealed LightGBM bundle of the flights: authentication, validation, counters and log
are on. The limit is uvicorn that decodes the same body and answers a constant. Both are measured in turn in one run,
server on one core, wrk on another. Needs wrk: ``apt-get install wrk``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import flights
import httpx
import msgspec
import numpy as np
import polars as pl
import psutil
from report import Goal, Report, median_of, median_ratio, show

from relevo.features.model import FeatureView
from relevo.features.point_in_time import attach
from relevo.identity.model import Role
from relevo.identity.service import Identity
from relevo.platform.objects import Objects
from relevo.platform.settings import Settings
from relevo.platform.state import State, metadata
from relevo.predictions import frames
from relevo.registry.bundles import store_bundle, write_bundle
from relevo.registry.keys import load_signing_key
from relevo.runtimes import original
from relevo.runtimes.compilation import compile_model
from relevo.runtimes.frames import as_frame, categories_of, frame_of_columns
from relevo.runtimes.model import Signature
from relevo.runtimes.signature import derive_signature
from relevo.serving.model import Arm
from relevo.serving.service import Serving
from relevo.training import TrainingSet

HERE = Path(__file__).parent
SERVER_CORE, LOAD_CORE = 0, 1
CONCURRENCIES = (16, 1)
LOGS = ("buffered", "durable")
CLASSES = ("false", "true")
FITTED_ROWS = 60_000
CHECKED_ANSWERS = 100
TOLERANCE = 1e-6

Row = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """A fitted model and its signature; with ``views``, the gateway looks their features up."""

    name: str
    views: list[FeatureView]
    signature: Signature
    fitted: Any
    categories: dict[str, list[str]]
    holdout: Any


@dataclass(frozen=True)
class Workload:
    """What the callers send: rows of some columns, in turn, and the model's own answers to them."""

    name: str
    model: Model
    rows: list[Row]
    answers: list[float]

    def bodies(self) -> list[bytes]:
        return [
            msgspec.json.encode({"dataframe_split": {"columns": list(row), "data": [list(row.values())]}})
            for row in self.rows
        ]

    def endpoint(self, log: str) -> str:
        return f"{self.model.name}-{log}"


@dataclass(frozen=True)
class Server:
    """A process on the server's core, and where it listens."""

    process: subprocess.Popen[bytes]
    url: str

    def cpu_seconds(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=1, help="of each measurement")
    options = parser.parse_args()
    _require_tools()
    report = Report("gateway", vars(options) | {"server_core": SERVER_CORE, "load_core": LOAD_CORE, "rows": 1})
    workloads = _workloads()
    with tempfile.TemporaryDirectory(prefix="relevo-bench-") as folder, contextlib.ExitStack() as stack:
        home = Home(Path(folder) / "home")
        stack.callback(home.close)
        for model in {workload.model.name: workload.model for workload in workloads}.values():
            home.release(model)
        gateway = stack.enter_context(_serving("-m", "relevo.serving.worker", "--worker", "0", home=home))
        bare = stack.enter_context(_serving(str(HERE / "bare.py"), home=home))
        home.wait_until_loaded()
        report.checks = _check(gateway, home.token, workloads)
        report.settings["fdatasync_us"] = _fdatasync_us(Path(folder) / "sync")
        _measure(report, gateway, bare, home, workloads, options)
        counted = home.counted()
        _stop(gateway.process)
        report.checks |= _check_records(home, counted, report.measurements)
    _summarise(report, workloads)
    report.write()


class Home:
    """An installation with endpoints, versions and a token, as the control plane would leave it."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(home=folder)
        self.state = State(self.settings.state_database)
        identity = Identity(self.state)
        with self.state.transaction() as tx:
            metadata.create_all(tx)
            identity.create_principal(tx, "bench", Role.APPLICATION)
            self.token = identity.create_token(tx, "bench", Role.APPLICATION, note="bench")
        self.serving = Serving(self.state, self.settings)
        self.endpoints: list[str] = []

    def release(self, model: Model) -> None:
        """Seal the model and route all traffic of its endpoints, one a kind of log, to it."""
        compiled = compile_model(model.fitted, model.signature, model.holdout)
        if compiled.runtime != "lightgbm":
            sys.exit(f"expected the runtime lightgbm, got {compiled.agreement}")
        objects, key = Objects(self.settings.folder("objects")), load_signing_key(self.settings.folder("keys"))
        for log in LOGS:
            name = f"{model.name}-{log}"
            folder = self.settings.folder("jobs") / name
            manifest = write_bundle(
                folder,
                model=name,
                version=1,
                run_id="bench",
                runtime=compiled.runtime,
                signature=model.signature,
                files=compiled.files,
                views=model.views,
            )
            with self.state.transaction() as tx:
                self.serving.ensure_endpoint(tx, name, log)
                self.serving.place(tx, name, 1, store_bundle(folder, manifest, objects, key))
                self.serving.set_route(
                    tx, name, [Arm(1, 100)], reason="bench", set_by="bench", effective_event_at=flights.THROUGH
                )
            if model.views:
                flights.fill(self.settings.root / "online.db", name)
            self.endpoints.append(name)

    def wait_until_loaded(self) -> None:
        for name in self.endpoints:
            self.serving.await_loaded(name, 1, 30)

    def counted(self) -> dict[str, int]:
        """Requests by endpoint, as the worker reports them once it has come to rest."""
        time.sleep(1.5)
        return {name: self.serving.counters(name)[1].requests for name in self.endpoints}

    def logged(self) -> Counter[str]:
        """Answered rows by endpoint in the segments of the log."""
        paths = sorted(self.settings.folder("log").glob("*/*-*.*"))
        records = (record for path in paths for record in frames.scan(path.read_bytes()))
        return Counter(record.endpoint for record in records if record.status == "ok")

    def close(self) -> None:
        self.state.close()


def _workloads() -> list[Workload]:
    contract, views = flights.contract(), flights.views()
    features = [feature.name for view in views for feature in view.features]
    own, keys, at = list(contract.ask.inputs), ["tailnum"], str(contract.ask.at)
    rows = flights.tables(flights.THROUGH)
    spine = flights.scheduled().select("scheduled_at", "tailnum", *own, is_late=pl.col("arr_delay") > 15)
    spine = spine.filter(pl.col("scheduled_at") <= flights.THROUGH)
    tables = {name: table.lazy() for name, table in rows.items()}
    frame = attach(spine.lazy(), views, tables, sources=contract.sources, at=at).collect()
    fitted = frame.drop_nulls("is_late").sample(FITTED_ROWS, seed=7)
    asked = frame.filter(pl.col("scheduled_at").dt.offset_by("20h") > flights.THROUGH).sample(
        fraction=1, shuffle=True, seed=7
    )
    plain = _fit("own", [], fitted)
    full = _fit("features", views, fitted)
    plain_answers, full_answers = _answers(plain, asked), _answers(full, asked)
    return [
        Workload("6 columns sent", plain, asked.select(own).to_dicts(), plain_answers),
        Workload("20 columns sent", full, asked.select(*own, *features).to_dicts(), full_answers),
        Workload("6 sent, 14 looked up", full, asked.select(*own, *keys, at).to_dicts(), full_answers),
    ]


def _fit(name: str, views: list[FeatureView], rows: pl.DataFrame) -> Model:
    """The example's own training function on these rows."""
    contract = flights.contract()
    dtypes = {column: str(dtype) for column, dtype in rows.schema.items()}
    signature = derive_signature(contract, views, dtypes, CLASSES)
    columns = {column.name: rows[column.name] for column in signature.inputs}
    categories = categories_of(columns, signature)
    inputs = frame_of_columns(columns, signature, categories)
    params = dict(contract.training.params)
    label = rows["is_late"].cast(pl.Int64).to_pandas()
    train = importlib.import_module("flight_delay.train").train
    fitted = train(TrainingSet(inputs, label, None, params, CLASSES), params)
    return Model(name, views, signature, fitted, categories, inputs.head(500))


def _answers(model: Model, rows: pl.DataFrame) -> list[float]:
    """The original model's own answers, features joined offline."""
    inputs = rows.select(column.name for column in model.signature.inputs).rows()
    return original.predict(model.fitted, as_frame(inputs, model.signature, model.categories), model.signature).tolist()


@contextlib.contextmanager
def _serving(*command: str, home: Home) -> Iterator[Server]:
    """A server process, pinned, on a socket of its own."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listener.set_inheritable(True)
    number = str(listener.fileno())
    arguments = [*command, "--fd", number] if "-m" in command else [*command, number]
    with (home.settings.folder("logs") / "bench.out").open("ab") as output:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", str(SERVER_CORE), sys.executable, *arguments],
            pass_fds=[listener.fileno()],
            env={**os.environ, "RELEVO_HOME": str(home.settings.root)},
            stdout=output,
            stderr=output,
        )
    try:
        yield Server(process, f"http://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        _stop(process)
        listener.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(timeout=30)


def _check(gateway: Server, token: str, workloads: list[Workload]) -> dict[str, Any]:
    """The gateway's answers are the model's own, on every endpoint; without a token there is none."""
    largest = 0.0
    with httpx.Client(base_url=gateway.url, timeout=30) as client:
        for workload in workloads:
            for log in LOGS:
                path = f"/endpoints/{workload.endpoint(log)}/invocations"
                body = workload.bodies()[0]
                if client.post(path, content=body).status_code != 401:
                    sys.exit("a request without a token was not refused")
                got = []
                for body in workload.bodies()[:CHECKED_ANSWERS]:
                    answer = client.post(path, content=body, headers={"authorization": f"Bearer {token}"})
                    if answer.status_code != 200:
                        sys.exit(f"{workload.name}: {answer.status_code} {answer.text}")
                    got += answer.json()["predictions"]
                difference = float(np.max(np.abs(np.subtract(got, workload.answers[:CHECKED_ANSWERS]))))
                if not difference <= TOLERANCE:
                    sys.exit(f"{workload.name}, {log}: answers differ from the model's by {difference}")
                largest = max(largest, difference)
    distinct = {answer for workload in workloads for answer in workload.answers[:CHECKED_ANSWERS]}
    return {
        "answers_compared": CHECKED_ANSWERS * len(workloads) * len(LOGS),
        "distinct_answers": len(distinct),
        "largest_difference": largest,
    }


def _check_records(home: Home, counted: dict[str, int], measurements: list[dict[str, Any]]) -> dict[str, Any]:
    """Every answer that wrk saw was counted, and every counted one is in the log."""
    seen = Counter[str]()
    for one in measurements:
        if one["server"] == "gateway":
            seen[one["endpoint"]] += one["requests"]
    logged = home.logged()
    for name in home.endpoints:
        # wrk does not count what is under way when its time is up; the gateway answers it all the same.
        if not seen[name] <= counted[name] == logged[name]:
            sys.exit(
                f"{name}: wrk saw {seen[name]} answers, the gateway counted {counted[name]}, logged {logged[name]}"
            )
    return {"answers_seen": seen.total(), "answers_counted": sum(counted.values()), "answers_logged": logged.total()}


def _measure(
    report: Report,
    gateway: Server,
    bare: Server,
    home: Home,
    workloads: list[Workload],
    options: argparse.Namespace,
) -> None:
    """Every workload in turn, round after round: first the limit, then the gateway with each log."""
    folder = home.settings.root
    files = {workload.name: folder / f"{number}.bodies" for number, workload in enumerate(workloads)}
    for workload in workloads:
        files[workload.name].write_bytes(b"\n".join(workload.bodies()) + b"\n")
    for number in range(options.rounds):
        for workload in workloads:
            load = partial(_load, bodies=files[workload.name], token=home.token, seconds=options.seconds)
            for callers in CONCURRENCIES:
                measured = {"round": number, "workload": workload.name, "callers": callers}
                with _paused(gateway):
                    report.measurements.append({**measured, "server": "bare", "log": None} | load(bare, "", callers))
                with _paused(bare):
                    for log in LOGS:
                        name = workload.endpoint(log)
                        report.measurements.append(
                            {**measured, "server": "gateway", "log": log, "endpoint": name}
                            | load(gateway, f"/endpoints/{name}/invocations", callers)
                        )


@contextlib.contextmanager
def _paused(server: Server) -> Iterator[None]:
    """The other server must not take the core, not even by polling."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def _load(server: Server, path: str, callers: int, *, bodies: Path, token: str, seconds: int) -> dict[str, Any]:
    """What wrk and the server's process say of one measurement."""
    before = server.cpu_seconds()
    command = [
        *("taskset", "--cpu-list", str(LOAD_CORE), "wrk", "--threads", "1", "--connections", str(callers)),
        *("--duration", f"{seconds}s", "--timeout", "10s", "--script", str(HERE / "rotate.lua"), server.url + path),
    ]
    done = subprocess.run(
        command, env={**os.environ, "BODIES": str(bodies), "TOKEN": token}, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if found["errors"]:
        sys.exit(f"{path}: {found['errors']} requests failed\n{done.stdout}")
    found["requests_per_second"] = found["requests"] / found["seconds"]
    found["cpu_us_per_request"] = (server.cpu_seconds() - before) / found["requests"] * 1e6
    return found


def _fdatasync_us(path: Path) -> float:
    """What the disk asks for one durable write: append 400 bytes and sync, median in microseconds."""
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(200):
            file.write(b"x" * 400)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - began) * 1e6)
    return float(np.median(times))


def _summarise(report: Report, workloads: list[Workload]) -> None:
    rows = []
    limit: dict[str, Any] = {"server": "bare"}
    for workload in workloads:
        for callers in CONCURRENCIES:
            which = {"workload": workload.name, "callers": callers}
            for kind in (limit, *({"server": "gateway", "log": log} for log in LOGS)):
                this = partial(median_of, report.measurements, **which, **kind)
                ratio = partial(median_ratio, report.measurements, ours=which | kind, limit=which | limit)
                rows.append(
                    which
                    | {"server": kind["server"], "log": kind.get("log")}
                    | {name: this(name) for name in ("requests_per_second", "p50_ms", "p99_ms", "cpu_us_per_request")}
                    | {"of_limit": ratio("requests_per_second"), "cpu_of_limit": ratio("cpu_us_per_request")}
                )
    report.summary = rows
    show(
        "gateway: one row a request, one core (medians over the rounds)",
        rows,
        {
            "workload": ("workload", ""),
            "callers": ("callers", "d"),
            "server": ("server", ""),
            "log": ("log", ""),
            "requests_per_second": ("requests/s", ",.0f"),
            "of_limit": ("of limit", ".2f"),
            "p50_ms": ("p50 ms", ".2f"),
            "p99_ms": ("p99 ms", ".2f"),
            "cpu_us_per_request": ("CPU us", ".0f"),
            "cpu_of_limit": ("of limit", ".2f"),
        },
    )
    report.goals = _goals(report, rows)


def _goals(report: Report, rows: list[dict[str, Any]]) -> list[Goal]:
    def share(workload: str, log: str) -> float:
        return next(
            float(row["of_limit"])
            for row in rows
            if (row["workload"], row["log"], row["callers"]) == (workload, log, 16)
        )

    goals = [
        Goal("largest difference from the model's own answers", TOLERANCE, report.checks["largest_difference"], False)
    ]
    targets = {"6 columns sent": 0.5, "20 columns sent": 0.4, "6 sent, 14 looked up": 0.3}
    goals += [
        Goal(f"{workload}, {log}, 16 callers: share of the limit", target, share(workload, log), True)
        for workload, target in targets.items()
        for log in LOGS
    ]
    return goals


def _require_tools() -> None:
    if shutil.which("wrk") is None:
        sys.exit("The load generator wrk is not installed. On Debian and Ubuntu: apt-get install wrk")
    if shutil.which("taskset") is None:
        sys.exit("taskset is not installed. On Debian and Ubuntu: apt-get install util-linux")
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        sys.exit(f"The benchmark needs cores {SERVER_CORE} and {LOAD_CORE}; it may use {os.sched_getaffinity(0)}.")


if __name__ == "__main__":
    main()
