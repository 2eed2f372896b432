"""HTTP routes of contracts: plan, apply, read."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool

from relevo.contract.model import AppliedContract, Change
from relevo.contract.service import ContractService
from relevo.contract.upload import MAX_UPLOAD_BYTES
from relevo.errors import TooLarge
from relevo.identity.api import requires
from relevo.identity.model import Permission, Principal
from relevo.platform.encoding import to_json

router = APIRouter(tags=["contracts"])
Reader = Annotated[Principal, Depends(requires(Permission.READ))]
Engineer = Annotated[Principal, Depends(requires(Permission.APPLY))]


@router.post("/api/contracts/plan")
async def plan_contract(request: Request, _: Engineer) -> dict[str, Any]:
    """What applying a project would change. The body is the project as a zip, at most 50 MB."""
    content = await _body(request)
    return _change_json(await run_in_threadpool(_contracts(request).plan, content))


@router.post("/api/contracts")
async def apply_contract(request: Request, actor: Engineer) -> dict[str, Any]:
    """Apply a project, and start its delivery. The body is the project as a zip; ``?reason=`` goes to the ledger."""
    content = await _body(request)
    reason = request.query_params.get("reason", "")[:1000]
    return await run_in_threadpool(_apply, request, content, actor, reason)


@router.get("/api/contracts")
def list_contracts(request: Request, _: Reader) -> list[dict[str, Any]]:
    """The live contract of every model, in short."""
    contracts = _contracts(request)
    return [_summary(contracts.current(model)) for model in contracts.models()]


@router.get("/api/contracts/{model}")
def read_contract(request: Request, model: str, _: Reader, revision: int | None = None) -> dict[str, Any]:
    """A contract in full: its text, what it says, what its package declares. The live one, or a ``revision``."""
    contracts = _contracts(request)
    applied = contracts.current(model) if revision is None else contracts.revision(model, revision)
    fields: dict[str, Any] = to_json(applied)
    return fields


def _apply(request: Request, content: bytes, actor: Principal, reason: str) -> dict[str, Any]:
    contracts = _contracts(request)
    change = contracts.apply(content, actor, reason=reason)
    if change.is_applied:
        release = request.app.state.services.after_apply(contracts.revision(change.model, change.revision), actor)
        change = dataclasses.replace(change, release=release)
    return _change_json(change)


async def _body(request: Request) -> bytes:
    """The body; reading stops as soon as it is too long."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_UPLOAD_BYTES:
            raise TooLarge(f"The upload has more than the {MAX_UPLOAD_BYTES} bytes that are allowed.")
    return bytes(content)


def _contracts(request: Request) -> ContractService:
    contracts: ContractService = request.app.state.services.contracts
    return contracts


def _change_json(change: Change) -> dict[str, Any]:
    return {**to_json(change), "is_empty": change.is_empty, "lines": change.lines()}


def _summary(applied: AppliedContract) -> dict[str, Any]:
    return {
        "model": applied.model,
        "revision": applied.revision,
        "owner": applied.contract.owner,
        "task": applied.contract.task.value,
        "snapshot": applied.snapshot,
        "git_commit": applied.git_commit,
        "applied_by": applied.applied_by,
        "applied_at": to_json(applied.applied_at),
    }
