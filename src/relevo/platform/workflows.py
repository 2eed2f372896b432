"""Durable workflows: each step is recorded, and after a crash the next start goes on at the unfinished one.

The only module that imports dbos. Workflows are async functions that run on a loop of their own thread, so that the
web application's loop stays free; their steps are sync functions that run in threads. What a workflow takes, what its
steps return and what is sent to it is plain JSON: references and small facts, never data.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, Serializer, SetWorkflowID
from dbos import error as dbos_error

from relevo.errors import Conflict, NotFound, Overloaded, RelevoError, Unavailable
from relevo.platform import sqlite
from relevo.platform.activities import Activities, ActivityState
from relevo.platform.encoding import to_json
from relevo.platform.recorded_errors import Cancelled, StepFailed, error_from_json, error_to_json
from relevo.platform.settings import Settings
from relevo.platform.state import State

logger = logging.getLogger(__name__)

#: Raised when the order of steps in a registered workflow changes. Left to itself DBOS hashes the source, and a run
#: that was begun by another version is never taken up again.
WORKFLOW_VERSION = "2"
_APPLICATION = "relevo"
_INBOX = "inbox"
_CANCEL = "relevo.cancel"
_RETRY_SECONDS = 1.0
_LAUNCH_WITHIN_SECONDS = 30.0

T = TypeVar("T")
WorkflowFunction = Callable[..., Awaitable[object]]
_inbox: contextvars.ContextVar[list[dict[str, Any]]] = contextvars.ContextVar("inbox")


@dataclass(frozen=True, slots=True)
class WorkflowStatus:
    """Where a workflow stands. ``output`` is set when it succeeded, ``error`` when it failed."""

    workflow_id: str
    name: str
    state: Literal["running", "succeeded", "failed"]
    output: Any
    error: Exception | None


class _Stopping(BaseException):
    """Ends a step in flight at shutdown without a record, so that the next start runs it again."""


class _JsonSerializer(Serializer):
    """JSON instead of the pickle default, with our errors by their code."""

    def name(self) -> str:
        return "relevo_json"

    def serialize(self, data: Any) -> str:
        if isinstance(data, Exception):
            data = {"$error": error_to_json(data)}
        return json.dumps(to_json(data), separators=(",", ":"))

    def deserialize(cls, serialized_data: str) -> Any:  # noqa: N805  # the base class names it so
        data = json.loads(serialized_data)
        return error_from_json(data["$error"]) if isinstance(data, dict) and "$error" in data else data


class Workflows:
    """Runs registered workflows durably. One per process; thread-safe after ``launch``.

    Args:
        settings: Where ``dbos.db`` lives, or the PostgreSQL database.
        state: Holds the activities.
        executor_id: Name of this process's share of the runs; the same after a restart, so that it takes them up.
        poll_seconds: Longest delay between a message and the wait that it ends, on SQLite.
    """

    def __init__(
        self, settings: Settings, state: State, *, executor_id: str = "control", poll_seconds: float = 0.25
    ) -> None:
        self.activities = Activities(state)
        self._url = settings.database("dbos")
        self._executor_id = executor_id
        self._poll_seconds = poll_seconds
        self._functions: dict[str, WorkflowFunction] = {}
        self._registered: dict[str, Any] = {}
        self._on_close: list[Callable[[], None]] = []
        self._client: DBOSClient | None = None
        self._client_lock = threading.Lock()
        self._launched = threading.Event()
        self._closing = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def register(self, name: str) -> Callable[[WorkflowFunction], WorkflowFunction]:
        """Decorate an async function, or a bound method, as the workflow ``name``. Before ``launch`` only."""

        def decorate(function: WorkflowFunction) -> WorkflowFunction:
            if self._loop is not None or name in self._functions:
                raise Conflict(f"Workflow {name} must be registered once, before the launch.")
            self._functions[name] = function
            return function

        return decorate

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` at close, once steps in flight can no longer be recorded: it ends what they wait for."""
        self._on_close.append(callback)

    @property
    def is_closing(self) -> bool:
        """Whether the process is about to end: work should stop, not fail."""
        return self._closing.is_set()

    def launch(self) -> None:
        """Open the database, and take up the unfinished runs of this executor within a second. Blocks about 0.5 s."""
        if self._url.startswith("sqlite"):
            sqlite.prepare(Path(sa.make_url(self._url).database or ""))
        _route_logs()
        DBOS(config=self._config())  # type: ignore[arg-type]
        self._registered = {name: self._durable(name, function) for name, function in self._functions.items()}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relevo-workflows", daemon=True)
        self._thread.start()
        # On that loop: DBOS then runs its coroutines there, and leaves the caller's loop alone.
        self._on_loop(_launch())
        self._launched.set()
        self._settle_activities()

    def close(self) -> None:
        """Stop. Runs in flight stay unfinished, and go on at the next launch; steps in flight are not recorded."""
        self._closing.set()
        for callback in self._on_close:
            callback()
        loop, thread = self._loop, self._thread
        if loop is not None and thread is not None:
            self._on_loop(_cancel_all())
            DBOS.destroy(destroy_registry=True)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout=10)
            loop.close()
        with self._client_lock:
            if self._client is not None:
                self._client.destroy()
                self._client = None
        self._loop = self._thread = None

    def start(self, name: str, workflow_id: str, /, **arguments: object) -> None:
        """Start a workflow under an id; the same id again changes nothing. Not from a workflow's own coroutine.

        Raises:
            NotFound: When no such workflow is registered.
            Conflict: When the id belongs to a workflow of another name.
            Unavailable: When the launch is still under way after half a minute.
        """
        if name not in self._functions:
            raise NotFound(f"There is no workflow {name}; registered are: {', '.join(sorted(self._functions))}.")
        if not self._launched.wait(_LAUNCH_WITHIN_SECONDS):  # the API answers before the workflows are up
            raise Unavailable(f"The workflows are not up yet, so {workflow_id} was not started; try again in a while.")
        model = arguments.get("model")
        self.activities.begin(workflow_id, name, model if isinstance(model, str) else None)
        try:
            self._on_loop(_start(self._registered[name], workflow_id, to_json(arguments)))
        except dbos_error.DBOSConflictingWorkflowError as error:
            raise Conflict(f"Workflow id {workflow_id} is taken by another workflow: {error}") from error

    def send(self, workflow_id: str, topic: str, message: object, *, once: str | None = None) -> None:
        """Send a JSON message; it is kept until the workflow receives it, also while no process runs it.

        Args:
            workflow_id: Who receives.
            topic: Matches the ``topic`` of the ``recv``.
            message: JSON, not None.
            once: The same key again sends nothing.

        Raises:
            NotFound: When there is no such workflow.
        """
        # Working from now on, so that a replay driver cannot slip through before the wake-up.
        self.activities.wake(workflow_id)
        try:
            self._reach().send(workflow_id, {"topic": topic, "message": to_json(message)}, _INBOX, once)
        except dbos_error.DBOSNonExistentWorkflowError as error:
            raise NotFound(f"There is no workflow {workflow_id}.") from error

    def cancel(self, workflow_id: str, reason: str) -> None:
        """Ask a workflow to stop: it raises ``Cancelled`` at its present or next wait, durably, so it can undo."""
        self.send(workflow_id, _CANCEL, reason)

    def status(self, workflow_id: str) -> WorkflowStatus:
        """Where a workflow stands.

        Raises:
            NotFound: When there is no such workflow.
        """
        rows = self._reach().list_workflows(workflow_ids=[workflow_id])
        if not rows:
            raise NotFound(f"There is no workflow {workflow_id}.")
        row = rows[0]
        state: Literal["running", "succeeded", "failed"] = "failed"
        if row.status in ("PENDING", "ENQUEUED", "DELAYED"):
            state = "running"
        elif row.status == "SUCCESS":
            state = "succeeded"
        return WorkflowStatus(workflow_id, row.name, state, row.output, row.error)

    def wait(self, workflow_id: str, timeout_seconds: float) -> WorkflowStatus:
        """The status once the workflow has ended, or after the time-out."""
        deadline = time.monotonic() + timeout_seconds
        while (status := self.status(workflow_id)).state == "running" and time.monotonic() < deadline:
            time.sleep(0.02)
        return status

    @property
    def workflow_id(self) -> str:
        """Id of the workflow that calls; also known inside its steps."""
        workflow_id = DBOS.workflow_id
        assert workflow_id is not None
        return workflow_id

    async def step(
        self,
        function: Callable[..., object],
        *arguments: object,
        name: str | None = None,
        retries: int = 0,
        **keywords: object,
    ) -> Any:
        """What ``function`` gave, as JSON; run in a thread once, recorded, and never run again.

        A step that was in flight when the process died runs again, so it must be idempotent under ``workflow_id``.
        Errors of ours keep their class and message after a restart; others become ``StepFailed``. ``Unavailable`` and
        ``Overloaded`` are tried ``retries`` more times, a second apart at first.
        """

        def run() -> Any:
            return self._attempt(lambda: function(*arguments, **keywords), retries)

        return await DBOS.run_step_async({"name": name or getattr(function, "__name__", "step")}, run)

    async def now(self) -> datetime:
        """The wall clock, recorded."""
        return datetime.fromtimestamp(await self.step(time.time, name="now"), UTC)

    async def recv(self, topic: str, timeout_seconds: float, *, waits_for: str = "") -> Any:
        """The next message on ``topic``, or None when the time is over. The deadline survives a restart.

        Args:
            topic: Messages of other topics are kept for a later call.
            timeout_seconds: May be days.
            waits_for: Shown to people while it waits: "approval of flight-delay/3 by a second person".

        Raises:
            Cancelled: When a person asked the workflow to stop.
        """
        kept = _inbox.get()
        for index, message in enumerate(kept):
            if message["topic"] == topic:
                return kept.pop(index)["message"]
        deadline = (await self.now()).timestamp() + timeout_seconds
        await self.report(waits_for, ActivityState.WAITING)
        while True:
            message = await DBOS.recv_async(_INBOX, timeout_seconds=max(0.0, deadline - time.time()))
            if message is not None and message["topic"] not in (topic, _CANCEL):
                kept.append(message)
                await self.report(waits_for, ActivityState.WAITING)
                continue
            await self.report("")
            if message is not None and message["topic"] == _CANCEL:
                raise Cancelled(str(message["message"]))
            return None if message is None else message["message"]

    async def sleep(self, seconds: float, *, waits_for: str = "") -> None:
        """Wait on the wall clock; what is left survives a restart. Raises ``Cancelled`` like ``recv``."""
        await self.recv("relevo.sleep", seconds, waits_for=waits_for)

    async def report(self, text: str, state: ActivityState = ActivityState.WORKING) -> None:
        """Say what the workflow does now. Not recorded: it is said again when it runs again."""
        await asyncio.to_thread(self.activities.set, self.workflow_id, state, text)

    def _config(self) -> dict[str, object]:
        return {
            "name": _APPLICATION,
            "system_database_url": self._url,
            "application_version": WORKFLOW_VERSION,
            "executor_id": self._executor_id,
            "serializer": _JsonSerializer(),
            "log_level": "WARNING",
            "sys_db_pool_size": 10,
            "notification_listener_polling_interval_sec": self._poll_seconds,
        }

    def _durable(self, name: str, function: WorkflowFunction) -> Any:
        # A release that waits through many restarts is healthy; one that kills the process each time is not.
        @DBOS.workflow(name=name, max_recovery_attempts=1000)
        async def run(**arguments: Any) -> Any:
            _inbox.set([])
            await self.report("")
            try:
                result = to_json(await function(**arguments))
            except Exception as error:
                logger.warning("workflow %s %s failed: %s", name, self.workflow_id, error)
                await self.report(str(error), ActivityState.DONE)
                raise
            await self.report("", ActivityState.DONE)
            return result

        return run

    def _attempt(self, function: Callable[[], object], retries: int) -> Any:
        for attempt in range(retries + 1):
            try:
                return to_json(function())
            except Exception as error:
                if self._closing.is_set():
                    raise _Stopping from error
                if isinstance(error, Unavailable | Overloaded) and attempt < retries:
                    self._closing.wait(_RETRY_SECONDS * 2**attempt)
                    continue
                if isinstance(error, RelevoError):
                    raise
                logger.exception("a step of workflow %s raised", self.workflow_id)
                raise StepFailed(f"{type(error).__name__}: {error}") from error
        raise AssertionError("unreachable")

    def _on_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run on the workflows' loop from another thread, free of the caller's workflow context."""
        loop = self._loop
        if loop is None or threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("launch the workflows first, and call this from a step or a thread of the application")
        return contextvars.Context().run(asyncio.run_coroutine_threadsafe, coroutine, loop).result()

    def _reach(self) -> DBOSClient:
        """A client on the database: it works in every thread, and before the launch."""
        with self._client_lock:
            if self._client is None:
                self._client = DBOSClient(
                    system_database_url=self._url, serializer=_JsonSerializer(), application_name=_APPLICATION
                )
            return self._client

    def _settle_activities(self) -> None:
        """Activities of runs that ended, or never began, because the process died between two databases."""
        for activity in self.activities.open():
            try:
                is_running = self.status(activity.workflow_id).state == "running"
            except NotFound:
                is_running = False
            if not is_running:
                self.activities.set(activity.workflow_id, ActivityState.DONE)


async def _launch() -> None:
    DBOS.launch()


async def _start(function: Any, workflow_id: str, arguments: dict[str, Any]) -> None:
    with SetWorkflowID(workflow_id):
        await DBOS.start_workflow_async(function, **arguments)


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=5)


def _route_logs() -> None:
    """Into this process's log: without a handler of its own DBOS would write to the console."""
    theirs = logging.getLogger("dbos")
    if not theirs.handlers:
        theirs.addHandler(logging.NullHandler())
    theirs.propagate = True
    theirs.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Not the traceback of a failed workflow: its failure is logged here in one line."""
    return not record.getMessage().startswith("Exception encountered in asynchronous workflow")
