"""HTTP routes of imports: begin one, look at it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from relevo.contract.model import Task
from relevo.contract.parsing import MODEL_NAME
from relevo.errors import Invalid, RelevoError
from relevo.identity.api import requires
from relevo.identity.model import Permission, Principal
from relevo.imports.model import Asked
from relevo.imports.service import Imports
from relevo.platform.encoding import to_json
from relevo.platform.mlflow_models import check_address

router = APIRouter(tags=["imports"])
Reader = Annotated[Principal, Depends(requires(Permission.READ))]
Engineer = Annotated[Principal, Depends(requires(Permission.APPLY))]
Text = Annotated[str, Field(min_length=1, max_length=200)]


class Import(BaseModel, extra="forbid"):
    """Which model of MLflow becomes which one here."""

    uri: Text
    model: Text | None = None
    owner: Text | None = None
    task: Task | None = None
    classes: Annotated[list[Text], Field(max_length=1000)] = []
    environment: Literal["model", "own"] = "model"
    log: Literal["durable", "buffered"] = "durable"
    approvals: Annotated[int, Field(ge=0, le=100)] = 1
    p99_ms: Annotated[float, Field(gt=0, le=600_000)] = 50.0
    reason: Annotated[str, Field(max_length=2000)] = ""


@router.post("/api/imports", status_code=202)
async def begin_import(request: Request, body: Import, actor: Engineer) -> dict[str, Any]:
    """Import a model that an MLflow client logged here, and start its release. The same again gives the same id."""
    services = request.app.state.services
    check_address(body.uri)
    if body.model is not None:
        _check_name(body.model)
        if body.uri.startswith(("runs:", "models:/m-")):  # before anything is registered under that name
            await run_in_threadpool(services.declarations.check, body.model, body.model)
    registered = await services.mlflow.version(body.uri, body.model)
    model = body.model or registered.name
    _check_name(model)
    asked = Asked(
        uri=body.uri,
        model=model,
        registered=registered,
        actor=actor,
        owner=body.owner or actor.name,
        reason=body.reason,
        task=body.task,
        classes=tuple(body.classes),
        environment=body.environment,
        log=body.log,
        approvals=body.approvals,
        p99_ms=body.p99_ms,
    )
    started = await run_in_threadpool(_imports(request).begin, asked)
    return {"import": started, "model": model, "version": registered.version}


@router.get("/api/imports/{import_id}")
def show_import(request: Request, import_id: str, _: Reader) -> dict[str, Any]:
    """What an import does, or what it found and the release that it started, or why it failed."""
    status = _imports(request).status(import_id)
    activities = request.app.state.services.workflows.activities.open()
    error = status.error
    return {
        "import": import_id,
        "state": status.state,
        "now": next((one.text for one in activities if one.workflow_id == import_id), ""),
        "found": to_json(status.output["found"]) if status.output else None,
        "release": status.output["release"] if status.output else None,
        "error": None if error is None else _told(error),
    }


def _told(error: Exception) -> dict[str, Any]:
    told = error if isinstance(error, RelevoError) else RelevoError(str(error))
    return {"code": told.code, "message": told.message, "field": told.field, "hint": told.hint}


def _check_name(name: str) -> None:
    if not MODEL_NAME.fullmatch(name):
        raise Invalid(
            f"The name of a model is 1 to 63 of a-z, 0-9 and -, and begins with a letter; got {name!r}.",
            field="model",
            hint="Import it under another name: --as NAME.",
        )


def _imports(request: Request) -> Imports:
    imports: Imports = request.app.state.services.imports
    return imports
