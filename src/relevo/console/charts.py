"""The console's charts, as Vega-Lite specifications.

They are written as plain JSON rather than with Altair, which gives the same JSON: importing it took 3.5 s here, and the
console answers within three. A test holds every specification to Altair's schema.

Colours are names of the stylesheet's custom properties, so one drawing serves light and dark. Each window has one
invisible mark as wide as itself, whose ``aria-label`` says all of its values: that is what hovering and the arrow keys
show. Everything else is hidden from assistive technology.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup

from relevo.console.drawing import INK, MUTED, Spec, chart, config
from relevo.console.figure import figure_months

__all__ = [
    "Cell", "Mark", "Point", "coverage_chart", "drift_chart", "drift_map", "figure_months", "label_chart",
    "performance_chart", "sparkline", "volume_chart",
]  # fmt: skip

WIDE, HALF = 1080, 520

SERIES, QUIET, WARN, BAD = (f"var(--chart-{name})" for name in ("series", "quiet", "warn", "bad"))
NONE = "transparent"


@dataclass(frozen=True, slots=True)
class Point:
    """One window of a chart: event time from ``start`` to ``end``, a value with its interval, and all of it in words.

    ``reference`` is what the value is compared with. A value is None where there is none.
    """

    start: datetime
    end: datetime
    value: float | None
    text: str
    low: float | None = None
    high: float | None = None
    reference: float | None = None
    is_final: bool = True
    is_raised: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment to mark on a chart, such as a change of the champion."""

    at: datetime
    text: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One window of one row of a map, with its value in words."""

    start: datetime
    end: datetime
    row: str
    value: float | None
    is_raised: bool
    text: str


def performance_chart(points: Sequence[Point], metric: str, marks: Sequence[Mark] = ()) -> Markup:
    """A metric by window with its 95% interval, the holdout's value, and the changes of the champion."""
    return chart(performance_spec(points, marks), f"{metric} by window, with its 95 % confidence interval", kind="wide")


def drift_chart(points: Sequence[Point]) -> Markup:
    """The share of the inputs that drifted, by window."""
    return chart(bar_spec(points, colour=WARN, is_share=True), "Share of the inputs that drifted, by window")


def coverage_chart(points: Sequence[Point], fewest: float) -> Markup:
    """The share of the predictions whose outcome is known, by window, and the share that a verdict needs."""
    spec = bar_spec(points, colour=SERIES, is_share=True, bound=fewest)
    return chart(spec, "Share of the predictions whose outcome is known, by window")


def volume_chart(points: Sequence[Point]) -> Markup:
    """Predictions by window."""
    return chart(bar_spec(points, colour=SERIES), "Predictions by window")


def label_chart(points: Sequence[Point]) -> Markup:
    """The share of the positive class among the labels, by window."""
    return chart(bar_spec(points, colour=QUIET, is_share=True, top=None), "Share of positive outcomes, by window")


def drift_map(cells: Sequence[Cell]) -> Markup:
    """Which input drifted when: a row an input, a column a window, the stronger the larger its PSI."""
    return chart(map_spec(cells), "Population stability index of each input, by window", kind="wide")


def sparkline(points: Sequence[Point], label: str) -> Markup:
    """A tiny line without axes, its last value marked."""
    return chart(sparkline_spec(points), label, kind="spark")


# -- specifications ---------------------------------------------------------------------------------------------


def performance_spec(points: Sequence[Point], marks: Sequence[Mark]) -> Spec:
    """The specification of ``performance_chart``."""
    value = {"field": "value", "type": "quantitative", "title": None, "scale": {"zero": False, "padding": 12}}
    layers: list[Spec] = [
        {
            "mark": {"type": "area", "color": SERIES, "opacity": 0.16, "aria": False},
            "encoding": {"y": {**value, "field": "low"}, "y2": {"field": "high"}},
        },
        {
            "mark": {"type": "rule", "color": SERIES, "opacity": 0.45, "aria": False},
            "encoding": {"y": {**value, "field": "low"}, "y2": {"field": "high"}},
        },
        {
            "mark": {
                "type": "line", "color": MUTED, "strokeDash": [2, 3], "strokeWidth": 1.25, "aria": False,
                "interpolate": "step",
            },
            "encoding": {"y": {**value, "field": "reference"}},
        },
        {
            "mark": {"type": "line", "color": SERIES, "strokeWidth": 2.25, "aria": False},
            "encoding": {"y": value},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 46, "opacity": 1, "aria": False, "strokeWidth": 2},
            "encoding": {
                "y": value,
                "stroke": {"value": SERIES},
                "fill": {"condition": {"test": "datum.is_final", "value": SERIES}, "value": "var(--surface)"},
            },
        },
        *_marked(marks),
        _hover(),
    ]  # fmt: skip
    return _chart(points, layers, width=WIDE, height=300, top=26)


def bar_spec(
    points: Sequence[Point],
    *,
    colour: str,
    is_share: bool = False,
    bound: float | None = None,
    top: float | None = 1.0,
) -> Spec:
    """Bars by window, hatched lighter while they are provisional; with ``bound`` a dashed line at that value."""
    value: Spec = {"field": "value", "type": "quantitative", "title": None, "axis": {"tickCount": 4}}
    if is_share:
        value["axis"]["format"] = ".0%"
        value["scale"] = {"domain": [0, top]} if top is not None else {"domainMin": 0}
    # A rectangle, since a bar with two ends in time would lie on its side.
    bar: Spec = {"type": "rect", "aria": False, "x2Offset": -1, "xOffset": 1}
    layers: list[Spec] = [
        {
            "mark": bar,
            "encoding": {
                "x": _x("start"),
                "x2": {"field": "end"},
                "y": value,
                "y2": {"datum": 0},
                "color": {"condition": {"test": "datum.is_raised", "value": BAD}, "value": colour},
                "opacity": {"condition": {"test": "datum.is_final", "value": 0.85}, "value": 0.4},
            },
        }
    ]
    if bound is not None:
        layers.append(
            {
                "mark": {"type": "rule", "color": MUTED, "strokeDash": [2, 3], "aria": False},
                "encoding": {"y": {"datum": bound}, "x": {"value": 0}, "x2": {"value": "width"}},
            }
        )
    return _chart(points, [*layers, _hover()], width=HALF, height=190)


