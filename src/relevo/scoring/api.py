"""HTTP: what the command that scores in bulk asks the control plane."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import AwareDatetime, BaseModel, Field

from relevo.errors import NotAllowed
from relevo.identity.api import requires
from relevo.identity.model import Permission, Principal
from relevo.platform.encoding import to_json
from relevo.scoring.service import Scoring

router = APIRouter(tags=["scoring"])
Caller = Annotated[Principal, Depends(requires(Permission.PREDICT))]
Number = Annotated[int, Field(ge=1, le=2**31 - 1)]


class PlanBody(BaseModel):
    """``version`` None: the champion."""

    version: Number | None = None


class SourcesBody(BaseModel):
    """The views of a version whose sources are to be loaded as known at ``until``."""

    version: Number
    views: list[str] = Field(min_length=1, max_length=1000)
    until: AwareDatetime


@router.post("/api/models/{model}/scoring")
def plan_scoring(request: Request, model: str, body: PlanBody, caller: Caller) -> dict[str, Any]:
    """Which version answers a bulk scoring."""
    _check(caller, _scoring(request), model, body.version)
    plan: dict[str, Any] = to_json(_scoring(request).plan(model, body.version))
    return plan


@router.post("/api/models/{model}/scoring/sources")
def load_sources(request: Request, model: str, body: SourcesBody, caller: Caller) -> dict[str, Any]:
    """Load what the views of a version look up."""
    _check(caller, _scoring(request), model, body.version)
    found: dict[str, Any] = to_json(_scoring(request).sources(model, body.version, body.views, body.until))
    return found


def _check(caller: Principal, scoring: Scoring, model: str, version: int | None) -> None:
    """To name another version than the champion takes the permission that the gateway asks for, too."""
    if caller.may(Permission.ADDRESS_VERSION) or version in (None, scoring.champion(model)):
        return
    raise NotAllowed(f"{caller.name} ({caller.role}) lacks the permission {Permission.ADDRESS_VERSION}.")


def _scoring(request: Request) -> Scoring:
    scoring: Scoring = request.app.state.services.scoring
    return scoring
