"""The isolated runtime: the original model in a child process with the version's own environment.

One thread of ours owns the child, starts it and talks to it, since Linux ends a child whose parent *thread* ends. It
takes whatever waits as one batch: one call of scikit-learn costs as much for a hundred rows as for one. So the callers
that were answered together are given a moment to come back together; a single caller waits for nobody.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from relevo.errors import JobFailed, Overloaded, Unavailable
from relevo.platform.encoding import to_json
from relevo.runtimes.batches import BatchCounts
from relevo.runtimes.call_times import CallTimes
from relevo.runtimes.isolated_process import ChildProcess
from relevo.runtimes.messages import Closed, Question, TimedOut
from relevo.runtimes.model import Signature

_log = logging.getLogger(__name__)

#: Rows that one call of the model gets at most.
MAX_BATCH = 1_024
#: Rows that may wait; a request beyond is refused.
MAX_WAITING = 20_000

#: How long a call waits for callers that are expected: a share of what any call costs, and at most so many seconds.
LINGER_SHARE = 0.2
MOST_LINGER_SECONDS = 0.005

#: How long requests are refused after a child that did not start.
START_AGAIN_SECONDS = 5.0
#: How often a child's memory is looked at, at most, and whether its successor is ready.
LOOK_SECONDS = 0.05
#: A child whose model takes more than its limit from the start is replaced when it has grown by this.
GROWN = 1.5

Rows = Sequence[Sequence[object]]
Predictions = list[float] | list[list[float]]


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What the child may take: seconds of one call, and bytes of memory that it shares with nobody."""

    call_seconds: float = 10.0
    bytes: int | None = None


