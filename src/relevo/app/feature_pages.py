"""Console page of a model's feature views: how fresh they are, who uses them, and the last parity proof."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse

from relevo.app.features import impact, view_lines
from relevo.app.services import Services
from relevo.console.layout import model_address, model_page, redirect
from relevo.identity.api import requires
from relevo.identity.model import Permission, Principal

router = APIRouter(tags=["console"], include_in_schema=False)
Reader = Annotated[Principal, Depends(requires(Permission.READ))]
Operator = Annotated[Principal, Depends(requires(Permission.OPERATE))]


@router.get("/models/{model}/features")
def show_features(request: Request, model: str, principal: Reader) -> HTMLResponse:
    """The views of a model, and whether what was served is what training sees."""
    services = _services(request)
    lines = view_lines(services, model)
    return model_page(
        request,
        "features.html",
        model=model,
        tab="Features",
        lines=lines,
        declared={view.name: view for view in services.features.views(model)},
        uses={
            (use.view, use.definition): use
            for name in dict.fromkeys(line.view for line in lines)
            for use in impact(services, name)
            if use.model == model
        },
        proof=services.parity.latest(model),
        may_prove=principal.may(Permission.OPERATE),
    )


@router.post("/models/{model}/features/parity")
def prove(request: Request, model: str, _: Operator) -> Response:
    """Prove parity over the last day that was predicted in; the page then shows what was found."""
    _services(request).parity.prove(model)
    return redirect(model_address(model, "features"), "proved")


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services
