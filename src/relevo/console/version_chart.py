"""The chart of a number by version, such as the rows of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from relevo.console.drawing import INK, Spec, chart, config

WIDTH, HEIGHT = 1080, 190
SERIES, QUIET = "var(--chart-series)", "var(--chart-quiet)"
#: Bars that are wide enough to be read.
SHOWN = 60


@dataclass(frozen=True, slots=True)
class VersionBar:
    """A version with its number, and all of it in words. One bar is that of the version which the page is about."""

    label: str
    value: int
    text: str
    is_shown: bool


def version_chart(bars: Sequence[VersionBar], label: str) -> Markup:
    """A bar a version, the earliest first; at most the last ``SHOWN``."""
    return chart(version_spec(bars[-SHOWN:]), label, kind="wide")


def version_spec(bars: Sequence[VersionBar]) -> Spec:
    """The Vega-Lite specification of ``version_chart``."""
    rows = [{"label": bar.label, "value": bar.value, "text": bar.text, "is_shown": bar.is_shown} for bar in bars]
    x = {
        "field": "label",
        "type": "ordinal",
        "sort": None,
        "title": None,
        "axis": {"labelAngle": 0, "labelOverlap": "greedy"},
        "scale": {"paddingInner": 0.25, "paddingOuter": 0.15},
    }
    y = {"field": "value", "type": "quantitative", "title": None, "axis": {"tickCount": 4, "format": "~s"}}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": WIDTH,
        "height": HEIGHT,
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": {"left": 4, "right": 14, "top": 8, "bottom": 4},
        "background": "transparent",
        "data": {"values": rows},
        "encoding": {"x": x},
        "layer": [
            {
                "mark": {"type": "bar", "aria": False, "cornerRadiusEnd": 2, "width": {"band": 1}},
                "encoding": {
                    "y": y,
                    "color": {"condition": {"test": "datum.is_shown", "value": SERIES}, "value": QUIET},
                },
            },
            {
                "mark": {"type": "bar", "color": INK, "fillOpacity": 0, "strokeOpacity": 0, "width": {"band": 1}},
                "encoding": {"y": {"value": 0}, "y2": {"value": "height"}, "description": {"field": "text"}},
            },
        ],
        "config": config(),
    }
