"""Console pages of windows and alerts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from relevo.console import charts
from relevo.console.charts import Cell, Mark, Point
from relevo.console.layout import Crumb, model_page, page, redirect
from relevo.console.wording import count, number, percent
from relevo.contract.model import Contract
from relevo.errors import Invalid
from relevo.identity.api import requires
from relevo.identity.model import Permission, Principal
from relevo.monitoring import policy
from relevo.monitoring.model import Estimate, FeatureDrift, Window, WindowState
from relevo.monitoring.service import Monitoring
from relevo.serving.model import Route

router = APIRouter(tags=["console"], include_in_schema=False)
Reader = Annotated[Principal, Depends(requires(Permission.READ))]
Operator = Annotated[Principal, Depends(requires(Permission.OPERATE))]

#: Windows on the charts and in the table: a year of weeks.
SHOWN = 53
#: Inputs on the map of drift, those that moved most.
MAPPED = 14


@router.get("/models/{model}/windows")
def show_windows(request: Request, model: str, _: Reader) -> HTMLResponse:
    """How a model did, window by window."""
    monitoring, contract = _monitoring(request), request.app.state.services.contracts.current(model).contract
    windows = monitoring.windows(model, SHOWN)
    drawn: dict[str, Markup] = {}
    if windows:
        drawn = {
            "performance": performance(contract, windows, request.app.state.services.serving.routes(model)),
            "drift": charts.drift_chart([_point(one, one.drift_share, _drift_text(one)) for one in windows]),
            "coverage": charts.coverage_chart(
                [_point(one, one.label_coverage, _coverage_text(one)) for one in windows], policy.MIN_COVERAGE
            ),
            "volume": charts.volume_chart([_point(one, one.predictions, _volume_text(one)) for one in windows]),
        }
        if any(one.label_mean is not None for one in windows) and contract.task.value == "classification":
            labels = [_point(one, one.label_mean, _label_text(one)) for one in windows]
            drawn["labels"] = charts.label_chart(labels)
        if cells := _cells(windows):
            drawn["map"] = charts.drift_map(cells)
    return model_page(
        request,
        "windows.html",
        model=model,
        tab="Windows",
        windows=windows[::-1],
        charts=drawn,
        metric=policy.primary_metric(contract),
        length=contract.monitor.window,
        wait=policy.label_wait(contract),
    )


@router.get("/models/{model}/windows/{end}")
def show_window(request: Request, model: str, end: datetime, _: Reader) -> HTMLResponse:
    """One window: performance overall, by version and by slice, drift of each input, findings."""
    if end.tzinfo is None:
        raise Invalid("The end of a window needs an offset, such as Z.", field="end")
    monitoring, contract = _monitoring(request), request.app.state.services.contracts.current(model).contract
    window = monitoring.window(model, end)
    drift = sorted(window.drift, key=lambda column: (not column.is_drifted, -(column.psi or 0.0)))
    others = monitoring.windows(model, SHOWN)
    place = next((i for i, one in enumerate(others) if one.end == window.end), None)
    return model_page(
        request,
        "window.html",
        model=model,
        tab="Windows",
        crumbs=[Crumb(f"{window.start:%-d %b} to {window.end:%-d %b %Y}")],
        window=window,
        metric=policy.primary_metric(contract),
        drift=drift,
        least_psi=policy.MIN_PSI,
        fewest_rows=policy.MIN_ROWS,
        fewest_labelled=policy.MIN_COVERAGE,
        slices=_slices(window, policy.primary_metric(contract)),
        revisions=monitoring.revisions(model, end),
        before=others[place - 1] if place else None,
        after=others[place + 1] if place is not None and place + 1 < len(others) else None,
    )


@router.get("/alerts")
def show_alerts(
    request: Request, principal: Reader, model: Annotated[str | None, Query(max_length=128)] = None
) -> HTMLResponse:
    """What a person should look at, and what was looked at before."""
    alerts = _monitoring(request).alerts(endpoint=model or None)
    return page(
        request,
        "alerts.html",
        title="Alerts",
        crumbs=[Crumb("Fleet", "/"), Crumb("Alerts")],
        open=[alert for alert in alerts if alert.resolved_at is None],
        past=[alert for alert in alerts if alert.resolved_at is not None],
        model=model or None,
        may_resolve=principal.may(Permission.OPERATE),
    )


@router.post("/alerts/{alert_id}/resolve")
def resolve(
    request: Request, alert_id: int, actor: Operator, reason: Annotated[str, Form(min_length=1, max_length=2000)]
) -> Response:
    """Close an alert by hand."""
    with request.app.state.services.state.transaction() as tx:
        _monitoring(request).resolve_alert(tx, alert_id, actor, reason)
    return redirect("/alerts", "resolved")


def performance(contract: Contract, windows: Sequence[Window], routes: Sequence[Route]) -> Markup:
    """The primary metric by window, with the changes of the champion."""
    shown = [one for one in windows if one.predictions]
    marks = champion_changes(routes, shown[0].start, shown[-1].end) if shown else []
    return charts.performance_chart(metric_points(contract, shown), policy.primary_metric(contract), marks)


def metric_points(contract: Contract, windows: Sequence[Window]) -> list[Point]:
    """The primary metric of each window with its interval, and the holdout's beside it."""
    metric = policy.primary_metric(contract)
    points = []
    for one in windows:
        estimate = one.metrics.get(metric, Estimate(None, None, None, 0))
        points.append(
            Point(
                one.start,
                one.end,
                estimate.value,
                _performance_text(one, metric, estimate),
                low=estimate.low,
                high=estimate.high,
                reference=one.reference.get(metric),
                is_final=one.state is WindowState.FINAL,
            )
        )
    return points


