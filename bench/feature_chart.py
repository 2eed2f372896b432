"""The picture of ``features.py``: a panel a question, a dot an engine. Stands alone as one SVG file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feature_figures import SHAPES, of_part
from report import Report

from relevo.console.drawing import config, svg
from relevo.console.figure import FIRST, GRID, INK, LIVE, MUTED, PAPER

WIDTH, LINE = 330, 26
OTHER = "#c2703d"  # Feast

Row = dict[str, Any]
Spec = dict[str, Any]


def draw(report: Report, path: Path) -> None:
    """Write the picture as SVG."""
    path.write_text(svg(_spec(report)))


def _spec(report: Report) -> Spec:
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
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "background": PAPER,
        "padding": 18,
        "title": {
            "text": "Features: joins, lookups, filling",
            "subtitle": ["Logarithmic axes. Green: Relevo; orange: Feast; grey: bare engines."],
            "fontSize": 17,
            "subtitleColor": MUTED,
            "subtitleFontSize": 12.5,
            "offset": 16,
        },
        "concat": panels,
        "columns": 2,
        "spacing": {"row": 34, "column": 60},
        "config": config(ink=INK, muted=MUTED, grid=GRID),
    }


def _panel(heading: str, unit: str, rows: Sequence[Row], figure: str, kind: str) -> Spec:
    values = [_dot(row, row[figure], kind) for row in rows]
    low, high = min(value["value"] for value in values) / 1.5, max(value["value"] for value in values) * 1.5
    y = {
        "field": "engine",
        "type": "nominal",
        "title": None,
        "sort": None,
        "axis": {"labelLimit": 220, "labelColor": INK, "domain": False, "grid": True},
    }
    scale = {"type": "log", "domain": [low, high], "nice": False}
    x = {"field": "value", "type": "quantitative", "title": None, "scale": scale, "axis": None}
    return {
        "width": WIDTH,
        "height": LINE * len(values),
        "title": {
            "text": heading,
            "subtitle": unit,
            "subtitleColor": MUTED,
            "subtitleFontSize": 12,
            "offset": 8,
            "frame": "group",
        },
        "data": {"values": values},
        "encoding": {"y": y},
        "layer": [
            {
                "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
                "encoding": {
                    "x": x,
                    "color": {"field": "colour", "type": "nominal", "scale": None},
                    "description": {"field": "words"},
                },
            },
            {
                "mark": {"type": "text", "align": "left", "dx": 10, "aria": False},
                "encoding": {"x": x, "text": {"field": "shown"}},
            },
        ],
    }


def _dot(row: Row, value: float, kind: str) -> Row:
    engine = row["engine"]
    shown = format(value, kind)
    if row.get("stopped"):
        shown = f"{row['stopped']} after {value:,.0f} s"
    colour = LIVE if "Relevo" in engine else OTHER if "Feast" in engine else FIRST
    return {"engine": engine, "value": value, "shown": shown, "colour": colour, "words": f"{engine}: {shown}"}
