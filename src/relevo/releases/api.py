"""HTTP routes of releases: what waits for whom, the evidence, a person's word, training by hand, rolling back."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AwareDatetime, BaseModel, Field

from relevo.errors import Conflict, NotFound
from relevo.identity.api import requires
from relevo.identity.model import Permission, Principal
from relevo.platform.clock import utc_now
from relevo.platform.encoding import to_json
from relevo.releases.model import ReleaseState
from relevo.releases.service import Releases

router = APIRouter(tags=["releases"])
Reader = Annotated[Principal, Depends(requires(Permission.READ))]
Approver = Annotated[Principal, Depends(requires(Permission.APPROVE))]
Operator = Annotated[Principal, Depends(requires(Permission.OPERATE))]
Engineer = Annotated[Principal, Depends(requires(Permission.APPLY))]
Limit = Annotated[int, Query(ge=1, le=1000)]


class Word(BaseModel, extra="forbid"):
    """A person's word on a release, with the reason."""

    approved: bool
    reason: str = Field(min_length=1, max_length=2000)


class Reason(BaseModel, extra="forbid"):
    """Why something is done."""

    reason: str = Field(min_length=1, max_length=2000)


@router.get("/api/releases")
def list_releases(
    request: Request, _: Reader, model: str | None = None, state: ReleaseState | None = None, limit: Limit = 100
) -> list[dict[str, Any]]:
    """Releases, the newest first."""
    return [to_json(release) for release in _releases(request).releases(model, state, limit)]


@router.get("/api/releases/{release_id}")
def show_release(request: Request, release_id: str, _: Reader) -> dict[str, Any]:
    """A release with its evidence and every word given on it."""
    releases = _releases(request)
    release = releases.release(release_id)
    version = release.version
    return {
        "release": to_json(release),
        "evidence": None if version is None else to_json(releases.evidence(release.model, version)),
        "approvals": [] if version is None else to_json(releases.approvals(release.model, version)),
    }


@router.post("/api/releases/{release_id}/decision")
def decide(request: Request, release_id: str, word: Word, principal: Approver) -> dict[str, Any]:
    """Approve or refuse a release that waits for it."""
    count = _releases(request).decide(release_id, principal, approved=word.approved, reason=word.reason)
    request.app.state.services.deliver.tell(release_id)
    answer: dict[str, Any] = to_json(count)
    return answer


@router.post("/api/releases/{release_id}/cancel")
def cancel(request: Request, release_id: str, body: Reason, principal: Operator) -> dict[str, Any]:
    """Stop a release that is under way; a canary gives its traffic back."""
    release = _releases(request).release(release_id)
    if not release.state.is_open:
        raise Conflict(f"Release {release_id} has ended already: {release.state.replace('_', ' ')}.")
    ended = request.app.state.services.deliver.cancel(release_id, body.reason, principal)
    return {"release": to_json(ended)}


@router.post("/api/models/{model}/train", status_code=202)
def train(request: Request, model: str, body: Reason, principal: Engineer) -> dict[str, str]:
    """Train a challenger on what is known by now, and release it if it wins."""
    services = request.app.state.services
    if (imported := services.contracts.current(model).contract.imported) is not None:
        raise Conflict(
            f"{model} is imported from models:/{imported.name}, so there is nothing to train here.",
            hint=f"Register a new version in MLflow, then: relevo import models:/{imported.name}/VERSION",
        )
    started = services.deliver.start(
        model,
        release_id=f"deliver-{model}-{utc_now():%Y%m%dT%H%M%S%f}",
        as_of=services.clock.now(model),
        reason=body.reason,
        requested_by=principal.name,
    )
    return {"release": started}


@router.post("/api/models/{model}/rollback")
def roll_back(request: Request, model: str, body: Reason, principal: Operator) -> dict[str, Any]:
    """Put the previous champion back; a canary under way is given up instead."""
    for release in _releases(request).under_way(model):
        if release.state.is_moving:
            ended = request.app.state.services.deliver.cancel(release.id, f"rolled back: {body.reason}", principal)
            return {"cancelled": ended.id}
    return {"route": to_json(_releases(request).roll_back(model, principal, body.reason))}


@router.get("/api/models/{model}/history")
def history(request: Request, model: str, _: Reader, at: AwareDatetime | None = None) -> list[dict[str, Any]]:
    """Every route revision with who approved its versions; with ``at``, the one in force at that event time."""
    services = request.app.state.services
    routes = services.serving.routes(model)
    if at is not None:
        found = services.serving.route_at(model, at)
        if found is None:
            first = f" The first route is of {_day(routes[0].effective_event_at)}." if routes else ""
            raise NotFound(f"Nothing was live on {model} at {at.isoformat()}.{first}")
        routes = [found]
    return [_with_approvals(request, model, to_json(route)) for route in routes]


def _with_approvals(request: Request, model: str, route: dict[str, Any]) -> dict[str, Any]:
    for arm in route["arms"]:
        arm["approvals"] = to_json(_releases(request).approvals(model, arm["version"]))
    return route


def _releases(request: Request) -> Releases:
    releases: Releases = request.app.state.services.releases
    return releases


def _day(at: datetime) -> str:
    return at.isoformat(timespec="minutes")
