"""Ten minutes at half the peak rate: one worker, several endpoints, nothing lost, memory flat.

The peak is measured first, with wrk. Then a generator keeps half of it. At the end every answer must be in the log.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from home import Home
from page import Columns, fill, goals_table, markdown
from pinned import LOAD_CORE, Server, load, prepare, serving
from report import Goal, Report, show
from served_models import MODELS, Served, served_models
from serving_page import PAGE

HERE = Path(__file__).parent
#: Model, kind of log and rows of the requests, in the order in which they come, over and over.
MIX = (
    *(("linear", "buffered", 1), ("boosted", "buffered", 1), ("linear", "durable", 1), ("linear", "buffered", 1)),
    *(("boosted", "durable", 1), ("uncompiled", "buffered", 1), ("linear", "buffered", 10), ("boosted", "buffered", 1)),
)
PEAK_CALLERS, CONNECTIONS = 16, 64
SAMPLE_SECONDS = 5.0
#: The part of the run in which memory may still grow: caches and buffers fill.
SETTLING = 0.2

MINUTES: Columns = {
    "minute": ("minute", "d"),
    "requests": ("requests", ",.0f"),
    "p50_ms": ("p50 ms", ",.2f"),
    "p99_ms": ("p99 ms", ",.2f"),
    "max_ms": ("longest ms", ",.1f"),
    "resident_mb": ("resident MB", ",.1f"),
}


def main() -> None:
    options = _options()
    prepare()
    report = Report("soak", vars(options) | {"mix": MIX, "connections": CONNECTIONS})
    with tempfile.TemporaryDirectory(prefix="relevo-bench-", dir=options.folder) as name, ExitStack() as stack:
        folder = Path(name)
        served = {one.name: one for one in served_models(folder / "models", list(MODELS))}
        home = Home(folder / "home")
        stack.callback(home.close)
        for one in served.values():
            home.release(one.workload.model)
        bodies = _bodies(served, folder / "bodies")
        worker = stack.enter_context(serving(home.command, folder / "relevo.out", environment=home.variables))
        home.wait_until_loaded()
        peak = load(worker, "/", PEAK_CALLERS, bodies=bodies, token=home.token, seconds=options.peak_seconds)
        before = sum(home.counted().values())
        rate = peak["requests_per_second"] / 2
        print(
            f"peak {peak['requests_per_second']:,.0f} requests/s; {options.minutes:g} minutes at half of it", flush=True
        )
        found, samples = _soak(worker, bodies, home.token, rate, options.minutes)
        counted = sum(home.counted().values())
        worker.stop()
        logged = sum(home.logged().values())
    report.checks = {name: value for name, value in found.items() if name != "windows"} | {
        "peak_requests_per_second": peak["requests_per_second"],
        "counted": counted - before,
        "logged": logged - before,
        "peak_answers_counted": before,
    }
    report.measurements = samples
    _summarise(report, found, samples, rate)
    report.write()
    if options.page:
        fill(
            PAGE,
            {
                "soak": _words(report) + "\n\n" + markdown(report.summary, MINUTES),
                "soak-goals": goals_table(report.goals),
            },
        )


def _bodies(served: dict[str, Served], path: Path) -> Path:
    """A file of requests, each a line of path, tab, and body."""
    made: dict[tuple[str, int], list[bytes]] = {
        (name, rows): served[name].workload.bodies(rows) for name, _, rows in MIX
    }
    lines = []
    for place in range(1_000):
        name, log, rows = MIX[place % len(MIX)]
        bodies = made[name, rows]
        lines.append(f"/endpoints/{name}-{log}/invocations\t".encode() + bodies[place % len(bodies)])
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def _soak(
    worker: Server, bodies: Path, token: str, rate: float, minutes: float
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the generator tells at its end, and the worker's memory while it ran."""
    at = urlsplit(worker.url)
    asked = {"host": at.hostname, "port": at.port, "token": token, "bodies": str(bodies), "rate": rate}
    asked |= {"seconds": minutes * 60, "window_seconds": 60.0, "connections": CONNECTIONS}
    process = subprocess.Popen(
        ["taskset", "--cpu-list", str(LOAD_CORE), sys.executable, str(HERE / "generator.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin as given:
            json.dump(asked, given)
        began, samples = time.monotonic(), []
        while process.poll() is None:
            samples.append({"seconds": time.monotonic() - began, "resident_mb": worker.resident_mb()})
            time.sleep(SAMPLE_SECONDS)
        told = process.stdout.read()
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        sys.exit(f"the generator ended with status {process.returncode}")
    return json.loads(told), samples


def _summarise(report: Report, found: dict[str, Any], samples: list[dict[str, Any]], rate: float) -> None:
    report.summary = [
        window
        | {
            "minute": number + 1,
            "resident_mb": max(
                (one["resident_mb"] for one in samples if int(one["seconds"] // 60) == number), default=float("nan")
            ),
        }
        for number, window in enumerate(found["windows"])
    ]
    show("soak", report.summary, MINUTES)
    end = samples[-1]["seconds"]
    settled = [one for one in samples if one["seconds"] >= SETTLING * end]
    seconds, resident = [one["seconds"] for one in settled], [one["resident_mb"] for one in settled]
    slope = float(np.polyfit(seconds, resident, 1)[0]) if len(settled) > 1 else float("nan")
    grown = slope * (seconds[-1] - seconds[0]) / resident[0] * 100
    report.checks |= {"slope_mb_an_hour": slope * 3600, "resident_mb_at_the_end": resident[-1], "rate": rate}
    kept = found["answered"] / found["seconds"] / rate
    report.goals = [
        Goal("requests without a good answer", 0, found["errors"], False),
        Goal("acknowledged requests that the log has not, or has more than once", 0, _unlogged(report), False),
        Goal("growth of memory by its slope, after the first fifth, percent", 2.0, grown, False),
        Goal("share of the rate that was kept", 0.99, kept, True),
    ]


def _unlogged(report: Report) -> int:
    checks = report.checks
    return max(abs(checks["answered"] - checks["logged"]), abs(checks["counted"] - checks["logged"]))


def _words(report: Report) -> str:
    checks, machine = report.checks, report.machine()
    return (
        f"{report.settings['minutes']:g} minutes at {checks['rate']:,.0f} requests a second, half of a peak of "
        f"{checks['peak_requests_per_second']:,.0f}: {checks['answered']:,} answers, {checks['errors']:,} errors, "
        f"{checks['logged']:,} requests in the log. Memory at the end {checks['resident_mb_at_the_end']:,.0f} MB, "
        f"slope {checks['slope_mb_an_hour']:,.1f} MB an hour. Load average {machine['load_before'][0]:.1f} before."
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--peak-seconds", type=int, default=10, help="in which the peak is measured")
    parser.add_argument("--folder", help="where the log is, for the time of the run: some gigabytes")
    parser.add_argument("--page", action="store_true", help="write the figures into docs/benchmarks/serving.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
