"""HTTP: what the retraining rule decided on each window."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from relevo.identity.api import requires
from relevo.identity.model import Permission, Principal
from relevo.platform.encoding import to_json

router = APIRouter(tags=["retraining"])


@router.get("/api/models/{model}/retraining")
def decisions(
    request: Request, model: str, _: Annotated[Principal, Depends(requires(Permission.READ))]
) -> list[dict[str, Any]]:
    """Every decision of the rule, the newest window first."""
    return [to_json(decision) for decision in request.app.state.services.retraining.decisions(model)]
