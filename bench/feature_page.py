"""The figures of ``features.py`` on the terminal, and in ``docs/benchmarks/features.md`` between its marks."""

from __future__ import annotations

from feature_chart import draw
from feature_figures import SHAPES, of_part
from page import DOCS, Columns, fill, goals_table, markdown
from report import Report, show

PAGE, PICTURE = DOCS / "features.md", DOCS / "features.svg"

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
        part.replace(", ", "-").replace(" ", "-"): markdown(of_part(report, part), columns)
        for _, part, columns in _tables()
    }
    fill(PAGE, blocks | {"goals": goals_table(report.goals)})
    draw(report, PICTURE)


def _tables() -> list[tuple[str, str, Columns]]:
    return [
        ("flights, joined; the limit is bare Polars", "flights", JOINS),
        ("large tables, joined; the limit is Polars that gives the same rows", "large", JOINS),
        ("the whole way of a training set", "training set", TRAINING),
        ("lookups of three views", "lookup", LOOKUPS),
        *((f"filling, {shape}", f"materialise, {shape}", MATERIALISING) for shape in SHAPES),
    ]
