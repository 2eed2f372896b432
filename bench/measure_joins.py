"""Point-in-time joins: ours, Feast and the bare engines, on the flights and on large tables.

Every run is a process of its own, timed without imports; peak memory is all that it has held, imports included.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from peers import python_of
from processes import Child, Stopped
from report import Report
from tables import Tables

#: Engines by the name that the report gives them: the function, and the environment (None: ours).
FLIGHT_ENGINES = {
    "Relevo attach": ("relevo", None),
    "Relevo, pinned versions": ("relevo_pinned", None),
    "Polars join_asof": ("polars", None),
    "pandas merge_asof": ("pandas", None),
    "DuckDB ASOF": ("duckdb", "duckdb"),
}
LARGE_ENGINES = {
    "Relevo attach": ("relevo", None),
    "Polars, as known": ("polars_as_known", None),
    "Polars join_asof": ("polars", None),
    "DuckDB ASOF": ("duckdb", "duckdb"),
    "pandas merge_asof": ("pandas", None),
}
#: What is right although rows are late.
AS_KNOWN = ("Relevo attach", "Polars, as known")
SAMPLE = 1_000
#: Answers another question, for which Feast's join makes fewer rows.
TTL_DAYS = 30
FEAST_WITH_TTL = f"Feast, ttl of {TTL_DAYS} days"


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one join of Feast."""

    memory_gb: float
    seconds: float


def check_flights(report: Report, tables: Tables, folder: Path, limits: Limits) -> None:
    """End without figures unless all engines give the same row for each flight. Feast's run is its first round."""
    with _child(None, folder) as child:
        child.call("keep_versions", tables=tables.told())
    ours = _kept("relevo", None, tables, folder)
    if not ours["row"].equals(pl.read_parquet(f"{tables.folder}/spine.parquet")["row"]):
        sys.exit("Relevo attach: not the rows of the spine in its order")
    for name, (engine, peer) in FLIGHT_ENGINES.items():
        _require_equal(name, ours, _kept(engine, peer, tables, folder), len(tables.views))
    output = folder / "feast.parquet"
    found = join_by_feast(tables, folder, limits, output)
    if "stopped" in found:
        sys.exit(f"Feast: {found['stopped']}")
    _require_equal("Feast", ours, pl.read_parquet(output), len(tables.views))
    report.checks |= {
        "flights_compared": ours.height,
        "flights_engines": [*FLIGHT_ENGINES, "Feast"],
        "flights_values": {name: ours[name].count() for name in ours.columns[1:]},
    }
    report.measurements.append({"round": 0, "part": "flights", "engine": "Feast"} | found)


def measure_flights(
    report: Report, tables: Tables, folder: Path, rounds: int, feast_rounds: int, limits: Limits
) -> None:
    """Every engine in turn, round after round; Feast in the first ``feast_rounds``, one of which has been run."""
    for number in range(rounds):
        for name, (engine, peer) in FLIGHT_ENGINES.items():
            _measure(report, "flights", number, name, engine, peer, tables, folder)
        if 0 < number < feast_rounds:
            found = join_by_feast(tables, folder, limits)
            report.measurements.append({"round": number, "part": "flights", "engine": "Feast"} | found)


def measure_training_sets(report: Report, folder: Path, rounds: int) -> None:
    """The steps of a training run, each in a process of its own; the same versions must give the same digest."""
    digests = set()
    for number in range(rounds):
        for step in ("load", "build"):
            with Child("training_sets.py", log=folder / "log") as child:
                found = child.call(step, folder=str(folder / "training"))
            digests.add(found.pop("digest", None))
            report.measurements.append({"round": number, "part": "training set", "engine": step} | found)
    (digest,) = digests - {None}
    report.checks["training_set_digest"] = digest


