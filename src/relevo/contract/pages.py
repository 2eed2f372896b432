"""Console page of a model's contract."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse

from relevo.console.layout import Crumb, model_page
from relevo.contract.service import ContractService
from relevo.identity.api import requires
from relevo.identity.model import Permission, Principal

router = APIRouter(tags=["console"], include_in_schema=False)


@router.get("/models/{model}/contract")
def show_contract(
    request: Request,
    model: str,
    _: Annotated[Principal, Depends(requires(Permission.READ))],
    revision: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> HTMLResponse:
    """The contract as the team wrote it: the live one, or an earlier revision."""
    contracts: ContractService = request.app.state.services.contracts
    live = contracts.current(model)
    applied = live if revision is None else contracts.revision(model, revision)
    crumbs = [Crumb(f"Revision {revision}")] if revision is not None else []
    return model_page(
        request, "contract.html", model=model, tab="Contract", applied=applied, live=live.revision, crumbs=crumbs
    )
