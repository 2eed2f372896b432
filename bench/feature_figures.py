"""From the measurements of ``features.py`` to the figures that it reports, and the goals they are held against."""

from __future__ import annotations

from typing import Any

import numpy as np
from measure_joins import AS_KNOWN
from measure_online import (
    ENTITIES,
    FEAST_HTTP,
    FEAST_REDIS,
    FEAST_SQLITE,
    FILLED,
    PIPELINE,
    RELEVO_REDIS,
    RELEVO_SQLITE,
    SELECT,
)
from report import Goal, Report, median_of, median_ratio

Row = dict[str, Any]
RELEVO, PINNED, POLARS, POLARS_AS_KNOWN, FEAST = (
    "Relevo attach",
    "Relevo, pinned versions",
    "Polars join_asof",
    "Polars, as known",
    "Feast",
)
#: The limit beside which each engine's lookups are shown.
LIMITS = {
    RELEVO_SQLITE: SELECT,
    FEAST_SQLITE: SELECT,
    FEAST_HTTP: SELECT,
    SELECT: SELECT,
    RELEVO_REDIS: PIPELINE,
    FEAST_REDIS: PIPELINE,
    PIPELINE: PIPELINE,
}
SHAPES = ("one row an entity", "many rows an entity")


def summarise(report: Report) -> None:
    """Fill in the summary and the goals."""
    report.summary = [*_joins(report, "flights", POLARS), *_joins(report, "large", POLARS_AS_KNOWN)]
    report.summary += [*_training(report), *_lookups(report), *_materialising(report)]
    report.goals = [*_join_goals(report), *_lookup_goals(report), *_materialising_goals(report)]


def of_part(report: Report, part: str) -> list[Row]:
    """The rows of the summary of one part."""
    return [row for row in report.summary if row["part"] == part]


def _joins(report: Report, part: str, limit: str) -> list[Row]:
    rows = []
    measured = [one for one in report.measurements if one["part"] == part]
    engines = dict.fromkeys(one["engine"] for one in measured)
    for engine in sorted(engines, key=lambda name: "Feast" in name):  # it is last, as it is in a round
        this, that = {"engine": engine}, {"engine": limit}
        first = next(one for one in measured if one["engine"] == engine)
        rows.append(
            {"part": part, "engine": engine}
            | {name: median_of(measured, name, **this) for name in ("seconds", "peak_mb")}
            | {"before_mb": None if "stopped" in first else median_of(measured, "before_mb", **this)}
            | {f"{name}_of_limit": median_ratio(measured, name, this, that) for name in ("seconds", "peak_mb")}
            | {"rounds": sum(one["engine"] == engine for one in measured), "stopped": first.get("stopped")}
            | {"is_as_known": part == "flights" or engine in (*AS_KNOWN, FEAST)}
        )
    return rows


def _training(report: Report) -> list[Row]:
    measured = [one for one in report.measurements if one["part"] == "training set"]
    return [
        {"part": "training set", "engine": step}
        | {name: median_of(measured, name, engine=step) for name in ("seconds", "rows", "peak_mb")}
        for step in dict.fromkeys(one["engine"] for one in measured)
    ]


def _lookups(report: Report) -> list[Row]:
    measured = [one for one in report.measurements if one["part"] == "lookup"]
    rows = []
    for entities in ENTITIES:
        for engine, limit in LIMITS.items():
            this, that = ({"engine": name, "entities": entities} for name in (engine, limit))
            times = [time for one in measured if this.items() <= one.items() for time in one["times_us"]]
            rows.append(
                {"part": "lookup"}
                | this
                | {"p50_us": median_of(measured, "p50_us", **this), "p99_us": float(np.percentile(times, 99))}
                | {"limit": limit, "of_limit": median_ratio(measured, "p50_us", this, that), "calls": len(times)}
            )
    return rows


def _materialising(report: Report) -> list[Row]:
    rows = []
    for shape in SHAPES:
        part = f"materialise, {shape}"
        measured = [one for one in report.measurements if one["part"] == part]
        for engine in FILLED:
            peer = {"engine": engine.replace("Relevo", "Feast SDK")}
            rows.append(
                {"part": part, "engine": engine}
                | {name: median_of(measured, name, engine=engine) for name in ("seconds", "rows", "rows_a_second")}
                | {"of_feast": median_ratio(measured, "rows_a_second", {"engine": engine}, peer)}
            )
    return rows


def _join_goals(report: Report) -> list[Goal]:
    flights = {row["engine"]: row for row in of_part(report, "flights")}
    large = {row["engine"]: row for row in of_part(report, "large")}
    measured = [one for one in report.measurements if one["part"] == "flights"]
    feast = median_ratio(measured, "seconds", {"engine": FEAST}, {"engine": RELEVO})
    goals = []
    for engine in (RELEVO, PINNED):
        for figure, word in (("seconds", "time"), ("peak_mb", "peak memory")):
            measure = flights[engine][f"{figure}_of_limit"]
            goals.append(Goal(f"flights, {engine}: {word} beside bare Polars", 1.5, measure, False))
    return [
        *goals,
        Goal("flights, Relevo attach: times as fast as Feast", 100, feast, True),
        Goal(
            "large, Relevo attach: time beside Polars that gives the same rows",
            1.5,
            large[RELEVO]["seconds_of_limit"],
            False,
        ),
        Goal("large, Relevo attach: peak memory beside it", 1.5, large[RELEVO]["peak_mb_of_limit"], False),
        Goal("large, Relevo attach: peak memory, GB", 3.0, large[RELEVO]["peak_mb"] / 1024, False),
    ]


def _lookup_goals(report: Report) -> list[Goal]:
    measured = [one for one in report.measurements if one["part"] == "lookup"]

    def ratio(engine: str, other: str, entities: int) -> float:
        return median_ratio(
            measured, "p50_us", {"engine": engine, "entities": entities}, {"engine": other, "entities": entities}
        )

    goals = [Goal("lookup of 1, SQLite: time beside the bare select", 2.0, ratio(RELEVO_SQLITE, SELECT, 1), False)]
    for entities in ENTITIES:
        sqlite, redis = ratio(FEAST_SQLITE, RELEVO_SQLITE, entities), ratio(FEAST_REDIS, RELEVO_REDIS, entities)
        goals.append(Goal(f"lookup of {entities}, SQLite: times as fast as Feast's SDK", 20, sqlite, True))
        goals.append(Goal(f"lookup of {entities}, Redis: times as fast as Feast's SDK", 4, redis, True))
    return goals


def _materialising_goals(report: Report) -> list[Goal]:
    goals = []
    for shape in SHAPES:
        for row in of_part(report, f"materialise, {shape}"):
            if "Relevo" in row["engine"]:
                store = row["engine"].removeprefix("Relevo, ")
                name = f"materialise, {shape}, {store}: times the rows a second of Feast"
                goals.append(Goal(name, 20, row["of_feast"], True))
    return goals