def champion_changes(routes: Sequence[Route], start: datetime, end: datetime) -> list[Mark]:
    """When another version got all of the traffic, inside a period of event time."""
    marks: list[Mark] = []
    champion = None
    for route in routes:
        if len(route.arms) == 1 and route.champion != champion:
            champion = route.champion
            if start <= route.effective_event_at <= end:
                marks.append(Mark(route.effective_event_at, f"v{champion}"))
    return marks


def _point(window: Window, value: float | None, text: str) -> Point:
    is_final = window.state is WindowState.FINAL
    return Point(window.start, window.end, value, f"{_span(window)}: {text}", is_final=is_final)


def _span(window: Window) -> str:
    state = "" if window.state is WindowState.FINAL else ", provisional"
    return f"{window.start:%-d %b} to {window.end:%-d %b %Y}{state}"


def _performance_text(window: Window, metric: str, estimate: Estimate) -> str:
    if estimate.value is None:
        return f"{_span(window)}: {metric} not known"
    between = "" if estimate.low is None else f" ({number(estimate.low, 3)} to {number(estimate.high, 3)})"
    holdout = f", {number(window.reference[metric], 3)} on its holdout" if metric in window.reference else ""
    version = f", v{window.version}" if window.version else ""
    value = f"{metric} {number(estimate.value, 3)}{between}{holdout}"
    return f"{_span(window)}: {value}{version}, {count(estimate.n)} labelled"


def _drift_text(window: Window) -> str:
    drifted = [column.column for column in window.drift if column.is_drifted]
    return f"{percent(window.drift_share)} of the inputs drifted" + (f": {', '.join(drifted[:6])}" if drifted else "")


def _coverage_text(window: Window) -> str:
    return (
        f"{percent(window.label_coverage, 1)} of the outcomes are known, {count(window.labels)} labels, "
        f"{count(window.no_outcome)} without outcome"
    )


def _volume_text(window: Window) -> str:
    sample = "" if window.sampled_share >= 1 else f" ({percent(window.sampled_share)} of {count(window.answered)})"
    return f"{count(window.predictions)} predictions{sample}, {count(window.failed)} failed"


def _label_text(window: Window) -> str:
    return f"{percent(window.label_mean, 1)} of the outcomes are positive"


def _cells(windows: Sequence[Window]) -> list[Cell]:
    """The inputs that moved most in any window, in every window."""
    largest: dict[str, float] = {}
    for window in windows:
        for column in window.drift:
            largest[column.column] = max(largest.get(column.column, 0.0), column.psi or 0.0)
    names = sorted(largest, key=lambda name: -largest[name])[:MAPPED]
    cells: list[Cell] = []
    for name in names:
        for window in windows:
            cells.extend(_cell(window, column) for column in window.drift if column.column == name)
    return cells


def _cell(window: Window, column: FeatureDrift) -> Cell:
    said = "drifted" if column.is_drifted else "no drift"
    text = f"{column.column}, {_span(window)}: PSI {number(column.psi, 3)}, {said}"
    return Cell(window.start, window.end, column.column, column.psi, column.is_drifted, text)


def _slices(window: Window, metric: str) -> list[tuple[str, str, Estimate]]:
    """Column, value and the primary metric of each slice that has one, the largest of each column first."""
    rows = []
    for name, metrics in window.slices.items():
        column, _, value = name.partition("=")
        if metric in metrics:
            rows.append((column, value, metrics[metric]))
    return sorted(rows, key=lambda row: (row[0], -row[2].n))


def _monitoring(request: Request) -> Monitoring:
    monitoring: Monitoring = request.app.state.services.monitoring
    return monitoring
