"""The isolated runtime: the original model in a child process with the version's own environment.

One thread of ours owns the child, starts it and talks to it, since Linux ends a child whose parent *thread* ends. It
takes whatever waits as one batch: one call of scikit-learn costs as much for a hundred rows as for one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import relevo
from relevo.errors import JobFailed, Overloaded, Unavailable
from relevo.platform.encoding import to_json
from relevo.runtimes.messages import Answer, Closed, Question, TimedOut, receive, send
from relevo.runtimes.model import Signature

_log = logging.getLogger(__name__)

#: Rows that one call of the model gets at most.
MAX_BATCH = 1_024
#: Rows that may wait; a request beyond is refused.
MAX_WAITING = 20_000

#: How long requests are refused after a child that did not start.
START_AGAIN_SECONDS = 5.0

Rows = Sequence[Sequence[object]]
Predictions = list[float] | list[list[float]]


class IsolatedRuntime:
    """Answers rows with the original model, in a child that is replaced when it hangs or dies.

    Thread-safe. A batch in which a request fails is asked again request by request, so that only the guilty one fails.

    Args:
        folder: The verified bundle, with the MLflow model in ``model/``.
        signature: Its inputs.
        python: Interpreter of the version's environment; default: this one.
        time_limit_seconds: How long one call of the model may take.
        start_limit_seconds: How long the child may take to load the model.
        explains: Whether it answers with contributions, in the flat form of ``explanation.sampled``, request by
            request.

    Raises:
        Unavailable: The child does not start.
    """

    def __init__(
        self,
        folder: Path,
        signature: Signature,
        *,
        python: Path | None = None,
        time_limit_seconds: float = 10.0,
        start_limit_seconds: float = 120.0,
        explains: bool = False,
    ) -> None:
        self._folder = folder
        self._signature = to_json(signature)
        self._python = python or Path(sys.executable)
        self._time_limit = time_limit_seconds
        self._start_limit = start_limit_seconds
        self._explains = explains
        self._max_batch = 1 if explains else MAX_BATCH
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._is_closed = False
        self._child: _Child | None = None
        self._start_after = 0.0
        self.starts = 0
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="isolated-runtime", daemon=True)
        self._thread.start()
        started.result()

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        child = self._child
        return None if child is None else child.process.pid

    def predict(self, rows: Rows) -> Predictions:
        """Answers ``(n_rows,)`` or ``(n_rows, n_classes)``; waits for the child.

        Raises:
            JobFailed: The model raised; the message is its own.
            Overloaded: Too many rows wait.
            Unavailable: The model took longer than its limit, or its process died twice on this request.
        """
        return self._submit(rows).result()

    async def predict_async(self, rows: Rows) -> Predictions:
        """As ``predict``, for an event loop."""
        return await asyncio.wrap_future(self._submit(rows))

    def explain(self, rows: Rows) -> None:
        """Another child does that, so that it holds up no prediction."""

    def close(self) -> None:
        """End the child. Requests that wait are refused. Calling it twice is harmless."""
        with self._lock:
            self._is_closed = True
        self._queue.put(None)
        self._thread.join(timeout=10)

    def _submit(self, rows: Rows) -> Future[Predictions]:
        request = _Request(rows)
        with self._lock:
            if self._is_closed:
                raise Unavailable("The model's process is closed.")
            if self._waiting + len(rows) > MAX_WAITING:
                raise Overloaded(f"{self._waiting} rows wait for the model, the limit is {MAX_WAITING}.")
            self._waiting += len(rows)
            self._queue.put(request)
        return request.future

    def _run(self, started: Future[None]) -> None:
        """The owning thread, from the child's start to its end."""
        try:
            self._start()
            started.set_result(None)
        except Exception as error:
            started.set_exception(error)
            return
        try:
            while (batch := self._take()) is not None:
                self._answer(batch)
        finally:
            self._stop()
            with self._lock:
                self._is_closed = True
            while not self._queue.empty():
                if (request := self._queue.get()) is not None:
                    request.fail(Unavailable("The model's process is closed."))

    def _take(self) -> list[_Request] | None:
        """The next batch: one request, and what waits behind it. None at the end."""
        request = self._queue.get()
        batch: list[_Request] = []
        rows = 0
        while request is not None:
            if request.future.set_running_or_notify_cancel():
                batch.append(request)
            rows += len(request.rows)
            if rows >= self._max_batch or self._queue.empty():
                break
            request = self._queue.get()
        with self._lock:
            self._waiting -= rows
        if request is None:
            self._queue.put(None)
            return batch or None
        return batch

    def _answer(self, batch: list[_Request]) -> None:
        if not batch:
            return
        try:
            answers = self._ask([row for request in batch for row in request.rows], attempts=2 - (len(batch) > 1))
        except Exception as error:
            if len(batch) == 1:
                batch[0].fail(error)
                return
            for request in batch:
                self._answer([request])
            return
        place = 0
        for request in batch:
            request.future.set_result(answers[place : place + len(request.rows)])
            place += len(request.rows)

    def _ask(self, rows: Rows, attempts: int) -> Predictions:
        """One call of the model. A child that dies is replaced; the call is repeated, since asking changes nothing."""
        for attempt in range(attempts):
            if self._child is None:
                self._start()
            assert self._child is not None
            try:
                answer = self._child.ask(Question(rows, self._explains), self._time_limit)
            except TimedOut:
                self._stop()
                raise Unavailable(f"The model took longer than {self._time_limit:g} s.") from None
            except Closed:
                ending = self._stop()
                _log.warning("the process of the model in %s died: %s", self._folder, ending)
                if attempt + 1 == attempts:
                    raise Unavailable(f"The model's process died: {ending}.") from None
            else:
                if answer.error is not None:
                    raise JobFailed(f"The model refused the request: {answer.error}")
                return answer.predictions or []  # type: ignore[return-value]
        raise AssertionError("unreachable")

    def _start(self) -> None:
        if time.monotonic() < self._start_after:
            raise Unavailable("The model's process did not start; it is tried again in a few seconds.")
        self._start_after = time.monotonic() + START_AGAIN_SECONDS
        child = _Child(self._folder, self._signature, self._python)
        try:
            ready = child.receive(self._start_limit)
        except (TimedOut, Closed):
            ending = child.stop()
            raise Unavailable(f"The model's process did not start: {ending}.") from None
        if ready.error is not None:
            child.stop()
            raise Unavailable(f"The model's process did not start: {ready.error}")
        self.starts += 1
        self._start_after = 0.0
        self._child = child

    def _stop(self) -> str:
        child, self._child = self._child, None
        return "it was not running" if child is None else child.stop()