class IsolatedRuntime:
    """Answers rows with the original model, in a child that is replaced when it hangs, dies or grows too large.

    One that has grown is replaced between two calls, by a child that has loaded the model already.

    Thread-safe. A batch in which a request fails is asked again request by request, so that only the guilty one fails.

    Args:
        folder: The verified bundle, with the MLflow model in ``model/``.
        signature: Its inputs.
        python: Interpreter of the version's environment; default: this one.
        limits: What the child may take.
        start_limit_seconds: How long the child may take to load the model.
        explains: Whether it answers with contributions, in the flat form of ``explanation.sampled``, request by
            request.

    Attributes:
        limits: May be set at any time.
        batches: Where its batches are counted; may be set at any time.
        starts: Children that were started.
        replaced: Those that took the place of one that hung, died or grew.

    Raises:
        Unavailable: The child does not start.
    """

    def __init__(
        self,
        folder: Path,
        signature: Signature,
        *,
        python: Path | None = None,
        limits: ProcessLimits = ProcessLimits(),
        start_limit_seconds: float = 120.0,
        explains: bool = False,
    ) -> None:
        self._folder = folder
        self._signature = to_json(signature)
        self._python = python or Path(sys.executable)
        self.limits = limits
        self._start_limit = start_limit_seconds
        self._explains = explains
        self._times = CallTimes(1 if explains else MAX_BATCH)
        self._called: tuple[float, float] | None = None
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._waiting = 0
        self._callers = 1
        self._awaited = sys.maxsize
        self._gathered = threading.Event()
        self._lock = threading.Lock()
        self._is_closed = False
        self._child: ChildProcess | None = None
        self._successor: ChildProcess | None = None
        self._start_after = 0.0
        self._look_after = 0.0
        self.batches = BatchCounts()
        self.starts = 0
        self.replaced = 0
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

    async def predict_async(self, rows: Rows, until: float | None = None) -> Predictions:
        """As ``predict``, for an event loop. After ``until``, on the monotonic clock, nobody waits for the answer."""
        return await asyncio.wrap_future(self._submit(rows, until))

    @property
    def waiting_rows(self) -> int:
        """Rows that wait for the next call."""
        return self._waiting

    def expected_wait(self) -> float:
        """Seconds until a request that comes now has its turn, as far as the calls before can tell; thread-safe.

        A call that takes longer than expected is expected to take as long again.
        """
        seconds = self._times.expected(self._waiting) if self._waiting else 0.0
        called = self._called
        if called is None:
            return seconds
        elapsed = monotonic() - called[0]
        return seconds + (called[1] - elapsed if elapsed < called[1] else elapsed)

    def explain(self, rows: Rows) -> None:
        """Another child does that, so that it holds up no prediction."""

    def close(self) -> None:
        """End the child. Requests that wait are refused. Calling it twice is harmless."""
        with self._lock:
            self._is_closed = True
        self._queue.put(None)
        self._thread.join(timeout=10)

    def _submit(self, rows: Rows, until: float | None = None) -> Future[Predictions]:
        request = _Request(rows, until)
        with self._lock:
            if self._is_closed:
                raise Unavailable("The model's process is closed.")
            if self._waiting + len(rows) > MAX_WAITING:
                raise Overloaded(f"{self._waiting} rows wait for the model, the limit is {MAX_WAITING}.")
            self._waiting += len(rows)
            self._queue.put(request)
            if self._queue.qsize() >= self._awaited:
                self._gathered.set()
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
                rows = sum(len(request.rows) for request in batch)
                now = monotonic()
                if batch:
                    self.batches.add(rows, [(now - request.since) * 1000 for request in batch])
                self._called = now, self._times.expected(rows)
                self._answer(batch)
                self._called = None
                self._look()
        finally:
            self._stop()
            if self._successor is not None:
                self._successor.stop()
            with self._lock:
                self._is_closed = True
            while not self._queue.empty():
                if (request := self._queue.get()) is not None:
                    request.fail(Unavailable("The model's process is closed."))

    def _take(self) -> list[_Request] | None:
        """The next batch: one request, and what waits behind it. None at the end."""
        request = self._next()
        self._linger()
        batch: list[_Request] = []
        rows = 0
        while request is not None:
            if request.future.set_running_or_notify_cancel():
                batch.append(request)
            rows += len(request.rows)
            if rows >= self._times.largest_rows or self._queue.empty():
                break
            request = self._queue.get()
        with self._lock:
            self._waiting -= rows
        if request is None:
            self._queue.put(None)
            return batch or None
        return batch

    def _linger(self) -> None:
        """Wait a moment until as many requests are here as there were callers at the last call."""
        others = self._callers - 1
        if others == 0 or self._waiting >= self._times.largest_rows:
            return
        with self._lock:
            if self._queue.qsize() >= others:
                return
            self._awaited = others
            self._gathered.clear()
        self._gathered.wait(min(LINGER_SHARE * self._times.fixed_seconds, MOST_LINGER_SECONDS))
        self._awaited = sys.maxsize

    def _next(self) -> _Request | None:
        while self._successor is not None:
            try:
                return self._queue.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                self._succeed()
        return self._queue.get()

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
                if request.is_late:
                    request.fail(error)
                else:
                    self._answer([request])
            return
        self._callers = len(batch) + self._queue.qsize()  # before their answers bring them back
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
            began, limit = monotonic(), self.limits.call_seconds
            try:
                answer = self._child.ask(Question(rows, self._explains), limit)
            except TimedOut:
                if not self._times.knows(len(rows)):  # of a size that it has answered before, it hangs
                    self._times.add(len(rows), limit)
                self._stop()
                self.replaced += 1
                _log.warning(
                    "the process of the model in %s took longer than %g s, and is replaced", self._folder, limit
                )
                raise Unavailable(f"The model took longer than {limit:g} s.") from None
            except Closed:
                ending = self._stop()
                self.replaced += 1
                _log.warning("the process of the model in %s died: %s", self._folder, ending)
                if attempt + 1 == attempts:
                    raise Unavailable(f"The model's process died: {ending}.") from None
            else:
                if self._child.is_warm:  # the first call pays for what only it has to make
                    self._times.add(len(rows), monotonic() - began)
                self._child.is_warm = True
                if answer.error is not None:
                    raise JobFailed(f"The model refused the request: {answer.error}")
                return answer.predictions or []  # type: ignore[return-value]
        raise AssertionError("unreachable")

    def _start(self) -> None:
        if monotonic() < self._start_after:
            raise Unavailable("The model's process did not start; it is tried again in a few seconds.")
        self._start_after = monotonic() + START_AGAIN_SECONDS
        child, self._successor = self._successor or self._spawn(), None
        child.await_ready(self._start_limit)
        self._start_after = 0.0
        self._child = child

    def _spawn(self) -> ChildProcess:
        child = ChildProcess(self._folder, self._signature, self._python)
        self.starts += 1
        return child

    def _stop(self) -> str:
        child, self._child = self._child, None
        return "it was not running" if child is None else child.stop()

    def _look(self) -> None:
        """Between two calls: start a successor of a child that has grown too large, and let it take over."""
        child, limit, now = self._child, self.limits.bytes, monotonic()
        if now < self._look_after:
            return
        self._look_after = now + LOOK_SECONDS
        if self._successor is not None:
            self._succeed()
        elif child is not None and limit is not None and now >= self._start_after:
            taken = child.bytes
            if taken > max(limit, GROWN * child.loaded_bytes):
                _log.warning(
                    "the process of the model in %s takes %d bytes, the limit is %d: it is replaced",
                    *(self._folder, taken, limit),
                )
                self._successor = self._spawn()

    def _succeed(self) -> None:
        """Let the successor take over when it is ready; when it is none, the child goes on for a while."""
        successor = self._successor
        if successor is None or not successor.has_spoken:
            return
        self._successor = None
        try:
            successor.await_ready(self._start_limit)
        except Unavailable as error:
            _log.error("%s", error.message)
            self._start_after = monotonic() + START_AGAIN_SECONDS
            return
        self.replaced += 1
        grown, self._child = self._child, successor
        if grown is not None:
            grown.stop()


class _Request:
    """Rows that wait, and where their answers go."""

    def __init__(self, rows: Rows, until: float | None) -> None:
        self.rows = rows
        self.until = until
        self.since = monotonic()
        self.future: Future[Predictions] = Future()

    @property
    def is_late(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.until is not None and monotonic() >= self.until

    def fail(self, error: Exception) -> None:
        """Gives the error to who waits."""
        if self.future.running() or self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)
