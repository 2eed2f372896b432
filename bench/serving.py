"""Serving: ours beside other servers of models and bare uvicorn, on the same models, one worker on one core.

First it is checked that everyone answers what the models themselves answer; without that it ends without figures. Then
they are measured in turn, round after round; who is not measured is stopped. Each peer has an environment of its own,
made under ``bench/.environments`` from ``bench/peers``. Needs wrk: ``apt-get install wrk``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from home import LOGS, Home
from peers import versions_of
from pinned import LOAD_CORE, SERVER_CORE, NotStarted, Server, awake, load, prepare, serving
from report import Report
from served_models import MODELS, Served, served_models
from serving_figures import NOT_PEERS, TOLERANCE, summarise
from serving_page import show_all, write_page
from serving_peers import PEERS, Peer
from workloads import Workload, workloads

HERE = Path(__file__).parent
CALLERS, ROWS = (16, 1), (1, 100)
#: Single rows that each server answers in the check, so many at a time that batches form.
CHECKED_SINGLY, CHECKED_AT_ONCE = 200, 16


@dataclass(frozen=True)
class Subject:
    """Who answers one workload: a server, the path there, and files of bodies by rows a request."""

    label: str
    server: Server
    path: str
    bodies: dict[int, Path]
    log: str | None = None
    endpoint: str | None = None


def main() -> None:
    options = _options()
    prepare()
    report = Report("serving", vars(options) | {"server_core": SERVER_CORE, "load_core": LOAD_CORE})
    peers = [peer for peer in PEERS if peer.environment in options.peers]
    with tempfile.TemporaryDirectory(prefix="relevo-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        _say("fitting and sealing the models")
        served = served_models(folder / "models", options.models)
        own = [] if options.no_features else workloads()
        home = Home(folder / "home")
        stack.callback(home.close)
        asked = [*(one.workload for one in served), *own]
        for model in {workload.model.name: workload.model for workload in asked}.values():
            home.release(model)
        output = folder / "relevo.out"
        gateway = stack.enter_context(serving(home.command, output, environment=home.variables))
        bare = stack.enter_context(serving([sys.executable, str(HERE / "bare.py"), "{fd}"], folder / "bare.out"))
        home.wait_until_loaded()
        report.checks = {"answers_compared": 0, "largest_difference": 0.0, "missing": {}}
        report.checks |= {"fdatasync_us": _fdatasync_us(folder / "sync"), "idle_cpu_share": _idle_cpu_share(gateway)}
        for server in (gateway, bare):
            server.pause()
        run = Run(report, home, folder, gateway, bare, options)
        for one in served:
            run.measure(one.workload, ROWS if not options.quick else (1,), one, peers)
        for workload in own:
            run.measure(workload, (1,))
        gateway.resume()
        counted = home.counted()
        gateway.stop()
        report.checks |= _check_records(home, counted, report.measurements)
    report.versions = _versions(peers)
    summarise(report)
    show_all(report)
    report.write()
    if options.page:
        write_page(report)


class Run:
    """The servers of one run, and what is measured of them.

    Args:
        report: Gets every measurement.
        home: Ours, with the models released.
        folder: For files of requests and of peers.
        gateway: Our worker, paused.
        bare: The limit, paused.
        options: Of the command line.
    """

    def __init__(
        self, report: Report, home: Home, folder: Path, gateway: Server, bare: Server, options: argparse.Namespace
    ) -> None:
        self._report, self._home, self._folder = report, home, folder
        self._gateway, self._bare, self._options = gateway, bare, options

    def measure(
        self, workload: Workload, n_rows: tuple[int, ...], served: Served | None = None, peers: list[Peer] | None = None
    ) -> None:
        """One workload: everyone is started and checked, then all are measured in turn, round after round."""
        with contextlib.ExitStack() as stack:
            subjects = self._ours(workload, n_rows)
            for peer in peers or []:
                _say(f"{workload.name}: starting and checking {peer.label}")
                try:
                    subjects.append(self._peer(stack, peer, served, n_rows))  # type: ignore[arg-type]
                except NotStarted as error:
                    self._miss(peer.label, workload.name, error)
            _say(f"{workload.name}: warming up")
            self._warm_up(subjects, n_rows)
            for number in range(self._options.rounds):
                _say(f"{workload.name}: measuring, round {number + 1}")
                for rows in n_rows:
                    for callers in CALLERS if not self._options.quick else CALLERS[:1]:
                        self._in_turn(
                            subjects, {"round": number, "workload": workload.name, "rows": rows, "callers": callers}
                        )

    def _warm_up(self, subjects: list[Subject], n_rows: tuple[int, ...]) -> None:
        for subject in subjects:
            # A first second may pass without an answer; the measurements decide.
            with contextlib.suppress(NotStarted):
                self._load(subject, n_rows[-1], CALLERS[0])

    def _in_turn(self, subjects: list[Subject], which: dict[str, Any]) -> None:
        """Each of the subjects once. A peer that fails is measured no more; when ours does, the run ends."""
        for subject in list(subjects):
            about = {"server": subject.label, "log": subject.log, "endpoint": subject.endpoint}
            try:
                found = self._load(subject, which["rows"], which["callers"])
            except NotStarted as error:
                if subject.label in NOT_PEERS:
                    sys.exit(f"{subject.label}, {which}: {error}")
                subjects.remove(subject)
                self._miss(subject.label, which["workload"], error)
            else:
                self._report.measurements.append(which | about | found)

    def _miss(self, label: str, workload: str, error: NotStarted) -> None:
        self._report.checks["missing"][f"{label}, {workload}"] = str(error)
        _say(f"  {label} is left out: {error}")

    def _load(self, subject: Subject, rows: int, callers: int) -> dict[str, Any]:
        with awake(subject.server):
            return load(
                subject.server,
                subject.path,
                callers,
                bodies=subject.bodies[rows],
                token=self._home.token,
                seconds=self._options.seconds,
            )

    def _ours(self, workload: Workload, n_rows: tuple[int, ...]) -> list[Subject]:
        """The limit, and our worker with each kind of log, checked."""
        bodies = {rows: workload.bodies(rows) for rows in n_rows}
        files = self._files(f"{workload.name}-relevo", bodies)
        subjects = [Subject("bare uvicorn", self._bare, "", files)]
        for log in LOGS:
            name = workload.endpoint(log)
            path = f"/endpoints/{name}/invocations"
            with awake(self._gateway):
                if httpx.post(self._gateway.url + path, content=bodies[1][0]).status_code != 401:
                    sys.exit("a request without a token was not refused")
                self._check(self._gateway, path, workload, bodies, lambda content: json.loads(content)["predictions"])
            subjects.append(Subject(f"Relevo, {log}", self._gateway, path, files, log, name))
        return subjects

    def _peer(self, stack: contextlib.ExitStack, peer: Peer, served: Served, n_rows: tuple[int, ...]) -> Subject:
        """The peer, started, checked and paused."""
        folder = self._folder / f"{served.name}-{peer.environment}-{peer.batch}"
        folder.mkdir()
        values = [list(row.values()) for row in served.workload.rows]
        bodies = {
            rows: [peer.body(served, [values[place] for place in block]) for block in served.workload.blocks(rows)]
            for rows in n_rows
        }
        command, variables = peer.command(served, folder), peer.variables(served, folder)
        output = self._folder / f"{folder.name}.out"
        with contextlib.ExitStack() as starting:
            server = starting.enter_context(serving(command, output, environment=variables, folder=folder))
            server.wait_until_ready(peer.ready)
            self._check(server, peer.path(), served.workload, bodies, peer.answers)
            server.pause()
            stack.push(starting.pop_all())
        return Subject(peer.label, server, peer.path(), self._files(folder.name, bodies))

    def _check(
        self,
        server: Server,
        path: str,
        workload: Workload,
        bodies: dict[int, list[bytes]],
        read: Callable[[bytes], list[float]],
    ) -> None:
        """The answers are the model's own, or the run ends: single rows from many callers at once, and many rows."""
        headers = {"authorization": f"Bearer {self._home.token}", "content-type": "application/json"}
        limits = httpx.Limits(max_connections=CHECKED_AT_ONCE)
        with httpx.Client(base_url=server.url, timeout=60, limits=limits, headers=headers) as client:
            for rows, asked in bodies.items():
                blocks = workload.blocks(rows)[: CHECKED_SINGLY if rows == 1 else 20]
                with ThreadPoolExecutor(CHECKED_AT_ONCE) as threads:
                    answers = list(threads.map(partial(_ask, client, path), asked[: len(blocks)]))
                for block, answer in zip(blocks, answers, strict=True):
                    if answer.status_code != 200:
                        raise NotStarted(f"{path}: {answer.status_code} {answer.text[:300]}")
                    expected = [workload.answers[place] for place in block]
                    difference = float(np.max(np.abs(np.subtract(read(answer.content), expected))))
                    if not difference <= TOLERANCE:
                        sys.exit(f"{path}, {workload.name}: answers differ from the model's by {difference}")
                    checks = self._report.checks
                    checks["largest_difference"] = max(checks["largest_difference"], difference)
                    checks["answers_compared"] += len(block)

    def _files(self, name: str, bodies: dict[int, list[bytes]]) -> dict[int, Path]:
        files = {rows: self._folder / f"{name}-{rows}.bodies" for rows in bodies}
        for rows, path in files.items():
            path.write_bytes(b"\n".join(bodies[rows]) + b"\n")
        return files