class _Request:
    """Rows that wait, and where their answers go."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.future: Future[Predictions] = Future()

    def fail(self, error: Exception) -> None:
        """Gives the error to who waits."""
        if self.future.running() or self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class _Child:
    """The child process and the socket to it."""

    def __init__(self, folder: Path, signature: dict[str, Any], python: Path) -> None:
        ours, theirs = socket.socketpair()
        self.socket = ours
        with theirs:
            self.process = subprocess.Popen(
                [
                    *(str(python), "-m", "relevo.runtimes.isolated_child"),
                    *(str(folder), str(theirs.fileno()), str(os.getpid())),
                ],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=2,  # what the model prints belongs to the log
                env=_environment(),
                cwd=folder,
                start_new_session=True,
            )
        send(ours, signature)

    def ask(self, question: Question, limit_seconds: float) -> Answer:
        """One call of the model."""
        self.socket.settimeout(limit_seconds)
        try:
            send(self.socket, question)
        except TimeoutError:
            raise TimedOut from None
        except OSError:
            raise Closed from None
        return self.receive(limit_seconds)

    def receive(self, limit_seconds: float) -> Answer:
        """The next answer of the child."""
        return receive(self.socket, Answer, time.monotonic() + limit_seconds)

    def stop(self) -> str:
        """Ends the child and says how it ended."""
        self.socket.close()
        code = self.process.poll()
        if code is None:
            # Its socket is closed, so it may be ending by itself with a code that says why.
            try:
                code = self.process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
                return "it was ended"
        return f"signal {-code}" if code < 0 else f"exit status {code}"


def _environment() -> dict[str, str]:
    """Nothing of ours but what a process needs: no token or address reaches the model."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ") if name in os.environ}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    root = Path(relevo.__file__).parents[1]
    # An installed package is found through the environment itself; its pins must not be shadowed.
    path = {} if root.name == "site-packages" else {"PYTHONPATH": str(root)}
    return kept | threads | path | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
