"""The gateway beside bare uvicorn: requests a second, latency and processor time of one-row requests.

A real worker process answers with a sealed LightGBM bundle of the flights: authentication, validation, counters and log
are on. The limit is uvicorn that decodes the same body and answers a constant. Both are measured in turn in one run,
server on one core, wrk on another. Needs wrk: ``apt-get install wrk``.
"""

from __future__ import annotations

import argparse
import contextlib
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

import httpx
import numpy as np
import psutil
from home import LOGS, Home
from report import Goal, Report, median_of, median_ratio, show
from workloads import Workload, workloads

HERE = Path(__file__).parent
SERVER_CORE, LOAD_CORE = 0, 1
CONCURRENCIES = (16, 1)
CHECKED_ANSWERS = 100
TOLERANCE = 1e-6


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
    works = workloads()
    with tempfile.TemporaryDirectory(prefix="relevo-bench-") as folder, contextlib.ExitStack() as stack:
        home = Home(Path(folder) / "home")
        stack.callback(home.close)
        for model in {workload.model.name: workload.model for workload in works}.values():
            home.release(model)
        gateway = stack.enter_context(_serving("-m", "relevo.serving.worker", "--worker", "0", home=home))
        bare = stack.enter_context(_serving(str(HERE / "bare.py"), home=home))
        home.wait_until_loaded()
        report.checks = _check(gateway, home.token, works)
        report.checks["fdatasync_us"] = _fdatasync_us(Path(folder) / "sync")
        report.checks["idle_cpu_share"] = _idle_cpu_share(gateway)
        _measure(report, gateway, bare, home, works, options)
        counted = home.counted()
        _stop(gateway.process)
        report.checks |= _check_records(home, counted, report.measurements)
    _summarise(report, works)
    report.write()


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


def _check(gateway: Server, token: str, works: list[Workload]) -> dict[str, Any]:
    """The gateway's answers are the model's own, on every endpoint; without a token there is none."""
    largest = 0.0
    with httpx.Client(base_url=gateway.url, timeout=30) as client:
        for workload in works:
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
    distinct = {answer for workload in works for answer in workload.answers[:CHECKED_ANSWERS]}
    return {
        "answers_compared": CHECKED_ANSWERS * len(works) * len(LOGS),
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
    works: list[Workload],
    options: argparse.Namespace,
) -> None:
    """Every workload in turn, round after round: first the limit, then the gateway with each log."""
    folder = home.settings.root
    files = {workload.name: folder / f"{number}.bodies" for number, workload in enumerate(works)}
    for workload in works:
        files[workload.name].write_bytes(b"\n".join(workload.bodies()) + b"\n")
    for number in range(options.rounds):
        for workload in works:
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


def _idle_cpu_share(server: Server) -> float:
    """Share of a core that the server takes when nobody asks."""
    time.sleep(0.5)
    before, began = server.cpu_seconds(), time.monotonic()
    time.sleep(2)
    return (server.cpu_seconds() - before) / (time.monotonic() - began)


def _summarise(report: Report, works: list[Workload]) -> None:
    rows = []
    limit: dict[str, Any] = {"server": "bare"}
    for workload in works:
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
    print({name: round(value, 4) for name, value in report.checks.items()})
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
