"""HTTP routes of datasets: what there is, one version, its history, two versions beside each other, a profile."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse

from relevo.datasets.exploration import Exploration
from relevo.datasets.overview import DatasetOverview, require_rows
from relevo.identity.api import requires
from relevo.identity.model import Permission, Principal
from relevo.platform.encoding import to_json

router = APIRouter(tags=["datasets"])
Reader = Annotated[Principal, Depends(requires(Permission.READ))]
Number = Annotated[int | None, Query(ge=0, le=2**31 - 1)]

#: A profile carries skrub's scripts: it runs them in an origin of its own, and reaches nothing.
SANDBOX = {
    "Content-Security-Policy": (
        "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src data:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    # A sandboxed page may not ask for a window group of its own; browsers refuse to show it.
    "Cross-Origin-Opener-Policy": "unsafe-none",
    "Cache-Control": "no-store",
}


@router.get("/api/datasets")
def list_datasets(request: Request, _: Reader, model: str | None = None) -> dict[str, Any]:
    """Every dataset at a glance, or those of one model."""
    return {"datasets": to_json(overview_of(request).lines(model))}


@router.get("/api/datasets/{model}/{source}")
def show_dataset(request: Request, model: str, source: str, _: Reader, version: Number = None) -> dict[str, Any]:
    """One version in full, by default the newest."""
    overview = overview_of(request)
    found = overview.version(model, source, version)
    references = request.app.state.services.dataset_references(found)
    view: dict[str, Any] = to_json(overview.view(found, references))
    return view


@router.get("/api/datasets/{model}/{source}/history")
def list_history(request: Request, model: str, source: str, _: Reader) -> dict[str, Any]:
    """Every version, the newest first."""
    return {"versions": to_json(overview_of(request).history(model, source))}


@router.get("/api/datasets/{model}/{source}/diff")
def compare_versions(
    request: Request, model: str, source: str, _: Reader, before: Number = None, after: Number = None
) -> dict[str, Any]:
    """Two versions beside each other, by default the newest two. The first time it is computed in a child process."""
    overview = overview_of(request)
    earlier, later = overview.pair(model, source, before, after)
    found = exploration_of(request).compare(require_rows(earlier), require_rows(later), overview.names(later))
    return {"before": earlier.version, "after": later.version, "comparison": to_json(found)}


@router.get("/api/datasets/{model}/{source}/profile")
def show_profile(request: Request, model: str, source: str, _: Reader, version: Number = None) -> HTMLResponse:
    """A version's profile as a page of HTML that stands alone. The first time it is computed in a child process."""
    found = require_rows(overview_of(request).version(model, source, version))
    return HTMLResponse(exploration_of(request).profile(found), headers=SANDBOX)


def overview_of(request: Request) -> DatasetOverview:
    """The overview of this application."""
    services = request.app.state.services
    return DatasetOverview(services.contracts, services.datasets)


def exploration_of(request: Request) -> Exploration:
    """What computes comparisons and profiles for this application."""
    exploration: Exploration = request.app.state.services.exploration
    return exploration