def map_spec(cells: Sequence[Cell]) -> Spec:
    """The specification of ``drift_map``: opacity grows with the PSI, up to 0.5; what drifted has a border."""
    rows = [
        {
            "start": _iso(cell.start),
            "end": _iso(cell.end),
            "row": cell.row,
            "value": cell.value or 0.0,
            "is_raised": cell.is_raised,
            "text": cell.text,
        }
        for cell in cells
    ]
    names = list(dict.fromkeys(cell.row for cell in cells))
    height = 24 * len(names) + 40
    return _frame(
        {
            "data": {"values": rows},
            "mark": {"type": "rect", "color": WARN, "cornerRadius": 2, "x2Offset": -1, "xOffset": 1},
            "encoding": {
                "x": _x("start"),
                "x2": {"field": "end"},
                "y": {
                    "field": "row",
                    "type": "nominal",
                    "sort": names,
                    "title": None,
                    "scale": {"paddingInner": 0.12, "paddingOuter": 0.1},
                    "axis": {"labelLimit": 220, "grid": False},
                },
                "fillOpacity": {
                    "field": "value",
                    "type": "quantitative",
                    "legend": None,
                    "scale": {"domain": [0, 0.5], "range": [0.06, 1], "clamp": True},
                },
                "stroke": {"condition": {"test": "datum.is_raised", "value": INK}, "value": NONE},
                "description": {"field": "text"},
            },
        },
        width=WIDE,
        height=height,
        padding={"left": 34, "right": 14, "top": 4, "bottom": 4},  # names are wider in some fonts than measured
    )


def sparkline_spec(points: Sequence[Point]) -> Spec:
    """The specification of ``sparkline``."""
    value = {"field": "value", "type": "quantitative", "axis": None, "scale": {"zero": False, "padding": 4}}
    x = {"field": "end", "type": "temporal", "axis": None, "scale": {"type": "utc", "padding": 4}}
    known = [place for place, point in enumerate(points) if point.value is not None]
    rows = [{**row, "is_last": place in known[-1:]} for place, row in enumerate(_rows(points))]
    return _frame(
        {
            "data": {"values": rows},
            "encoding": {"x": x, "y": value},
            "layer": [
                {
                    "mark": {
                        "type": "line", "color": SERIES, "strokeWidth": 1.75, "aria": False,
                    }
                },
                {
                    "mark": {"type": "point", "filled": True, "color": SERIES, "size": 34, "opacity": 1},
                    "transform": [{"filter": "datum.is_last"}],
                    "encoding": {"description": {"field": "text"}},
                },
            ],
        },
        width=132,
        height=34,
        padding=2,
    )  # fmt: skip


def _chart(points: Sequence[Point], layers: Sequence[Spec], *, width: int, height: int, top: int = 8) -> Spec:
    body: Spec = {"data": {"values": _rows(points)}, "encoding": {"x": _x("middle")}, "layer": list(layers)}
    return _frame(body, width=width, height=height, padding={"left": 4, "right": 14, "top": top, "bottom": 4})


def _frame(body: Spec, *, width: int, height: int, padding: object = 6) -> Spec:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": width,
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": padding,
        "background": NONE,
        **body,
        "config": config(),
    }


def _x(field: str) -> Spec:
    return {
        "field": field,
        "type": "temporal",
        "title": None,
        "scale": {"type": "utc", "nice": False},
        "axis": {"format": "%-d %b", "tickCount": 10},
    }


def _hover() -> Spec:
    """The mark of a window that says all of its values, as high as the chart and invisible until it is pointed at."""
    return {
        "mark": {"type": "rect", "color": INK, "fillOpacity": 0, "strokeOpacity": 0},
        "encoding": {"x": _x("start"), "x2": {"field": "end"}, "description": {"field": "text"}},
    }


def _marked(marks: Sequence[Mark]) -> list[Spec]:
    if not marks:
        return []
    data = {"values": [{"at": _iso(mark.at), "label": mark.text} for mark in marks]}
    x = {**_x("at")}
    return [
        {
            "data": data,
            "mark": {"type": "rule", "color": INK, "strokeDash": [1, 3], "opacity": 0.7, "aria": False},
            "encoding": {"x": x},
        },
        {
            "data": data,
            "mark": {
                "type": "text", "align": "center", "baseline": "bottom", "color": INK, "fontSize": 12, "dy": -4,
                "fontWeight": "bold", "aria": False,
            },
            "encoding": {"x": x, "y": {"value": 0}, "text": {"field": "label"}},
        },
    ]  # fmt: skip


def _rows(points: Sequence[Point]) -> list[Spec]:
    return [
        {
            "start": _iso(point.start),
            "end": _iso(point.end),
            "middle": _iso(point.start + (point.end - point.start) / 2),
            "value": point.value,
            "low": point.low,
            "high": point.high,
            "reference": point.reference,
            "is_final": point.is_final,
            "is_raised": point.is_raised,
            "text": point.text,
        }
        for point in points
    ]


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")
