"""HTTP: drive an endpoint's event time, so that a year passes through the real system in minutes.

A driver advances event time, sends what happened until then, and settles: it says that everything was sent. Only then
are windows judged, so that none is judged while its events are still on their way.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import AwareDatetime, BaseModel

from relevo.app.services import Services
from relevo.identity.api import requires
from relevo.identity.model import Permission, Principal
from relevo.platform.encoding import to_json

router = APIRouter(tags=["replay"])
Operator = Annotated[Principal, Depends(requires(Permission.OPERATE))]


class Moment(BaseModel, extra="forbid"):
    """An event time, with its offset."""

    at: AwareDatetime


@router.post("/api/models/{model}/replay")
def start_replay(request: Request, model: str, body: Moment, actor: Operator) -> dict[str, str]:
    """Put the model's event time under a driver's control."""
    services = _services(request)
    with services.state.transaction() as tx:
        services.clock.start_replay(tx, model, body.at)
        facts = {"at": body.at.isoformat()}
        services.ledger.append(tx, actor=actor, action="replay started", subject=model, facts=facts, event_at=body.at)
    return {"at": body.at.isoformat()}


@router.post("/api/models/{model}/replay/advance")
def advance(request: Request, model: str, body: Moment, _: Operator) -> dict[str, Any]:
    """Let event time go on; features that are known by then are materialised before the answer."""
    services = _services(request)
    with services.state.transaction() as tx:
        services.clock.advance(tx, model, body.at)
    return {"at": body.at.isoformat(), "features": to_json(services.materialise(model, body.at))}


@router.post("/api/models/{model}/replay/settle")
def settle(request: Request, model: str, _: Operator) -> dict[str, list[str]]:
    """Every event up to now was sent: judge the windows that are due."""
    services = _services(request)
    services.judge_freshness(model)
    return {"watches": services.watch.start_due_watches(model)}


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services
