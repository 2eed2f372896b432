"""Runs of bulk scoring on a home: in this process, or as a program of their own that a test kills.

``python bulk.py GIVEN OUTPUT BUNDLES HOME`` scores and prints the outcome.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import polars as pl

from relevo.platform.encoding import to_json
from relevo.platform.settings import Settings
from relevo.scoring.model import Asked, Outcome, Plan, Sources
from relevo.scoring.running import score

MODEL = "flight-delay"
AS_OF = datetime(2013, 4, 1, tzinfo=UTC)
MLMODEL = b"flavors:\n  sklearn:\n    code: null\n    pickled_model: model.pkl\n    serialization_format: cloudpickle\n"


@dataclass
class Bundles:
    """Says which bundle a version has; the first is in production. Views are looked up in ``tables``."""

    versions: dict[int, str]
    tables: dict[str, pl.DataFrame] = field(default_factory=dict)
    declared: tuple[dict[str, object], ...] = ()
    left: Path | None = None

    def plan(self, model: str, version: int | None) -> Plan:
        number = version or next(iter(self.versions))
        return Plan(model, number, self.versions[number], AS_OF)

    def sources(self, plan: Plan, views: Sequence[str]) -> Sources:
        assert self.left is not None
        self.left.mkdir(parents=True)
        for name, table in self.tables.items():
            table.write_ipc(self.left / f"{name}.arrow")
        return Sources(str(self.left), self.declared)


class Quiet:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []

    def doing(self, what: str) -> None:
        pass

    def scored(self, rows: int, failed: int, total: int) -> None:
        self.seen.append((rows, failed, total))


class Bulk:
    """Runs with one output in a folder of the test's own."""

    def __init__(self, home: Path, versions: dict[int, str], work: Path) -> None:
        work.mkdir()
        self.home = home
        self.work = work
        self.control = Bundles(versions)
        self.output = work / "out"
        self.watcher = Quiet()

    def asked(self, source: Path | str, **options: Any) -> Asked:
        given = {"chunk_rows": 100, "workers": 2, "output": self.output} | options
        return Asked(MODEL, str(source), **given)

    def score(self, source: Path | str, **options: Any) -> Outcome:
        return score(self.asked(source, **options), Settings(home=self.home), self.control, self.watcher)

    def start(self, source: Path | str, **options: Any) -> subprocess.Popen[bytes]:
        """The same in a process of its own."""
        versions = json.dumps(self.control.versions)
        given = json.dumps({"input": str(source), "chunk_rows": 100, "workers": 2} | options)
        command = [sys.executable, __file__, given, str(self.output), versions, str(self.home)]
        with (self.work / "said").open("ab") as said:
            return subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ})

    def rows(self) -> pl.DataFrame:
        return pl.read_parquet(self.output / "*.parquet")

    def parts(self) -> list[Path]:
        return sorted(self.output.glob("*.parquet"))


def flights(rows: int, **columns: Any) -> pl.DataFrame:
    """Rows that version 1 answers with ``1 + 2 * row``."""
    return pl.DataFrame(
        {"flight": [f"f{i}" for i in range(rows)], "distance": [float(i) for i in range(rows)], "carrier": "UA"}
        | columns
    )


def original(model: Any) -> dict[str, bytes]:
    """The files of a bundle with an original model."""
    return {
        "model/MLmodel": MLMODEL,
        "model/model.pkl": cloudpickle.dumps(model),
        "runtime/categories.json": b'{"carrier": ["UA"]}',
        "runtime/probe.json": b'{"rows":[[1.5,"UA"]],"outputs":[3.0],"tolerance":1e-9}',
    }


def eventually(claim: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "it did not become so in time"
        time.sleep(0.02)


def main(given: str, output: str, versions: str, home: str) -> None:
    bundles = {int(number): bundle for number, bundle in json.loads(versions).items()}
    asked = Asked(MODEL, output=Path(output), **json.loads(given))
    outcome = score(asked, Settings(home=Path(home)), Bundles(bundles), Quiet())
    print(json.dumps(to_json(outcome)))


if __name__ == "__main__":
    main(*sys.argv[1:])
