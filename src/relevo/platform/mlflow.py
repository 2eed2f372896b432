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
import warnings
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relevo.errors import Invalid, NotAllowed, NotFound, RelevoError, Unavailable
from relevo.platform.mlflow_models import RegisteredVersion, find_version
from relevo.platform.settings import Settings

logger = logging.getLogger(__name__)

PREFIX = "/mlflow"
ARTIFACT_ROOT = "mlflow-artifacts:/"
START_WITHIN_SECONDS = 90.0

#: What a client and the tracking UI need. Everything else is refused: assistant, gateway, jobs, webhooks, MCP, scorers
#: and secrets run code, call other hosts or keep keys; uploads by another way than ``mlflow-artifacts`` (in parts,
#: presigned, ``upload-artifact``) would go round the check that artifacts are written once.
_CONCEPTS = (
    r"experiments/.+|runs/(?!create-promptlab-run).+|metrics/.+|artifacts/list|datasets/.+|logged-models(?:/.+)?"
    r"|registered-models/.+|model-versions/.+|traces(?:/.+)?|unified-traces|server-info|ui-telemetry"
)
_ALLOWED = re.compile(
    rf"/(?:api|ajax-api)/[23]\.0/mlflow/(?:{_CONCEPTS})|/(?:api|ajax-api)/2\.0mlflow/experiments/search-datasets"
    r"|/(?:api|ajax-api)/2\.0/mlflow-artifacts/artifacts(?:/.+)?"
    r"|/(?:get-artifact|model-versions/get-artifact|graphql|health|version|static-files/.+)?"
)
_READING_POSTS = re.compile(
    r".*/(?:search|search-datasets|get-latest-versions|batchGetInfos|calculate-filter-correlation|ui-telemetry)"
    r"|.*/traces/metrics|/graphql"
)
#: Empty or dotted segments, what would be decoded once more, other separators, control characters.
_TRICKS = re.compile(r"//|/\.{1,2}(?:/|$)|\\|[\x00-\x1f\x7f]")
_ARTIFACT = re.compile(r"/(?:api|ajax-api)/2\.0/mlflow-artifacts/artifacts(?:/(?P<path>.*))?")
#: Below an experiment's folder. A first segment like ``file:`` would be read as a URL.
_ARTIFACT_PATH = re.compile(r"[\w-]+/.+")
_OWN_ARTIFACTS = re.compile(r"mlflow-artifacts:(?:/(?!\.)[^/?#%]+){3,}/?|models:/[^/?#]+(?:/[^/?#]+)?")
_SERVES_FILES = re.compile(r"/(?:model-versions/)?get-artifact|.*/mlflow-artifacts/artifacts/.*|.*/artifacts/files")

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
        inner = path.removeprefix(PREFIX) or "/"
        writes = scope["method"] not in {"GET", "HEAD"} and not _READING_POSTS.fullmatch(inner)
        try:
            check_path(inner)
            await self._authorise(Request(scope, receive), writes)
            app = await self._server.started()
            if writes and (found := _ARTIFACT.fullmatch(inner)) is not None:
                is_delete = scope["method"] == "DELETE"
                await asyncio.to_thread(self._server.check_write_once, found["path"] or "", is_delete=is_delete)
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


