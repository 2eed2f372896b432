"""HTTP: read the ledger and check its chain."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from relevo.identity.api import requires
from relevo.identity.model import Permission, Principal
from relevo.ledger.service import Ledger
from relevo.platform.encoding import to_json

router = APIRouter(tags=["ledger"])
Reader = Annotated[Principal, Depends(requires(Permission.READ))]


@router.get("/api/ledger")
def list_entries(
    request: Request,
    _: Reader,
    subject: Annotated[str | None, Query(max_length=256, pattern=r"^[^\x00]*$")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> list[dict[str, Any]]:
    """Entries, the newest first; page on with ``before`` = the last one's sequence."""
    entries: list[dict[str, Any]] = to_json(_ledger(request).entries(subject, limit, before))
    return entries


@router.get("/api/ledger/verification")
def verify(request: Request, _: Reader) -> dict[str, Any]:
    """Check every hash and link; 500 ``corrupted`` names the first bad entry."""
    ledger = _ledger(request)
    return {"entries": ledger.verify(), "head": ledger.head()[1]}


def _ledger(request: Request) -> Ledger:
    ledger: Ledger = request.app.state.services.ledger
    return ledger
