"""The whole way of a training set of the flights, as a training run goes it (``children.serve``).

``load``: each of the five sources of the example by its loader, checked, digested and kept as a version of a Delta
table. ``build``: those pinned versions, the labelled rows, the features as known, the split, one file, its digest.
"""

from __future__ import annotations

import importlib
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import flights
from children import peak_mb, seconds_of, serve

from relevo.features import Entity, FeatureView, latest
from relevo.training import child
from relevo.training.folder import RunFolder
from relevo.training.model import Run

AS_OF = datetime(2014, 1, 3, tzinfo=UTC)


def load(folder: str) -> dict[str, Any]:
    """Load all sources into new tables."""
    shutil.rmtree(folder, ignore_errors=True)
    _write_run(folder)
    _imported()
    # The example parses its files once a process; that is no part of keeping a version.
    flights.tables()
    seconds, loaded = seconds_of(lambda: child.load_sources(f"{folder}/run"))
    return {"seconds": seconds, "rows": sum(one["rows"] for one in loaded.values()), "peak_mb": peak_mb()}


def build(folder: str) -> dict[str, Any]:
    """Build the training set of the loaded versions."""
    _imported()
    seconds, built = seconds_of(lambda: child.build(f"{folder}/run"))
    return {"seconds": seconds, "rows": built["rows"], "digest": built["digest"], "peak_mb": peak_mb()}


def _imported() -> None:
    """A step imports what it needs; a run has done so when it comes to it."""
    for name in ("relevo.datasets.child", "relevo.training.evaluation", "relevo.training.rows"):
        importlib.import_module(name)


def _write_run(folder: str) -> None:
    airport, aircraft = Entity("airport", "origin"), Entity("aircraft", "tailnum")
    views = (
        FeatureView("departures", entity=airport, source="departures", features=_latest("dep_delay"), ttl="4h"),
        FeatureView("landings", entity=aircraft, source="landings", features=_latest("arr_delay"), ttl="24h"),
        FeatureView("weather", entity=airport, source="weather", features=_latest("wind_speed"), ttl="6h"),
    )
    run = Run(
        id="bench",
        workflow_id="bench",
        model="flight-delay",
        revision=1,
        as_of=AS_OF,
        contract=flights.contract(),
        views=views,
        package=str(flights.PACKAGE),
        snapshot="bench",
        tables=str(Path(folder) / "tables"),
    )
    RunFolder(f"{folder}/run").write("run", run)


def _latest(column: str) -> dict[str, Any]:
    return {f"latest_{column}": latest(column)}


if __name__ == "__main__":
    serve({"load": load, "build": build})
