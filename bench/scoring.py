"""Bulk scoring beside a bare script of Polars and LightGBM: rows a second, peak memory, and the same answers.

``python bench/scoring.py`` writes tables of made-up rows, answers each with both in turn, and prints ratios. The bare
script reads the whole table, predicts on all cores and writes one file; it checks nothing and cannot be resumed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil

BARE = """
import sys, lightgbm, numpy, polars
model, source, into, threads = sys.argv[1:]
booster = lightgbm.Booster(model_file=model)
listed = zip(("c0", "c1"), booster.pandas_categorical)
codes = {name: {value: i for i, value in enumerate(values)} for name, values in listed}
rows = polars.read_parquet(source)
number, column = polars.Float64, polars.col
inputs = [column(n).replace_strict(list(codes[n]), list(codes[n].values()), default=None, return_dtype=number)
          if n in codes else column(n).cast(number) for n in booster.feature_name()]
found = booster.predict(rows.select(inputs).to_numpy(), num_threads=int(threads))
rows.with_columns(prediction=found).write_parquet(into)
"""
NUMBERS = [f"x{i}" for i in range(10)]
TEXTS = {"c0": [f"carrier {i}" for i in range(15)], "c1": [f"origin {i}" for i in range(100)]}


def table(rows: int, seed: int = 1) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    numbers: dict[str, Any] = {name: random.normal(size=rows) for name in NUMBERS}
    return pl.DataFrame(numbers | {name: random.choice(values, rows) for name, values in TEXTS.items()})


def write_table(path: Path, rows: int) -> None:
    path.mkdir()
    for number, first in enumerate(range(0, rows, 262_144)):
        table(min(262_144, rows - first), seed=number).write_parquet(path / f"{number:03}.parquet")


def fit(home: Path) -> tuple[str, Path]:
    """A sealed bundle of a LightGBM model with 200 trees, and the same booster as a file."""
    import lightgbm

    from relevo.contract.model import Task
    from relevo.platform.objects import Objects
    from relevo.platform.settings import Settings
    from relevo.registry.bundles import store_bundle, write_bundle
    from relevo.registry.keys import load_signing_key
    from relevo.runtimes.compilation import compile_model
    from relevo.runtimes.frames import categories_of, frame_of_columns
    from relevo.runtimes.model import Column, ColumnType, Signature

    columns = [Column(name, ColumnType.FLOAT) for name in NUMBERS] + [Column(name, ColumnType.TEXT) for name in TEXTS]
    signature = Signature(Task.REGRESSION, tuple(columns))
    rows = table(50_000, seed=99)
    series = {name: rows[name] for name in rows.columns}
    frame = frame_of_columns(series, signature, categories_of(series, signature))
    label = frame["x0"] * frame["x1"] + frame["c0"].cat.codes % 3
    model = lightgbm.LGBMRegressor(n_estimators=200, verbose=-1).fit(frame, label)
    compiled = compile_model(model, signature, frame.head(500))
    if compiled.runtime != "lightgbm":
        sys.exit(f"expected the runtime lightgbm, got {compiled.agreement}")
    settings = Settings(home=home)
    folder = settings.folder("jobs") / "bundle"
    manifest = write_bundle(
        folder, model="bench", version=1, run_id="bench", runtime="lightgbm", signature=signature, files=compiled.files
    )
    bundle = store_bundle(
        folder, manifest, Objects(settings.folder("objects")), load_signing_key(settings.folder("keys"))
    )
    booster = home / "booster.txt"
    model.booster_.save_model(str(booster))
    return bundle, booster


class Control:
    """Says which bundle answers, as the control plane would."""

    def __init__(self, bundle: str) -> None:
        self.bundle = bundle

    def plan(self, model: str, version: int | None) -> Any:
        from relevo.scoring.model import Plan

        return Plan(model, 1, self.bundle, datetime.now(UTC))

    def sources(self, plan: Any, views: Any) -> Any:
        raise AssertionError("the model looks nothing up")


class Silent:
    def doing(self, what: str) -> None: ...

    def scored(self, rows: int, failed: int, total: int) -> None: ...


def run(home: str, bundle: str, source: str, into: str, workers: str) -> None:
    """One bulk scoring, in this process and its children."""
    from relevo.platform.settings import Settings
    from relevo.scoring.model import Asked
    from relevo.scoring.running import score

    score(
        Asked("bench", source, Path(into), workers=int(workers)), Settings(home=Path(home)), Control(bundle), Silent()
    )


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds, and the most memory in MB that the process and its children were seen to hold together."""
    peak = 0.0
    started = time.perf_counter()
    process = subprocess.Popen(command)
    is_over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(0.05):
            try:
                tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                peak = max(peak, sum(one.memory_info().rss for one in tree) / 1e6)
            except psutil.Error:
                continue

    thread = threading.Thread(target=watch)
    thread.start()
    status = process.wait()
    seconds = time.perf_counter() - started
    is_over.set()
    thread.join()
    if status:
        sys.exit(f"{command[:3]} ended with {status}")
    return seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[300_000, 1_000_000, 3_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="relevo-bench-") as scratch:
        folder = Path(scratch)
        bundle, booster = fit(folder / "home")
        for rows in given.rows:
            source = folder / f"in-{rows}"
            write_table(source, rows)
            ours, bare = [], []
            for number in range(given.rounds):
                outputs = folder / f"ours-{rows}-{number}", folder / f"bare-{rows}-{number}.parquet"
                run_it = [sys.executable, __file__, "--run", str(folder / "home"), bundle, str(source)]
                ours.append(measured([*run_it, str(outputs[0]), str(given.workers)]))
                arguments = [str(booster), f"{source}/*.parquet", str(outputs[1]), str(given.workers)]
                bare.append(measured([sys.executable, "-c", BARE, *arguments]))
                _compare(*outputs)
            seconds, bare_seconds = (statistics.median(one[0] for one in each) for each in (ours, bare))
            figures = {
                "rows": rows,
                "relevo_rows_per_second": round(rows / seconds),
                "bare_rows_per_second": round(rows / bare_seconds),
                "ratio": round(bare_seconds / seconds, 2),
                "relevo_peak_mb": round(max(one[1] for one in ours)),
                "bare_peak_mb": round(max(one[1] for one in bare)),
            }
            print(json.dumps(figures), flush=True)


def _compare(ours: Path, bare: Path) -> None:
    found = pl.read_parquet(ours / "*.parquet", columns=["prediction"])["prediction"].to_numpy()
    expected = pl.read_parquet(bare, columns=["prediction"])["prediction"].to_numpy()
    if not np.allclose(found, expected, rtol=1e-9, atol=1e-9):
        sys.exit("the answers differ")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(*sys.argv[2:])
    else:
        main()