def _ask(client: httpx.Client, path: str, body: bytes) -> httpx.Response:
    return client.post(path, content=body)


def _check_records(home: Home, counted: dict[str, int], measurements: list[dict[str, Any]]) -> dict[str, Any]:
    """Every answer that wrk saw was counted, and every counted one is in the log."""
    seen = Counter[str]()
    for one in measurements:
        if one["endpoint"] is not None:
            seen[one["endpoint"]] += one["requests"]
    logged = home.logged()
    for name in home.endpoints:
        # wrk does not count what is under way when its time is up; the gateway answers it all the same.
        if not seen[name] <= counted[name] == logged[name]:
            sys.exit(
                f"{name}: wrk saw {seen[name]} answers, the gateway counted {counted[name]}, logged {logged[name]}"
            )
    return {"answers_seen": seen.total(), "answers_counted": sum(counted.values()), "answers_logged": logged.total()}


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


def _versions(peers: list[Peer]) -> dict[str, str]:
    return {name: each for peer in peers if peer.packages for name, each in _versions_of(peer).items()}


def _versions_of(peer: Peer) -> dict[str, str]:
    return {f"{name} (peer)": each for name, each in versions_of(peer.environment, peer.packages).items()}


def _options() -> argparse.Namespace:
    names = list(dict.fromkeys(peer.environment for peer in PEERS))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=1, help="of each measurement")
    parser.add_argument("--peers", nargs="*", choices=names, default=names)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--no-features", action="store_true", help="leave out the flights and their look-ups")
    parser.add_argument("--quick", action="store_true", help="one round, one row a request, 16 callers, no flights")
    parser.add_argument("--page", action="store_true", help="write the figures into docs/benchmarks/serving.md")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.no_features = 1, True
    return options


def _say(what: str) -> None:
    print(what, flush=True)


if __name__ == "__main__":
    main()
