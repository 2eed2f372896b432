"""Thousands of endpoints in one gateway worker whose memory holds a few: start, reading the state, first uses, reports.

``python bench/fleet.py``. Every endpoint has a sealed version of its own. Many are asked for the first time, of which
nearly each has to be loaded; and then some that are in memory.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import flights
import httpx
import msgspec
import numpy as np
from home import Home
from pinned import Server, serving
from report import Goal, Report, show

from relevo.contract.model import Task
from relevo.identity.service import Identity
from relevo.platform.clock import EventClock
from relevo.platform.objects import Objects
from relevo.registry.bundles import store_bundle, write_bundle
from relevo.registry.keys import load_signing_key
from relevo.runtimes.linear import FILE, LinearModel, Number
from relevo.runtimes.loading import PROBE_FILE, Probe
from relevo.runtimes.model import Column, ColumnType, Link, Signature
from relevo.serving.loader import VERSION_BYTES
from relevo.serving.model import Arm, EndpointSettings
from relevo.serving.watch import StateWatch

COLUMNS = {"figure": ("figure", "s"), "value": ("value", ",.1f"), "unit": ("unit", "s")}
SIGNATURE = Signature(Task.REGRESSION, tuple(Column(f"x{place}", ColumnType.FLOAT) for place in range(12)))
BODY = {"dataframe_split": {"columns": [column.name for column in SIGNATURE.inputs], "data": [[1.0] * 12]}}


def main() -> None:
    options = _options()
    report = Report("fleet", vars(options))
    with tempfile.TemporaryDirectory(prefix="relevo-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        home = Home(folder / "home")
        stack.callback(home.close)
        names = [f"model-{number:05d}" for number in range(options.endpoints)]
        print(f"sealing {len(names):,} versions", flush=True)
        _register(home, names)
        figures = _state(home, options.rounds)
        began = time.perf_counter()
        budget = {"RELEVO_GATEWAY_MODEL_BYTES": str(VERSION_BYTES * (options.in_memory + 1))}
        worker = stack.enter_context(
            serving(home.command, folder / "relevo.out", environment={**home.variables, **budget})
        )
        worker.wait_until_ready("/health")
        figures["start"] = (time.perf_counter() - began) * 1e3
        figures |= _worker(worker, home, names, options)
    report.measurements = [figures]
    report.summary = [{"figure": figure, "value": value, "unit": _unit(figure)} for figure, value in figures.items()]
    report.goals = [Goal("requests that failed", 0, figures["failed"], at_least=False)]
    show(f"{options.endpoints:,} endpoints, memory for {options.in_memory}", report.summary, COLUMNS)
    report.write()


def _register(home: Home, names: list[str]) -> None:
    model = LinearModel(Link.IDENTITY, (1.0,), tuple(Number(place, 0.0, 1.0, (0.5,), 0.0) for place in range(12)))
    files = {
        FILE: msgspec.json.encode(model),
        PROBE_FILE: msgspec.json.encode(Probe([[1.0] * 12], [7.0], 1e-9)),
    }
    objects, key = Objects(home.settings.folder("objects")), load_signing_key(home.settings.folder("keys"))
    bundles = {}
    for name in names:
        folder = home.settings.folder("jobs") / name
        manifest = write_bundle(
            folder, model=name, version=1, run_id="bench", runtime="linear", signature=SIGNATURE, files=files
        )
        bundles[name] = store_bundle(folder, manifest, objects, key)
    with home.state.transaction() as tx:
        for name, bundle in bundles.items():
            home.serving.ensure_endpoint(tx, name, EndpointSettings(log="buffered"))
            home.serving.place(tx, name, 1, bundle)
            home.serving.set_route(
                tx, name, [Arm(1, 100)], reason="bench", set_by="bench", effective_event_at=flights.THROUGH
            )


def _state(home: Home, rounds: int) -> dict[str, float]:
    """What a worker's reading of the state costs: all of it, and a poll in which nothing has changed."""
    whole, polls = [], []
    for _ in range(rounds):
        watch = StateWatch(home.state, EventClock(home.state), Identity(home.state))
        began = time.perf_counter()
        watch.read()
        read = time.perf_counter()
        watch.poll()
        polls.append((time.perf_counter() - read) * 1e3)
        whole.append((read - began) * 1e3)
        watch.close()
    return {"whole reading of the state": float(np.median(whole)), "poll without a change": float(np.median(polls))}


def _worker(worker: Server, home: Home, names: list[str], options: argparse.Namespace) -> dict[str, float]:
    order = random.Random(7)
    failed = 0
    found: dict[str, float] = {"memory at the start": worker.resident_mb()}
    headers = {"authorization": f"Bearer {home.token}"}

    def ask(client: httpx.Client, name: str) -> float:
        nonlocal failed
        began = time.perf_counter()
        failed += client.post(f"/endpoints/{name}/invocations", json=BODY).status_code != 200
        return (time.perf_counter() - began) * 1e3

    with httpx.Client(base_url=worker.url, headers=headers, timeout=30) as client:
        ask(client, names[0])
        first = [ask(client, name) for name in order.sample(names, min(options.asked, len(names)))]
        recent = names[:5]
        for name in recent:
            ask(client, name)
        again = [ask(client, order.choice(recent)) for _ in range(500)]
    before, began = worker.cpu_seconds(), time.monotonic()
    time.sleep(3)
    found |= {
        "first use, p50": float(np.median(first)),
        "first use, p99": float(np.quantile(first, 0.99)),
        "in memory, p50": float(np.median(again)),
        "in memory, p99": float(np.quantile(again, 0.99)),
        "memory after all first uses": worker.resident_mb(),
        "share of a core when nobody asks": 100 * (worker.cpu_seconds() - before) / (time.monotonic() - began),
        "report": max(path.stat().st_size for path in home.settings.folder("gateway").glob("worker-*.json")) / 1e3,
        "failed": float(failed),
    }
    return found


def _unit(figure: str) -> str:
    units: dict[str, Any] = {"memory": "MB", "share": "%", "report": "kB", "failed": "requests"}
    return str(next((unit for word, unit in units.items() if figure.startswith(word)), "ms"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoints", type=int, default=3_000)
    parser.add_argument("--in-memory", type=int, default=30, help="so many versions fit the budget")
    parser.add_argument("--asked", type=int, default=1_000, help="endpoints that are asked for the first time")
    parser.add_argument("--rounds", type=int, default=5, help="of reading the state")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
