"""HTTP: windows, alerts and performance over longer periods."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AwareDatetime, BaseModel, Field

from relevo.identity.api import requires
from relevo.identity.model import Permission, Principal
from relevo.monitoring import parity, policy
from relevo.monitoring.burn import PERIOD
from relevo.monitoring.service import Monitoring
from relevo.monitoring.service_levels import ServiceLevels
from relevo.platform.clock import utc_now
from relevo.platform.encoding import to_json
from relevo.platform.state import State

router = APIRouter(tags=["monitoring"])
Reader = Annotated[Principal, Depends(requires(Permission.READ))]
Operator = Annotated[Principal, Depends(requires(Permission.OPERATE))]


class Resolution(BaseModel, extra="forbid"):
    """Why an alert is closed by hand."""

    reason: str = Field(default="", max_length=1000)


@router.get("/api/models/{model}/windows")
def list_windows(
    request: Request, model: str, _: Reader, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> dict[str, Any]:
    """The last revision of each of the newest windows, the oldest first."""
    monitoring = _monitoring(request)
    monitoring.require(model)
    return {"windows": to_json(monitoring.windows(model, limit))}


@router.get("/api/models/{model}/windows/{end}")
def list_revisions(request: Request, model: str, end: datetime, _: Reader) -> dict[str, Any]:
    """Every revision of the window that ends then, the first first."""
    monitoring = _monitoring(request)
    monitoring.window(model, end)
    return {"revisions": to_json(monitoring.revisions(model, end))}


@router.get("/api/models/{model}/performance")
def list_performance(
    request: Request,
    model: str,
    _: Reader,
    by: Literal["window", "month"] = "month",
    version: Annotated[int | None, Query(ge=1)] = None,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
) -> dict[str, Any]:
    """Performance by calendar month (UTC) or window: of what was live, and of ``version`` on the same rows.

    ``since`` and ``until`` keep the periods that lie wholly between them.
    """
    monitoring = _monitoring(request)
    begins_at, now = monitoring.begins_at(model), monitoring.event_time(model)
    length = monitoring.require(model).monitor.window
    if begins_at is None:
        return {"periods": []}
    periods = policy.months(begins_at, now) if by == "month" else policy.spans(begins_at, now, length)
    kept = [
        (start, end) for start, end in periods if (since is None or start >= since) and (until is None or end <= until)
    ]
    return {"periods": to_json(monitoring.performance_by_period(model, kept, version))}


@router.get("/api/models/{model}/service-level")
def show_service_level(request: Request, model: str, _: Reader) -> dict[str, Any]:
    """What is left of the error budgets of the contract's service level, and how fast they burn."""
    levels: ServiceLevels = request.app.state.services.service_levels
    return {"period_days": PERIOD.days, "budgets": to_json(levels.states(model, utc_now()))}


class Question(BaseModel, extra="forbid"):
    """Which window of event time a parity proof looks at; all of it may be left out."""

    last_seconds: float | None = Field(default=None, gt=0, le=10 * 365 * 86400)
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None
    limit: int = Field(default=parity.LIMIT, ge=1, le=100_000_000)


@router.post("/api/models/{model}/features/parity")
def prove_parity(request: Request, model: str, _: Operator, body: Question | None = None) -> dict[str, Any]:
    """Recompute logged feature values from the sources, compare, and record what was found."""
    asked = body or Question()
    found = _parity(request).prove(
        model,
        last=None if asked.last_seconds is None else timedelta(seconds=asked.last_seconds),
        start=asked.start,
        end=asked.end,
        limit=asked.limit,
    )
    return {**to_json(found), "words": {cause.value: cause.words for cause in found.causes}}


@router.get("/api/models/{model}/features/parity")
def list_parity(
    request: Request, model: str, _: Reader, limit: Annotated[int, Query(ge=1, le=100)] = 10
) -> dict[str, Any]:
    """Recorded parity proofs, the newest first."""
    _monitoring(request).require(model)
    return {"proofs": to_json(_parity(request).history(model, limit))}


@router.get("/api/alerts")
def list_alerts(
    request: Request,
    _: Reader,
    state: Literal["open", "all"] = "open",
    model: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> dict[str, Any]:
    """Alerts, the newest first."""
    found = _monitoring(request).alerts(open_only=state == "open", endpoint=model, limit=limit)
    return {"alerts": to_json(found)}


@router.post("/api/alerts/{alert_id}/resolve")
def resolve_alert(request: Request, alert_id: int, actor: Operator, body: Resolution | None = None) -> dict[str, Any]:
    """Close an alert by hand; the next window that shows the same opens a new one."""
    state: State = request.app.state.services.state
    with state.transaction() as tx:
        reason = body.reason if body is not None else ""
        return {"alert": to_json(_monitoring(request).resolve_alert(tx, alert_id, actor, reason))}


def _parity(request: Request) -> parity.ParityService:
    service: parity.ParityService = request.app.state.services.parity
    return service


def _monitoring(request: Request) -> Monitoring:
    monitoring: Monitoring = request.app.state.services.monitoring
    return monitoring
