"""Panels of dots on logarithmic axes, as the pictures of the benchmarks have them. Each picture is one SVG file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relevo.console.drawing import config, svg
from relevo.console.figure import GRID, INK, MUTED, PAPER

WIDTH, LINE = 330, 26

Row = dict[str, Any]
Spec = dict[str, Any]


def draw_panels(path: Path, title: str, subtitle: str, panels: Sequence[Spec]) -> None:
    """Write the panels, two a line, as SVG."""
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "background": PAPER,
        "padding": 18,
        "title": {
            "text": title,
            "subtitle": [subtitle],
            "fontSize": 17,
            "subtitleColor": MUTED,
            "subtitleFontSize": 12.5,
            "offset": 16,
        },
        "concat": list(panels),
        "columns": 2,
        "spacing": {"row": 34, "column": 60},
        "config": config(ink=INK, muted=MUTED, grid=GRID),
    }
    path.write_text(svg(spec))


def panel(heading: str, unit: str, values: Sequence[Row]) -> Spec:
    """A line and a dot for each of the values that `dot` makes."""
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


def dot(name: str, value: float, shown: str, colour: str) -> Row:
    """What a panel shows of one thing that was measured."""
    return {"engine": name, "value": value, "shown": shown, "colour": colour, "words": f"{name}: {shown}"}
