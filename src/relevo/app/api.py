"""HTTP routes that look across concepts: the fleet, activities, versions, data, the log's counts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from relevo.app.example import curl_line, example_row, gateway_address
from relevo.app.features import impact, view_lines
from relevo.app.fleet import fleet, fleet_line
from relevo.app.services import Services
from relevo.errors import NotFound
from relevo.identity.api import requires
from relevo.identity.model import Permission, Principal
from relevo.platform.encoding import to_json

router = APIRouter(tags=["models"])
Reader = Annotated[Principal, Depends(requires(Permission.READ))]


@router.get("/api/models")
def list_models(request: Request, _: Reader) -> list[dict[str, Any]]:
    """Every model at a glance."""
    return [to_json(line) for line in fleet(_services(request))]


@router.get("/api/models/{model}")
def show_model(request: Request, model: str, _: Reader) -> dict[str, Any]:
    """One model at a glance."""
    line: dict[str, Any] = to_json(fleet_line(_services(request), model))
    return line


@router.get("/api/models/{model}/example")
def show_example(request: Request, model: str, _: Reader) -> dict[str, Any]:
    """A row that the endpoint answers as it stands, and the line to paste into a shell."""
    services = _services(request)
    services.contracts.current(model)
    route = services.serving.current_route(model)
    if route is None:
        raise NotFound(f"{model} is not live yet.", hint=f"See what it waits for: relevo status {model}")
    row = example_row(services.registry, services.log, model, route.champion)
    gateway = gateway_address(services.settings, request.url.hostname)
    return {"version": route.champion, "row": row, "curl": curl_line(gateway, model, row)}


@router.get("/api/models/{model}/versions")
def list_versions(request: Request, model: str, _: Reader) -> list[dict[str, Any]]:
    """The versions of a model, the oldest first, with what each was made from."""
    services = _services(request)
    services.contracts.current(model)
    return [to_json(version) for version in services.registry.versions(model)]


@router.get("/api/models/{model}/datasets")
def list_datasets(request: Request, model: str, _: Reader) -> list[dict[str, Any]]:
    """The versions of a model's source tables."""
    return [to_json(version) for version in _services(request).datasets.versions(model)]


@router.get("/api/features")
def list_features(request: Request, _: Reader) -> list[dict[str, Any]]:
    """The feature views of every model."""
    services = _services(request)
    return [to_json(line) for model in services.contracts.models() for line in view_lines(services, model)]


@router.get("/api/models/{model}/features")
def list_model_features(request: Request, model: str, _: Reader) -> list[dict[str, Any]]:
    """The feature views of one model: how far each is filled, and how fresh it is."""
    return [to_json(line) for line in view_lines(_services(request), model)]


@router.get("/api/features/{view}/impact")
def show_impact(request: Request, view: str, _: Reader) -> list[dict[str, Any]]:
    """Who uses a view, given as NAME or NAME:DEFINITION: contract revisions, model versions, shares of traffic."""
    return [to_json(use) for use in impact(_services(request), view)]


@router.get("/api/models/{model}/log")
def count_log(request: Request, model: str, _: Reader) -> dict[str, int]:
    """How many predictions and labels are in the log, after everything acknowledged so far was moved there."""
    services = _services(request)
    services.contracts.current(model)
    services.log.flush(30)
    return services.log.counts(model)


@router.get("/api/activity")
def list_activity(request: Request, _: Reader) -> list[dict[str, Any]]:
    """What every workflow that is not done does now, or what it waits for."""
    return [to_json(activity) for activity in _services(request).workflows.activities.open()]


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services
