"""The fleet: each model in one line, for the first page, ``relevo status`` and the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from relevo.app.services import Services
from relevo.contract.model import Contract
from relevo.monitoring.model import Severity, Window, WindowState
from relevo.monitoring.policy import primary_metric
from relevo.serving.model import Route


@dataclass(frozen=True, slots=True)
class FleetLine:
    """A model at a glance. Words are for people; ``None`` where there is nothing to say yet."""

    model: str
    owner: str
    task: str
    revision: int
    champion: int | None
    live: str | None  # "v3" or "v3 95 %, v4 5 %"
    health: Literal["healthy", "warning", "critical", "not live"]
    predictions: int
    drift: str | None
    metric: str
    performance: str | None
    alerts: int
    activity: str | None


def fleet(services: Services) -> list[FleetLine]:
    """One line a model, by name."""
    return [fleet_line(services, model) for model in services.contracts.models()]


def fleet_line(services: Services, model: str) -> FleetLine:
    """The line of one model."""
    applied = services.contracts.current(model)
    route = services.serving.current_route(model)
    windows = services.monitoring.windows(model, 3) if route is not None else []
    alerts = services.monitoring.alerts(open_only=True, endpoint=model)
    activities = [activity.text for activity in services.workflows.activities.of(model) if activity.text]
    final = next((window for window in reversed(windows) if window.state is WindowState.FINAL), None)
    return FleetLine(
        model=model,
        owner=applied.contract.owner,
        task=applied.contract.task,
        revision=applied.revision,
        champion=None if route is None else route.champion,
        live=shares(route),
        health=health(route, [alert.severity for alert in alerts]),
        predictions=services.log.counts(model)["predictions_logged"],
        drift=f"{windows[-1].drift_share:.0%}" if windows else None,
        metric=primary_metric(applied.contract),
        performance=_performance(applied.contract, final),
        alerts=len(alerts),
        activity="; ".join(activities) or None,
    )


def shares(route: Route | None) -> str | None:
    """Which versions answer, each with its share when there are several; None before the first route."""
    if route is None:
        return None
    if len(route.arms) > 1:
        return ", ".join(f"v{arm.version} {arm.percent:g} %" for arm in route.arms)
    return f"v{route.champion}" + ("" if route.shadow is None else f", shadow v{route.shadow.version}")


def health(route: Route | None, severities: list[Severity]) -> Literal["healthy", "warning", "critical", "not live"]:
    """How an endpoint is, by the severities of its open alerts."""
    if route is None:
        return "not live"
    if Severity.CRITICAL in severities:
        return "critical"
    return "warning" if severities else "healthy"


def _performance(contract: Contract, window: Window | None) -> str | None:
    name = primary_metric(contract)
    estimate = None if window is None else window.metrics.get(name)
    if estimate is None or estimate.value is None:
        return None
    return f"{name} {estimate.value:.3f}"
