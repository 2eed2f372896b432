"""HTTP: what a version's training set was made of, and making it again."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request

from relevo.identity.api import requires
from relevo.identity.model import Permission, Principal
from relevo.platform.encoding import to_json
from relevo.training.rebuilding import TrainingSets

router = APIRouter(tags=["training sets"])
Reader = Annotated[Principal, Depends(requires(Permission.READ))]
Operator = Annotated[Principal, Depends(requires(Permission.OPERATE))]
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]


@router.get("/api/models/{model}/versions/{number}/training-set")
def show_training_set(request: Request, model: str, number: Number, _: Reader) -> dict[str, Any]:
    """What the training set of a version was made of: dataset versions, views, contract revision, code, time."""
    pins: dict[str, Any] = to_json(_training_sets(request).pins(model, number))
    return pins


@router.post("/api/models/{model}/versions/{number}/training-set/verification")
def verify_training_set(request: Request, model: str, number: Number, _: Operator) -> dict[str, Any]:
    """Make the training set again from its pins, and compare the digests."""
    rebuilt: dict[str, Any] = to_json(_training_sets(request).verify(model, number))
    return rebuilt


def _training_sets(request: Request) -> TrainingSets:
    training_sets: TrainingSets = request.app.state.services.training_sets
    return training_sets
