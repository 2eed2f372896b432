"""The picture of ``serving.py``: a panel a model and a number of rows, a dot a server."""

from __future__ import annotations

from pathlib import Path

from chart import Row, dot, draw_panels, panel
from report import Report
from served_models import MODELS
from serving_figures import LIMIT, OURS, count, rows_of

from relevo.console.figure import FIRST, LIVE

OTHER = "#c2703d"  # the other servers of models
CALLERS = 16


def draw(report: Report, path: Path) -> None:
    """Write the picture as SVG."""
    cases = {
        (model, rows): rows_of(report, model, rows, CALLERS)
        for rows in dict.fromkeys(row["rows"] for row in report.summary)
        for model in MODELS
    }
    panels = [
        panel(f"{MODELS[model][0]}, {count(rows, 'row')}", "requests a second, more is better", list(map(_dot, lines)))
        for (model, rows), lines in cases.items()
        if lines
    ]
    draw_panels(
        path,
        f"Serving: {CALLERS} callers, one worker on one core",
        "Logarithmic axes. Green: Relevo; orange: other servers; grey: uvicorn that answers a constant.",
        panels,
    )


def _dot(row: Row) -> Row:
    server, rate = row["server"], row["requests_per_second"]
    colour = FIRST if server == LIMIT else LIVE if server.startswith(OURS.partition(",")[0]) else OTHER
    return dot(server, rate, f"{rate:,.0f}", colour)
