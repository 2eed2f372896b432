"""Console page of a model's versions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from relevo.console.layout import model_page
from relevo.contract.model import Task
from relevo.identity.api import requires
from relevo.identity.model import Permission, Principal
from relevo.registry.model import ModelVersion
from relevo.registry.service import Registry
from relevo.statistics.metrics import METRICS

router = APIRouter(tags=["console"], include_in_schema=False)


@router.get("/models/{model}/versions")
def show_versions(
    request: Request, model: str, _: Annotated[Principal, Depends(requires(Permission.READ))]
) -> HTMLResponse:
    """Every version, the newest first, with its stage and what its holdout showed."""
    services = request.app.state.services
    registry: Registry = services.registry
    task: Task = services.contracts.current(model).contract.task
    versions = registry.versions(model)
    metrics = {version.number: holdout_metrics(version) for version in versions}
    names = [name for name in METRICS[task] if any(name in measured for measured in metrics.values())]
    return model_page(
        request, "versions.html", model=model, tab="Versions", versions=versions, metrics=metrics, names=names
    )


def holdout_metrics(version: ModelVersion) -> dict[str, float]:
    """The metrics that are sealed with a version."""
    found = version.facts.get("metrics")
    return {str(name): float(value) for name, value in found.items()} if isinstance(found, dict) else {}