def check_large(report: Report, tables: Tables, folder: Path, limits: Limits) -> None:
    """On a sample, ours and Feast's are what the definition says; on all rows, ours is what careful Polars gives."""
    sample = tables.head(folder / "sample", SAMPLE)
    ours = _kept("relevo", None, tables, folder)
    defined = _kept("as_defined", "duckdb", sample, folder)
    _require_equal("Relevo attach", defined, ours.head(SAMPLE), len(tables.views))
    output = folder / "feast.parquet"
    if stopped := join_by_feast(sample, folder, limits, output).get("stopped"):
        sys.exit(f"Feast on {SAMPLE:,} rows: {stopped}")
    _require_equal("Feast", defined, pl.read_parquet(output), len(tables.views))
    careful = _kept("polars_as_known", None, tables, folder)
    _require_equal("Polars, as known", ours, careful, len(tables.views))
    plain = _values(_kept("polars", None, tables, folder))
    differs = pl.any_horizontal(pl.col(name).ne_missing(plain[name]) for name in plain.columns)
    report.checks |= {
        "large_compared": ours.height,
        "large_compared_with_the_definition": SAMPLE,
        "large_share_of_rows_wrong_without_regard_to_late_rows": _values(ours).select(differs.mean()).item(),
    }


def measure_large(report: Report, tables: Tables, folder: Path, rounds: int, limits: Limits) -> None:
    """The bare engines in turn; then Feast, without and with a ttl, until it has finished or reached a limit."""
    for number in range(rounds):
        for name, (engine, peer) in LARGE_ENGINES.items():
            _measure(report, "large", number, name, engine, peer, tables, folder)
    for name, asked in (("Feast", tables), (FEAST_WITH_TTL, tables.with_ttl(TTL_DAYS * 24))):
        found = join_by_feast(asked, folder, limits)
        report.measurements.append({"round": 0, "part": "large", "engine": name} | found)


def join_by_feast(tables: Tables, folder: Path, limits: Limits, output: Path | None = None) -> dict[str, Any]:
    """A join of Feast on DuckDB, or ``stopped`` with the reason."""
    repository = folder / f"feast-{len(list(folder.glob('feast-*')))}"
    online = {"type": "sqlite", "path": str(repository / "online.db")}
    with Child(
        "feast_engine.py", python=python_of("feast"), log=folder / "feast.log", memory_gb=limits.memory_gb
    ) as child:
        child.call("open_store", repository=str(repository), tables=tables.told(), online=online)
        try:
            found: dict[str, Any] = child.call(
                "join",
                limit_seconds=limits.seconds,
                repository=str(repository),
                tables=tables.told(),
                output=None if output is None else str(output),
            )
        except Stopped as error:
            return {"seconds": error.seconds, "peak_mb": error.peak_mb, "stopped": error.why}
    return found


def _measure(
    report: Report, part: str, number: int, name: str, engine: str, peer: str | None, tables: Tables, folder: Path
) -> None:
    with _child(peer, folder) as child:
        found = child.call("run", engine=engine, tables=tables.told())
    report.measurements.append({"round": number, "part": part, "engine": name} | found)


def _kept(engine: str, peer: str | None, tables: Tables, folder: Path) -> pl.DataFrame:
    """The rows that an engine gives, in its order."""
    output = folder / "kept.parquet"
    with _child(peer, folder) as child:
        child.call("run", engine=engine, tables=tables.told(), output=str(output))
    frame = pl.read_parquet(output, memory_map=False)
    output.unlink()
    return frame


def _child(peer: str | None, folder: Path) -> Child:
    return Child("join_engines.py", python=sys.executable if peer is None else python_of(peer), log=folder / "log")


def _require_equal(name: str, expected: pl.DataFrame, given: pl.DataFrame, columns: int) -> None:
    left, right = _values(expected), _values(given)
    if left.height != right.height or left.columns != right.columns or len(left.columns) != columns:
        sys.exit(f"{name}: {right.height:,} rows of {right.columns}, expected {left.height:,} of {left.columns}")
    for column in left.columns:
        differs = left[column].ne_missing(right[column]).sum()
        if differs:
            sys.exit(f"{name}: {column} differs in {differs:,} of {left.height:,} rows")


def _values(frame: pl.DataFrame) -> pl.DataFrame:
    features: Sequence[str] = [name for name in frame.columns if name != "row"]
    return frame.sort("row").select(pl.col(features).cast(pl.Float64).fill_nan(None))
