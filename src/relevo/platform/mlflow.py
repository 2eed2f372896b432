"""MLflow's server inside the control plane, behind a guard. The only module that knows MLflow's private names.

MLflow takes seven seconds and 250 MB to come up, so it is imported in a thread when it is first needed. Its own server
trusts every caller: here each request says who asks, paths that were not looked at are refused, and the registry leaves
versions of governed models alone: their stage is decided by a release, not by an alias.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relevo.errors import NotAllowed, NotFound, RelevoError
from relevo.platform.settings import Settings

logger = logging.getLogger(__name__)

PREFIX = "/mlflow"
START_WITHIN_SECONDS = 90.0

#: What a client and the tracking UI need. Everything else (assistant, gateway, jobs, webhooks, MCP, scorers,
#: workspaces) is refused: it runs code, calls other hosts or keeps secrets.
_CONCEPTS = (
    "experiments|runs|metrics|artifacts|datasets|logged-models|registered-models|model-versions|traces|unified-traces"
    "|get-online-trace-details|get-trace-artifact|upload-artifact|server-info|ui-telemetry"
)
_ALLOWED = re.compile(
    rf"/(?:api|ajax-api)/[23]\.0/mlflow/(?:{_CONCEPTS})(?:/.*)?"
    r"|/(?:api|ajax-api)/2\.0/mlflow-artifacts/.+|/(?:api|ajax-api)/2\.0mlflow/experiments/search-datasets"
    r"|/(?:get-artifact|model-versions/get-artifact|graphql|health|version|static-files/.+)?"
)
_READING_POSTS = re.compile(
    r".*/(?:search|search-datasets|get-latest-versions|batchGetInfos|metrics|graphql|ui-telemetry)|/graphql"
)
_ARTIFACT = re.compile(r"/(?:api|ajax-api)/2\.0/mlflow-artifacts/(?:artifacts|mpu/[a-z]+)/(?P<path>.+)")
_SERVES_FILES = re.compile(r".*(?:get-artifact|mlflow-artifacts/artifacts|artifacts/files|get-trace-artifact).*")

#: Raises when the request does not say who asks, or when they may not read or write.
Authorise = Callable[[Request, bool], Awaitable[None]]


class MLflow:
    """ASGI middleware that answers ``/mlflow`` with MLflow, and passes everything else on.

    Args:
        app: The application for all other paths.
        server: The server; shared with whoever starts it early.
        authorise: Called with the request and whether it writes.
    """

    def __init__(self, app: ASGIApp, server: MLflowServer, authorise: Authorise) -> None:
        self._app = app
        self._server = server
        self._authorise = authorise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Guard the request, then hand it to MLflow."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == PREFIX or path.startswith(f"{PREFIX}/")):
            await self._app(scope, receive, send)
            return
        try:
            inner = path.removeprefix(PREFIX) or "/"
            if not _ALLOWED.fullmatch(inner) or ".." in unquote(inner):
                raise NotFound(f"Relevo does not offer {path} of MLflow.")
            request = Request(scope, receive)
            writes = scope["method"] not in {"GET", "HEAD"} and not _READING_POSTS.fullmatch(inner)
            await self._authorise(request, writes)
            app = await self._server.started()
            if writes and (found := _ARTIFACT.fullmatch(inner)) is not None:
                await asyncio.to_thread(self._server.check_write_once, unquote(found["path"]))
        except RelevoError as error:
            headers = {"Retry-After": "1"} if error.http_status == 503 else {}
            if error.http_status == 401:
                headers["WWW-Authenticate"] = 'Basic realm="Relevo: any name, the token as password"'
            # MLflow's client shows ``message``; ours reads ``error``.
            body = {**error.as_json(), "error_code": error.code.upper(), "message": error.message}
            await JSONResponse(body, error.http_status, headers)(scope, receive, send)
            return
        # The path stays whole: MLflow knows its prefix, and its cross-origin check looks at the whole path.
        await app({**scope, "path": PREFIX + inner, "root_path": ""}, receive, _sandboxed(inner, send))


class MLflowServer:
    """MLflow's own application, imported and connected on first use. One a process.

    Args:
        settings: Where its database and artifacts lie.
        is_governed: Whether a registered model belongs to a contract.
    """

    def __init__(self, settings: Settings, is_governed: Callable[[str], bool]) -> None:
        self._settings = settings
        self._is_governed = is_governed
        self._starting: asyncio.Task[ASGIApp] | None = None
        self._store: Any = None

    async def started(self) -> ASGIApp:
        """MLflow's application; the first call starts it, and the others wait.

        Raises:
            Unavailable: It does not come up in time.
        """
        if self._starting is None or (self._starting.done() and self._starting.exception() is not None):
            self._starting = asyncio.create_task(asyncio.to_thread(self._start))
        return await asyncio.wait_for(asyncio.shield(self._starting), START_WITHIN_SECONDS)

    def check_write_once(self, path: str) -> None:
        """Refuse to change an artifact of a registered version.

        Raises:
            NotAllowed: The file is there, and a version was registered from its folder.
        """
        if not (self._artifacts / path).exists():
            return
        from mlflow.store.model_registry.dbmodels.models import SqlModelVersion

        with self._store.ManagedSessionMaker() as session:
            rows: Iterable[tuple[str | None, str | None]] = session.query(
                SqlModelVersion.source, SqlModelVersion.storage_location
            )
            for source in {source for row in rows for source in row if source}:
                folder = source.removeprefix("mlflow-artifacts:").lstrip("/")
                if path.startswith(f"{folder}/") or self._is_of_logged_model(source, path):
                    raise NotAllowed(f"{path} belongs to a registered version, and its artifacts never change.")

    @property
    def _artifacts(self) -> Path:
        return self._settings.folder("mlartifacts")

    def _is_of_logged_model(self, source: str, path: str) -> bool:
        """``models:/m-...`` is how a version names the logged model that it came from."""
        found = re.fullmatch(r"models:/(m-[0-9a-f]+)/?", source)
        return found is not None and f"/{found[1]}/" in f"/{path}"

    def _start(self) -> ASGIApp:
        database = self._settings.database("mlflow")
        os.environ |= {
            "_MLFLOW_SERVER_FILE_STORE": database,
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(self._artifacts),
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_STATIC_PREFIX": PREFIX,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ALLOWED_HOSTS": "*",  # every request carries a token or a same-site session
        }
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mlflow.server import handlers
            from mlflow.server.fastapi_app import app

        self._store = _governed_store(database, self._is_governed)
        handlers._model_registry_store = self._store
        handlers._get_tracking_store(database, "mlflow-artifacts:/")
        logger.info("MLflow is up")
        found: ASGIApp = app
        return found


def _governed_store(database: str, is_governed: Callable[[str], bool]) -> Any:
    """MLflow's registry, with what a release decides taken out of everybody else's hands."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    def refuse(name: str, what: str) -> None:
        if is_governed(name):
            raise MlflowException(
                f"{name} is governed by a Relevo contract: {what} is decided by a release, not in MLflow.",
                PERMISSION_DENIED,
            )

    class GovernedStore(SqlAlchemyStore):  # type: ignore[misc]
        """Refuses stage, alias, rename and delete of governed models, and sources that are not its own artifacts."""

        def rename_registered_model(self, name: str, new_name: str) -> Any:
            refuse(name, "its name")
            return super().rename_registered_model(name, new_name)

        def delete_registered_model(self, name: str) -> Any:
            refuse(name, "its end")
            return super().delete_registered_model(name)

        def delete_model_version(self, name: str, version: str) -> Any:
            refuse(name, "the end of a version")
            return super().delete_model_version(name, version)

        def transition_model_version_stage(
            self, name: str, version: str, stage: str, archive_existing_versions: bool
        ) -> Any:
            refuse(name, "the stage of a version")
            return super().transition_model_version_stage(name, version, stage, archive_existing_versions)

        def set_registered_model_alias(self, name: str, alias: str, version: str) -> Any:
            refuse(name, "which version is live")
            return super().set_registered_model_alias(name, alias, version)

        def delete_registered_model_alias(self, name: str, alias: str) -> Any:
            refuse(name, "which version is live")
            return super().delete_registered_model_alias(name, alias)

        def create_model_version(self, name: str, source: str, *args: Any, **kwargs: Any) -> Any:
            if not re.match(r"(mlflow-artifacts:/|models:/|runs:/)", source) or ".." in source:
                raise MlflowException(f"The source of a version must be an artifact here, got {source}.")
            return super().create_model_version(name, source, *args, **kwargs)

    return GovernedStore(database)


def _sandboxed(inner: str, send: Send) -> Send:
    """Files that somebody uploaded are shown without our origin: an HTML artifact could otherwise act as its reader."""
    if not _SERVES_FILES.fullmatch(inner):
        return send

    async def send_sandboxed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", []), (b"content-security-policy", b"sandbox")]
            message = {**message, "headers": headers}
        await send(message)

    return send_sandboxed
