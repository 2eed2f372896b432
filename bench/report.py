"""What every benchmark says of its machine, its figures and its goals, on the terminal and as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
LIBRARIES = (
    "relevo",
    "polars",
    "pandas",
    "deltalake",
    "lightgbm",
    "msgspec",
    "redis",
    "uvicorn",
    "uvloop",
    "httptools",
)


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound set before the run. ``at_least`` says which side of it is good."""

    goal: str
    target: float
    measured: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.measured >= self.target if self.at_least else self.measured <= self.target


@dataclass
class Report:
    """Everything that one benchmark found."""

    name: str
    settings: dict[str, Any]
    checks: dict[str, Any] = field(default_factory=dict)
    measurements: list[dict[str, Any]] = field(default_factory=list)
    summary: list[dict[str, Any]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    load_before: tuple[float, float, float] = field(default_factory=os.getloadavg)
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def write(self) -> None:
        """Print goals, and write everything to ``bench/results/NAME.json``."""
        console = Console(width=120)
        console.print(_goals(self.goals))
        console.print(f"load average before and after: {self.load_before[0]:.1f}, {os.getloadavg()[0]:.1f}")
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        path.write_text(json.dumps(self._content(), indent=1) + "\n")
        console.print(f"written to {path.relative_to(RESULTS.parent.parent)}")

    def machine(self) -> dict[str, Any]:
        """What it ran on, and how busy that was."""
        return {
            "cores": os.cpu_count(),
            "processor": _processor(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "load_before": self.load_before,
            "load_after": os.getloadavg(),
        }

    def _content(self) -> dict[str, Any]:
        return {
            "benchmark": self.name,
            "began_at": self.began_at.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - self.began_at).total_seconds(), 1),
            "machine": self.machine(),
            "versions": {name: version(name) for name in LIBRARIES} | self.versions,
            "settings": self.settings,
            "checks": self.checks,
            "summary": self.summary,
            "goals": [
                {"goal": one.goal, "target": one.target, "measured": one.measured, "met": one.met} for one in self.goals
            ],
            "measurements": self.measurements,
        }


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def median_of(measurements: Sequence[dict[str, Any]], figure: str, **which: Any) -> float:
    """The median over the rounds of a figure, of the measurements that fit ``which``."""
    return median(one[figure] for one in measurements if all(one.get(name) == value for name, value in which.items()))


def median_ratio(
    measurements: Sequence[dict[str, Any]], figure: str, ours: dict[str, Any], limit: dict[str, Any]
) -> float:
    """The median, over the rounds that have both, of ours divided by the limit's figure of the same round."""
    rounds = sorted(_rounds(measurements, ours) & _rounds(measurements, limit))
    return median(
        median_of(measurements, figure, round=number, **ours) / median_of(measurements, figure, round=number, **limit)
        for number in rounds
    )


def _rounds(measurements: Sequence[dict[str, Any]], which: dict[str, Any]) -> set[int]:
    return {one["round"] for one in measurements if all(one.get(name) == value for name, value in which.items())}


def show(title: str, rows: Sequence[dict[str, Any]], columns: dict[str, tuple[str, str]]) -> None:
    """Print rows as a table. ``columns``: for each figure its heading and its format, such as ``,.0f``."""
    table = Table(title=title, title_justify="left")
    for name, (heading, _) in columns.items():
        is_text = any(isinstance(row[name], str) for row in rows)
        table.add_column(heading, justify="left" if is_text else "right", no_wrap=True)
    for row in rows:
        table.add_row(*("" if row[name] is None else format(row[name], kind) for name, (_, kind) in columns.items()))
    Console(width=120).print(table)


def _goals(goals: Sequence[Goal]) -> Table:
    table = Table(title="goals", title_justify="left")
    for name in ("goal", "target", "measured", "met"):
        table.add_column(name, justify="left" if name == "goal" else "right")
    for one in goals:
        sign = "≥" if one.at_least else "≤"
        table.add_row(one.goal, f"{sign} {one.target:g}", f"{one.measured:.3g}", "yes" if one.met else "[red]no[/red]")
    return table


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
