"""The figures of ``features.py`` on the terminal, and in ``docs/benchmarks/features.md`` between its marks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feature_chart import draw
from feature_figures import SHAPES, of_part
from report import Goal, Report, show

DOCS = Path(__file__).parents[1] / "docs" / "benchmarks"
PAGE, PICTURE = DOCS / "features.md", DOCS / "features.svg"

Row = dict[str, Any]
#: Of each figure its heading and its format.
Columns = dict[str, tuple[str, str]]

JOINS: Columns = {
    "engine": ("engine", ""),
    "seconds": ("seconds", ",.3f"),
    "seconds_of_limit": ("times the limit", ",.2f"),
    "peak_mb": ("peak MB", ",.0f"),
    "peak_mb_of_limit": ("times the limit", ",.2f"),
    "before_mb": ("of it before, MB", ",.0f"),
    "rounds": ("rounds", "d"),
    "stopped": ("stopped", ""),
}
TRAINING: Columns = {
    "engine": ("step", ""),
    "seconds": ("seconds", ",.2f"),
    "rows": ("rows", ",.0f"),
    "peak_mb": ("peak MB", ",.0f"),
}
LOOKUPS: Columns = {
    "entities": ("entities", "d"),
    "engine": ("store", ""),
    "p50_us": ("p50 µs", ",.1f"),
    "p99_us": ("p99 µs", ",.1f"),
    "of_limit": ("times the limit", ",.2f"),
    "limit": ("limit", ""),
}
MATERIALISING: Columns = {
    "engine": ("store", ""),
    "seconds": ("seconds", ",.2f"),
    "rows": ("rows read", ",.0f"),
    "rows_a_second": ("rows a second", ",.0f"),
    "of_feast": ("times Feast", ",.1f"),
}


def show_all(report: Report) -> None:
    """Print every table but the goals."""
    for title, part, columns in _tables():
        show(title, of_part(report, part), columns)


def write_page(report: Report) -> None:
    """Put the tables of this run between the marks of the page, and draw the picture beside it."""
    blocks = {
        part.replace(", ", "-").replace(" ", "-"): _markdown(of_part(report, part), columns)
        for _, part, columns in _tables()
    }
    blocks["goals"] = _goals(report.goals)
    text = PAGE.read_text()
    for name, block in blocks.items():
        mark = re.compile(rf"(<!-- figures: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not mark.search(text):
            raise ValueError(f"{PAGE} has no place for the figures {name!r}")
        text = mark.sub(lambda found, block=block: f"{found[1]}{block}\n{found[2]}", text)  # type: ignore[misc]
    PAGE.write_text(text)
    draw(report, PICTURE)
    print(f"written to {PAGE.relative_to(DOCS.parents[1])} and {PICTURE.relative_to(DOCS.parents[1])}")


def _tables() -> list[tuple[str, str, Columns]]:
    return [
        ("flights, joined; the limit is bare Polars", "flights", JOINS),
        ("large tables, joined; the limit is Polars that gives the same rows", "large", JOINS),
        ("the whole way of a training set", "training set", TRAINING),
        ("lookups of three views", "lookup", LOOKUPS),
        *((f"filling, {shape}", f"materialise, {shape}", MATERIALISING) for shape in SHAPES),
    ]


def _markdown(rows: Sequence[Row], columns: Columns) -> str:
    shown = {name: head for name, head in columns.items() if any(row[name] is not None for row in rows)}
    lines = ["| " + " | ".join(heading for heading, _ in shown.values()) + " |"]
    lines.append("| " + " | ".join("---" if _is_text(rows, name) else "---:" for name in shown) + " |")
    for row in rows:
        cells = ("" if row[name] is None else format(row[name], kind) for name, (_, kind) in shown.items())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _is_text(rows: Sequence[Row], name: str) -> bool:
    return any(isinstance(row[name], str) for row in rows)


def _goals(goals: Sequence[Goal]) -> str:
    lines = ["| goal | target | measured | met |", "| --- | ---: | ---: | --- |"]
    lines += [
        f"| {one.goal} | {'at least' if one.at_least else 'at most'} {one.target:g} | {one.measured:.3g} "
        f"| {'yes' if one.met else 'no'} |"
        for one in goals
    ]
    return "\n".join(lines)
