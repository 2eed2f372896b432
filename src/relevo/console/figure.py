"""The picture of a replay: by month, what was live beside the first model left alone. Stands alone as one SVG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from relevo.console.drawing import Spec, config, svg

LIVE, FIRST, INK, MUTED, GRID, PAPER = "#0a7a70", "#8b93a1", "#1b2226", "#5b666d", "#e6e8e8", "#ffffff"
WIDTH, HEIGHT = 430, 300

#: Field of what was live, of the first model, the panel's heading, and which way is better.
PANELS = (
    ("auc_live", "auc_first_model", "AUC", "higher is better"),
    ("log_loss_live", "log_loss_first_model", "Log loss", "lower is better"),
)


def figure_months(months: Sequence[Mapping[str, Any]]) -> str:
    """The picture as SVG text.

    Args:
        months: As the demo reports them: ``month`` (``2013-04``), ``auc_live``, ``auc_first_model``,
            ``log_loss_live``, ``log_loss_first_model`` (numbers or None), ``drift``, and ``events``, such as
            ``["v3 live", "v4 rejected"]``.
    """
    return svg(months_spec(months))


def months_spec(months: Sequence[Mapping[str, Any]]) -> Spec:
    """The Vega-Lite specification of ``figure_months``."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "background": PAPER,
        "padding": {"left": 48, "right": 96, "top": 18, "bottom": 34},
        "title": {
            "text": "What was live, beside the first model left alone",
            "subtitle": [_subtitle(months), "Filled points: a new version went live in that month."],
            "fontSize": 17,
            "subtitleColor": MUTED,
            "subtitleFontSize": 12.5,
            "subtitlePadding": 7,
            "offset": 18,
        },
        "hconcat": [_panel(months, *panel) for panel in PANELS],
        "spacing": 130,
        "bounds": "flush",
        "config": config(ink=INK, muted=MUTED, grid=GRID),
    }


def _panel(months: Sequence[Mapping[str, Any]], live: str, first: str, heading: str, better: str) -> Spec:
    rows = [_row(month, live, first) for month in months]
    ends = rows[-1:]
    y = {
        "type": "quantitative",
        "title": None,
        "scale": {"zero": False, "nice": False, "padding": 18},
        "axis": {"format": ".3f", "tickCount": 5},
    }
    line = {"type": "line", "strokeWidth": 2.5, "aria": False}
    text = {"type": "text", "align": "left", "dx": 11, "fontWeight": "bold", "aria": False}
    apart = _apart(rows)
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "title": {"text": heading, "subtitle": better, "subtitleColor": MUTED, "subtitleFontSize": 12, "offset": 14},
        "data": {"values": rows},
        "encoding": {
            "x": {
                "field": "month",
                "type": "ordinal",
                "title": None,
                "sort": None,
                "axis": {"labelAngle": 0, "labelExpr": "slice(datum.label, 0, 3)"},
                "scale": {"padding": 0.4},
            }
        },
        "layer": [
            {"mark": {**line, "color": FIRST, "strokeDash": [5, 4]}, "encoding": {"y": {**y, "field": "first"}}},
            {"mark": {**line, "color": LIVE}, "encoding": {"y": {**y, "field": "live"}}},
            {
                "mark": {"type": "point", "filled": True, "color": FIRST, "size": 38, "opacity": 1},
                "encoding": {"y": {**y, "field": "first"}, "description": {"field": "first_text"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 84, "opacity": 1, "strokeWidth": 2, "stroke": LIVE},
                "encoding": {
                    "y": {**y, "field": "live"},
                    "fill": {"condition": {"test": "datum.is_promoted", "value": LIVE}, "value": PAPER},
                    "description": {"field": "live_text"},
                },
            },
            {
                "data": {"values": ends},
                "mark": {**text, "color": LIVE, "dy": -apart},
                "encoding": {"y": {**y, "field": "live"}, "text": {"value": "live"}},
            },
            {
                "data": {"values": ends},
                "mark": {**text, "color": FIRST, "dy": apart},
                "encoding": {"y": {**y, "field": "first"}, "text": {"value": "first model"}},
            },
        ],
    }


def _row(month: Mapping[str, Any], live: str, first: str) -> Spec:
    name, events = _month(month["month"]), [str(event) for event in month.get("events", [])]
    after = f"; {', '.join(events)}" if events else ""
    return {
        "month": name,
        "live": month[live],
        "first": month[first],
        "is_promoted": any(event.endswith(" live") for event in events),
        "live_text": f"{name}: live {_number(month[live])}{after}",
        "first_text": f"{name}: first model {_number(month[first])}",
    }


def _apart(rows: Sequence[Spec]) -> int:
    """How far up the label of what was live goes, and the other one down, so that they do not meet; in pixels."""
    values = [row[name] for row in rows for name in ("live", "first") if row[name] is not None]
    if not rows or rows[-1]["live"] is None or rows[-1]["first"] is None:
        return 0
    difference = rows[-1]["live"] - rows[-1]["first"]
    is_close = abs(difference) < 0.07 * (max(values) - min(values))
    return (9 if difference >= 0 else -9) if is_close else 0


def _subtitle(months: Sequence[Mapping[str, Any]]) -> str:
    pairs = [(month["auc_live"], month["auc_first_model"]) for month in months]
    gains = [live - first for live, first in pairs if live is not None and first is not None]
    if not gains:
        return "No month has both."
    losses = [
        month["log_loss_live"] - month["log_loss_first_model"]
        for month in months
        if month["log_loss_live"] is not None and month["log_loss_first_model"] is not None
    ]
    loss = f", {sum(losses) / len(losses):+.4f} log loss".replace("-", "−") if losses else ""
    return f"{sum(gains) / len(gains):+.4f} AUC{loss} a month on average".replace("-", "−")


def _month(name: str) -> str:
    year, month = name.split("-")[:2]
    names = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    return f"{names[int(month) - 1]} {year}"


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.4f}"
