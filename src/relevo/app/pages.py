"""Console pages that look across concepts: the fleet, a model's overview and lineage; and the console as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ExceptionHandler

import relevo.app.feature_pages
import relevo.contract.pages
import relevo.datasets.pages
import relevo.identity.pages
import relevo.ledger.pages
import relevo.monitoring.pages
import relevo.registry.pages
import relevo.releases.pages
import relevo.retraining.pages
from relevo.app.example import curl_line, example_row
from relevo.app.fleet import fleet, fleet_line
from relevo.app.lineage import lineage
from relevo.app.services import Services
from relevo.app.surroundings import ServicesAround
from relevo.console.charts import sparkline
from relevo.console.errors import answer_page, is_page
from relevo.console.headers import SecurityHeaders
from relevo.console.layout import STATIC, Crumb, environment, model_page, page
from relevo.errors import RelevoError
from relevo.identity.api import requires
from relevo.identity.model import Permission, Principal
from relevo.monitoring.burn import PERIOD
from relevo.monitoring.model import WindowState
from relevo.monitoring.pages import metric_points, performance
from relevo.monitoring.policy import primary_metric
from relevo.platform.clock import utc_now
from relevo.platform.settings import Settings
from relevo.releases.model import ShadowFigures
from relevo.releases.policy import shadow_figures
from relevo.serving.model import Counters, ShadowCounters
from relevo.serving.policy import add, error_rate, p99_ms

router = APIRouter(tags=["console"], include_in_schema=False)
Reader = Annotated[Principal, Depends(requires(Permission.READ))]

#: Windows that a sparkline and the overview show.
RECENT = 26
_IN_MEMORY = {
    "ready": "in memory",
    "loading": "is being loaded",
    "resting": "out of memory until it is asked",
    "failed": "refused",
}


def include_console(app: FastAPI) -> None:
    """Add the pages, their static files and headers, and answer a person's mistakes with pages. Call it last."""
    app.state.surroundings = ServicesAround(app.state.services)
    for module in (
        relevo.contract.pages,
        relevo.datasets.pages,
        relevo.identity.pages,
        relevo.ledger.pages,
        relevo.monitoring.pages,
        relevo.registry.pages,
        relevo.releases.pages,
        relevo.retraining.pages,
    ):
        app.include_router(module.router)
    app.include_router(router)
    app.include_router(relevo.app.feature_pages.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(SecurityHeaders)
    for kind in (RelevoError, RequestValidationError, HTTPException, Exception):
        programs = app.exception_handlers.get(kind)
        if programs is not None:
            app.add_exception_handler(kind, _for_people(programs))


@router.get("/")
def show_fleet(request: Request, _: Reader) -> HTMLResponse:
    """Every model at a glance."""
    services = _services(request)
    lines = fleet(services)
    return page(
        request,
        "fleet.html",
        title="Fleet",
        lines=lines,
        traffic={line.model: _traffic(services, line.model) for line in lines},
        sparks={line.model: _spark(services, line.model) for line in lines},
        url=str(request.base_url).rstrip("/"),
    )


@router.get("/activity")
def show_activity(request: Request, _: Reader) -> HTMLResponse:
    """What goes on now, as a part of a page that keeps itself up to date."""
    content = environment().get_template("activity.html").render(surroundings=request.app.state.surroundings)
    return HTMLResponse(content, headers={"Cache-Control": "no-store"})


@router.get("/models/{model}")
def show_model(request: Request, model: str, _: Reader) -> HTMLResponse:
    """What a model does now: how it is, what is live, how to call it."""
    services = _services(request)
    applied = services.contracts.current(model)
    line = fleet_line(services, model)
    route = services.serving.current_route(model)
    shadow = None if route is None or route.shadow is None else route.shadow.version
    windows, metric = services.monitoring.windows(model, RECENT), primary_metric(applied.contract)
    final = [one.metrics[metric] for one in windows if one.state is WindowState.FINAL and metric in one.metrics]
    return model_page(
        request,
        "overview.html",
        model=model,
        tab="Overview",
        line=line,
        window=windows[-1] if windows else None,
        traffic=_traffic(services, model),
        placed={version: _memory(states) for version, states in services.serving.placed_states(model).items()},
        budgets=services.service_levels.states(model, utc_now()),
        period_days=PERIOD.days,
        shadow_version=shadow,
        shadow=None if shadow is None else _shadow(services, model, shadow),
        chart=performance(applied.contract, windows, services.serving.routes(model)) if windows else None,
        metric=metric,
        estimate=final[-1] if final else None,
        alerts=services.monitoring.alerts(open_only=True, endpoint=model),
        releases=services.releases.releases(model, limit=5),
        doing=request.app.state.surroundings.doing(model),
        curl=_curl(request, services, model, line.champion),
        endpoint=_gateway(request, services.settings) + f"/endpoints/{model}",
    )


@router.get("/models/{model}/lineage")
def show_lineage(
    request: Request, model: str, _: Reader, version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None
) -> HTMLResponse:
    """From the versions of the data to the endpoint."""
    services = _services(request)
    services.contracts.current(model)
    versions = services.registry.versions(model)
    champion = services.registry.champion(model)
    last = versions[0] if versions else None
    shown = services.registry.version(model, version) if version is not None else champion or last
    datasets = services.datasets.versions(model)  # by source, the newest first
    return model_page(
        request,
        "lineage.html",
        model=model,
        tab="Lineage",
        steps=lineage(services, shown) if shown is not None else [],
        shown=shown,
        versions=versions,
        newest=[one for place, one in enumerate(datasets) if place == 0 or datasets[place - 1].source != one.source],
        older=[one for place, one in enumerate(datasets) if place and datasets[place - 1].source == one.source],
        crumbs=[Crumb(f"v{version}")] if version is not None else [],
    )


def _for_people(programs: ExceptionHandler) -> ExceptionHandler:
    """An error on a page's address becomes a page; elsewhere the answer for programs stays."""

    def answer(request: Request, error: Exception) -> Response:
        said: Response = programs(request, error)  # type: ignore[arg-type, assignment]
        return answer_page(request, said) if is_page(request) else said

    return answer


def _traffic(services: Services, model: str) -> dict[str, float | None]:
    """What the gateway counted since it was installed: requests, the share that failed, p99 in milliseconds."""
    total = Counters()
    for counters in services.serving.counters(model).values():
        total = add(total, counters)
    return {"requests": total.requests, "error_rate": error_rate(total), "p99_ms": p99_ms(total)}


def _shadow(services: Services, model: str, version: int) -> ShadowFigures:
    """What a version made of copies, as far as the gateway has counted."""
    return shadow_figures(services.serving.shadow_counters(model).get(version, ShadowCounters()))


def _memory(states: Sequence[str]) -> str:
    """What the gateway's workers say of a version, in words."""
    if not states:
        return "no gateway worker reports"
    counts = Counter(state.partition(":")[0] for state in states)
    every = len(states)
    return ", ".join(
        _IN_MEMORY[state] + (f" ({some} of {every} workers)" if every > 1 else "") for state, some in counts.items()
    )


def _spark(services: Services, model: str) -> object:
    contract = services.contracts.current(model).contract
    points = metric_points(contract, services.monitoring.windows(model, RECENT))
    if sum(point.value is not None for point in points) < 2:
        return None
    return sparkline(points, f"{primary_metric(contract)} of {model} in the last {len(points)} windows")


def _curl(request: Request, services: Services, model: str, version: int | None) -> str | None:
    if version is None:
        return None
    row = example_row(services.registry, services.log, model, version)
    return curl_line(_gateway(request, services.settings), model, row)


def _gateway(request: Request, settings: Settings) -> str:
    """Where applications call: a gateway that listens everywhere is named as the browser names this host."""
    is_everywhere = settings.host in {"0.0.0.0", "::", ""}  # noqa: S104, compared, not bound
    return f"http://{request.url.hostname if is_everywhere else settings.host}:{settings.gateway_port}"


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services