def check_path(inner: str) -> None:
    """Let through the paths below the prefix that were looked at.

    Args:
        inner: The path after the prefix, decoded once, as the server gives it.

    Raises:
        NotFound: It is none of them, or it could be read as another path.
    """
    if not _ALLOWED.fullmatch(inner) or _TRICKS.search(inner) or unquote(inner) != inner:
        raise NotFound(f"Relevo does not offer {PREFIX}{inner[:200]} of MLflow.")


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
        self._registry: Any = None
        self._tracking: Any = None

    async def started(self) -> ASGIApp:
        """MLflow's application; the first call starts it, and the others wait.

        Raises:
            Unavailable: It does not come up, or not in time. The next call after a failure tries again.
        """
        if self._starting is None or (self._starting.done() and _has_failed(self._starting)):
            self._starting = asyncio.create_task(asyncio.to_thread(self._start))
        try:
            return await asyncio.wait_for(asyncio.shield(self._starting), START_WITHIN_SECONDS)
        except TimeoutError:
            raise Unavailable(f"MLflow did not come up within {START_WITHIN_SECONDS:.0f} s.") from None
        except Exception as error:
            logger.exception("MLflow did not come up")
            raise Unavailable(f"MLflow did not come up: {type(error).__name__}; the log says more.") from error

    async def version(self, uri: str, name: str | None = None) -> RegisteredVersion:
        """The registered version that ``uri`` names; the model of a run is registered under ``name``.

        Raises:
            Invalid: It is no address of a model here, or a name is missing.
            NotFound: There is no such version.
            Unavailable: MLflow does not come up.
        """
        await self.started()
        return await asyncio.to_thread(find_version, self._registry, self._tracking, uri, name)

    @property
    def artifacts(self) -> Path:
        """The root of all artifacts."""
        return self._settings.folder("mlartifacts")

    def check_write_once(self, path: str, *, is_delete: bool) -> None:
        """Refuse to change an artifact of a registered version.

        Args:
            path: Below the root of all artifacts.
            is_delete: Whether the file or folder is to go; else the file is to be written.

        Raises:
            NotAllowed: A version was registered from the folder that it lies in, or from one inside it.
            Invalid: It is not a path below an experiment.
        """
        path = path.rstrip("/")
        if not _ARTIFACT_PATH.fullmatch(path):
            raise Invalid(f"The path of an artifact is EXPERIMENT/..., got {path[:200]!r}.", field="path")
        if not (self.artifacts / path).exists():
            return
        for folder in self._registered_folders():
            if f"{path}/".startswith(f"{folder}/") or (is_delete and folder.startswith(f"{path}/")):
                raise NotAllowed(f"{path} belongs to a registered version, and its artifacts never change.")

    def _registered_folders(self) -> set[str]:
        """The folders, below the root, that versions were registered from; of governed models and others."""
        from mlflow.store.model_registry.dbmodels.models import SqlModelVersion

        with self._registry.ManagedSessionMaker() as session:
            rows: Iterable[tuple[str | None, str | None]] = session.query(
                SqlModelVersion.source, SqlModelVersion.storage_location
            ).all()
        places = {place for row in rows for place in row if place and place.startswith("mlflow-artifacts:")}
        return {place.removeprefix("mlflow-artifacts:").strip("/") for place in places}

    def _start(self) -> ASGIApp:
        database = _own_database(self._settings.database("mlflow"))
        os.environ |= {
            "_MLFLOW_SERVER_FILE_STORE": database,
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(self.artifacts),
            "_MLFLOW_SERVER_ARTIFACT_ROOT": ARTIFACT_ROOT,
            "_MLFLOW_STATIC_PREFIX": PREFIX,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ALLOWED_HOSTS": "*",  # every request carries a token or a same-site session
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mlflow.server import handlers
            from mlflow.server.fastapi_app import app
            from mlflow.tracking._tracking_service import utils

            handlers._tracking_store = self._tracking = _tracking_store(database)
            handlers._model_registry_store = self._registry = _governed_registry(database, self._is_governed)
            utils.set_tracking_uri(database)  # MLflow's registry looks logged models up through its own client
        _protect(self._settings, database)
        logger.info("MLflow is up")
        found: ASGIApp = app
        return found


def _has_failed(task: asyncio.Task[ASGIApp]) -> bool:
    return task.cancelled() or task.exception() is not None


def _own_database(url: str) -> str:
    """In a shared PostgreSQL MLflow gets a schema of its own: some of its tables are named like some of ours."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "postgresql":
        return url
    parsed = parsed.set(drivername="postgresql+psycopg")
    engine = sa.create_engine(parsed)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS mlflow")
    engine.dispose()
    return parsed.update_query_dict({"options": "-csearch_path=mlflow"}).render_as_string(hide_password=False)


def _protect(settings: Settings, database: str) -> None:
    """Only the owner reads the database file; MLflow leaves its mode to the umask."""
    if database.startswith("sqlite"):
        for file in settings.root.glob("mlflow.db*"):
            file.chmod(0o600)


def _tracking_store(database: str) -> Any:
    """MLflow's tracking store, with every artifact below the one root: another place could be any file of this host."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    class TrackingStore(SqlAlchemyStore):  # type: ignore[misc]
        """Refuses experiments that keep their artifacts elsewhere."""

        def create_experiment(self, name: str, artifact_location: str | None = None, tags: Any = None) -> Any:
            if artifact_location:
                raise MlflowException.invalid_parameter_value(
                    f"Experiments keep their artifacts here; leave artifact_location out, got {artifact_location}."
                )
            return super().create_experiment(name, artifact_location, tags)

    return TrackingStore(database, ARTIFACT_ROOT)


def _governed_registry(database: str, is_governed: Callable[[str], bool]) -> Any:
    """MLflow's registry, with what a release decides taken out of everybody else's hands."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    def refuse(name: str, what: str) -> None:
        if is_governed(name):
            raise MlflowException(
                f"{name} is governed by a Relevo contract: releases decide on it, and MLflow may not {what}.",
                PERMISSION_DENIED,
            )

    class GovernedStore(SqlAlchemyStore):  # type: ignore[misc]
        """Refuses stage, alias, rename and delete of governed models, and sources that are not its own artifacts."""

        def rename_registered_model(self, name: str, new_name: str) -> Any:
            refuse(name, "rename it")
            refuse(new_name, "give its name to another model")
            return super().rename_registered_model(name, new_name)

        def delete_registered_model(self, name: str) -> Any:
            refuse(name, "delete it")
            return super().delete_registered_model(name)

        def delete_model_version(self, name: str, version: str) -> Any:
            refuse(name, "delete a version")
            return super().delete_model_version(name, version)

        def transition_model_version_stage(
            self, name: str, version: str, stage: str, archive_existing_versions: bool
        ) -> Any:
            refuse(name, "change a stage")
            return super().transition_model_version_stage(name, version, stage, archive_existing_versions)

        def set_registered_model_alias(self, name: str, alias: str, version: str) -> Any:
            refuse(name, "change an alias")
            return super().set_registered_model_alias(name, alias, version)

        def delete_registered_model_alias(self, name: str, alias: str) -> Any:
            refuse(name, "change an alias")
            return super().delete_registered_model_alias(name, alias)

        def create_model_version(self, name: str, source: str, *args: Any, **kwargs: Any) -> Any:
            if not _OWN_ARTIFACTS.fullmatch(source):
                raise MlflowException.invalid_parameter_value(
                    f"The source of a version is a folder of artifacts or a logged model here, got {source}."
                )
            return super().create_model_version(name, source, *args, **kwargs)

    return GovernedStore(database)


def _sandboxed(inner: str, send: Send) -> Send:
    """Files that somebody uploaded are shown without our origin: an HTML artifact could otherwise act as its reader."""
    if not _SERVES_FILES.fullmatch(inner):
        return send

    async def send_sandboxed(message: Message) -> None:
        if message["type"] == "http.response.start":
            added = [(b"content-security-policy", b"sandbox"), (b"x-content-type-options", b"nosniff")]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return send_sandboxed
