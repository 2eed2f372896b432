"""The control plane's process: ``python -m relevo.app.control --fd N``."""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

import relevo
import relevo.app.api
import relevo.app.replay
import relevo.contract.api
import relevo.datasets.api
import relevo.identity.api
import relevo.imports.api
import relevo.ledger.api
import relevo.monitoring.api
import relevo.releases.api
import relevo.retraining.api
import relevo.scoring.api
import relevo.training.api
from relevo.app.pages import include_console
from relevo.app.schedule import Schedule
from relevo.app.services import Services, compose
from relevo.app.tracking import authorise
from relevo.errors import Invalid, NotFound, RelevoError, Unavailable
from relevo.platform.logging import configure_logging
from relevo.platform.mlflow import MLflow
from relevo.platform.processes import die_with_supervisor
from relevo.platform.settings import Settings

logger = logging.getLogger(__name__)

ROUTERS = [
    module.router
    for module in (
        relevo.app.api,
        relevo.app.replay,
        relevo.contract.api,
        relevo.datasets.api,
        relevo.identity.api,
        relevo.imports.api,
        relevo.ledger.api,
        relevo.monitoring.api,
        relevo.releases.api,
        relevo.retraining.api,
        relevo.scoring.api,
        relevo.training.api,
    )
]


def build(services: Services) -> FastAPI:
    """The application: API, console and MLflow, over these services."""
    app = FastAPI(
        title="Relevo", version=relevo.__version__, lifespan=_lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.services = services
    for router in ROUTERS:
        app.include_router(router)
    app.add_api_route("/health", health, methods=["GET"])
    app.add_middleware(MLflow, server=services.mlflow, authorise=authorise)
    app.add_exception_handler(RelevoError, answer_error)
    app.add_exception_handler(RequestValidationError, answer_validation_error)
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(Exception, answer_failure)
    include_console(app)
    return app


def health() -> dict[str, str]:
    """Whether this process answers; open to everybody."""
    return {"status": "up"}


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Answer at once; workflows come up behind."""
    services: Services = app.state.services
    schedule = Schedule(services)
    starting = asyncio.create_task(asyncio.to_thread(_start, services, schedule))
    starting.add_done_callback(_log_failure)
    tracking = asyncio.create_task(_start_tracking(services, starting))
    yield
    tracking.cancel()
    await starting
    await asyncio.to_thread(schedule.stop)
    await asyncio.to_thread(services.close)


def _start(services: Services, schedule: Schedule) -> None:
    services.workflows.launch()
    services.deliver.settle()
    services.resume_deliveries()
    schedule.start()


async def _start_tracking(services: Services, after: asyncio.Task[None]) -> None:
    """MLflow last: its import would keep the console waiting."""
    await asyncio.wait([after])
    await services.mlflow.started()


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.error("the workflows did not come up", exc_info=task.exception())


def answer_error(_: Request, error: Exception) -> JSONResponse:
    """An error of ours, in its one JSON shape."""
    assert isinstance(error, RelevoError)
    headers = {"Retry-After": "1"} if error.http_status in {429, 503} else {}
    return JSONResponse(error.as_json(), error.http_status, headers)


def answer_validation_error(request: Request, error: Exception) -> JSONResponse:
    """A body or parameter that does not fit, with its field."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"] if part not in {"body", "query", "path"})
    return answer_error(request, Invalid(f"{field or 'body'}: {first['msg']}.", field=field or None))


def answer_http_error(request: Request, error: Exception) -> JSONResponse:
    """A path or method that does not exist."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return answer_error(request, NotFound(f"There is nothing at {request.url.path}."))
    body = {"error": {"code": "error", "message": str(error.detail), "field": None, "hint": None}}
    return JSONResponse(body, error.status_code, error.headers)


def answer_failure(request: Request, error: Exception) -> JSONResponse:
    """Our own mistake, or a full disk; the server logs the traceback."""
    if is_disk_full(error):
        hint = "Make room, or move the home folder; see relevo doctor."
        return answer_error(request, Unavailable("The disk of the home folder is full.", hint=hint))
    message = f"The control plane failed on this request: {type(error).__name__}."
    return answer_error(request, RelevoError(message, hint="Its log says why: relevo logs control"))


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that there is no room."""
    while error is not None:
        full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
        if full or "database or disk is full" in str(error) or "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def main() -> None:
    """Serve on the socket that the supervisor listens on."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    arguments = parser.parse_args()
    die_with_supervisor()
    settings = Settings()
    configure_logging(settings, "control")
    app = build(compose(settings))
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5)
    uvicorn.Server(config).run([socket.socket(fileno=arguments.fd)])


if __name__ == "__main__":
    main()
