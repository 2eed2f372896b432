"""The picture of ``features.py``: a panel a question, a dot an engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chart import Row, Spec, dot, draw_panels, panel
from feature_figures import SHAPES, of_part
from report import Report

from relevo.console.figure import FIRST, LIVE

OTHER = "#c2703d"  # Feast


def draw(report: Report, path: Path) -> None:
    """Write the picture as SVG."""
    lookups = of_part(report, "lookup")
    panels = [
        _panel("Join of the flights", "seconds, less is better", of_part(report, "flights"), "seconds", ",.2f"),
        _panel("Join of large tables", "seconds, less is better", of_part(report, "large"), "seconds", ",.1f"),
        *(
            _panel(
                f"Lookup of {entities} {'entity' if entities == 1 else 'entities'}",
                "microseconds (median), less is better",
                [row for row in lookups if row["entities"] == entities],
                "p50_us",
                ",.0f",
            )
            for entities in dict.fromkeys(row["entities"] for row in lookups)
        ),
        *(
            _panel(
                f"Filling, {shape}",
                "rows a second, more is better",
                of_part(report, f"materialise, {shape}"),
                "rows_a_second",
                ",.0f",
            )
            for shape in SHAPES
        ),
    ]
    draw_panels(
        path,
        "Features: joins, lookups, filling",
        "Logarithmic axes. Green: Relevo; orange: Feast; grey: bare engines.",
        panels,
    )


def _panel(heading: str, unit: str, rows: Sequence[Row], figure: str, kind: str) -> Spec:
    return panel(heading, unit, [_dot(row, row[figure], kind) for row in rows])


def _dot(row: Row, value: float, kind: str) -> Row:
    engine = row["engine"]
    shown = format(value, kind)
    if row.get("stopped"):
        shown = f"{row['stopped']} after {value:,.0f} s"
    colour = LIVE if "Relevo" in engine else OTHER if "Feast" in engine else FIRST
    return dot(engine, value, shown, colour)
