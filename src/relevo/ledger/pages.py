"""Console page of the ledger."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse

from relevo.console.layout import Crumb, page
from relevo.errors import Corrupted
from relevo.identity.api import requires
from relevo.identity.model import Permission, Principal
from relevo.ledger.service import Ledger

router = APIRouter(tags=["console"], include_in_schema=False)

PAGE = 50
#: A longer ledger is checked when somebody asks for it: a check reads and hashes every entry.
CHECKED_AT_ONCE = 2000


@router.get("/ledger")
def show_ledger(
    request: Request,
    _: Annotated[Principal, Depends(requires(Permission.READ))],
    subject: Annotated[str, Query(max_length=256, pattern=r"^[^\x00]*$")] = "",
    before: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    verify: bool = False,
) -> HTMLResponse:
    """What was done, by whom and why, the newest first; and whether the chain holds."""
    ledger: Ledger = request.app.state.services.ledger
    subject = subject.strip()
    entries = ledger.entries(subject or None, PAGE + 1, before)
    head, head_hash = ledger.head()
    problem = None
    is_checked = verify or head <= CHECKED_AT_ONCE
    if is_checked:
        try:
            head = ledger.verify()
        except Corrupted as error:
            problem = error.message
    return page(
        request,
        "ledger.html",
        title="Ledger",
        crumbs=[Crumb("Fleet", "/"), Crumb("Ledger")],
        entries=entries[:PAGE],
        older=entries[PAGE - 1].sequence if len(entries) > PAGE else None,
        subject=subject,
        before=before,
        count=head,
        head_hash=head_hash,
        is_checked=is_checked,
        problem=problem,
    )
