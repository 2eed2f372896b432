"""The children of a run: each has a thread here that gives it one chunk at a time, so no rows wait in a queue."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

from relevo.errors import Invalid, JobFailed
from relevo.platform.encoding import parse
from relevo.platform.jobs import Job
from relevo.scoring.model import Chunk, Part

_ENTRY = "relevo.scoring.child"
#: A child is one of many: threads of its own would only wait for each other.
_ENVIRONMENT = dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
#: How often a chunk is tried by a new child when its child dies.
_ATTEMPTS = 2


class Crew:
    """Scores chunks in child processes. A child that dies is replaced, and its chunk scored again.

    Args:
        python: Interpreter of the version's environment.
        log: What children print.
        opening: What each child is told first.
        total: Rows of the input.
        done: Parts of an earlier command.
        watcher: Told the rows that are done, those of them without a prediction, and ``total``.
    """

    def __init__(
        self,
        *,
        python: Path,
        log: Path,
        opening: Mapping[str, object],
        total: int,
        done: Iterable[Part],
        watcher: Callable[[int, int, int], None],
    ) -> None:
        self._python = python
        self._log = log
        self._opening = dict(opening)
        self._total = total
        self._watcher = watcher
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._jobs: set[Job] = set()
        self._parts: dict[int, Part] = {}
        parts = list(done)
        self._rows, self._failed = sum(part.rows for part in parts), sum(part.failed for part in parts)
        self._in_flight = 0
        self.rows_in_flight = 0
        self.restarts = 0

    def score(self, chunks: Sequence[Chunk], workers: int) -> dict[int, Part]:
        """The parts of the chunks by their number. The first failure ends it; parts that are whole by then stay.

        Raises:
            Invalid: A row cannot be answered, and the run is to fail then.
            JobFailed: A child failed, or died twice on the same chunk.
        """
        self._watcher(self._rows, self._failed, self._total)
        waiting = iter(chunks)
        with ThreadPoolExecutor(min(workers, max(len(chunks), 1)), "scoring") as threads:
            started = [threads.submit(self._work, waiting) for _ in range(min(workers, len(chunks)))]
            try:
                pending = set(started)
                while pending:
                    finished, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                    for each in finished:
                        each.result()
            except BaseException:
                self._stop.set()
                with self._lock:
                    for job in self._jobs:
                        job.kill()
                raise
        return self._parts

    def _work(self, waiting: Iterable[Chunk]) -> None:
        job: Job | None = None
        try:
            while (chunk := self._next(waiting)) is not None:
                for attempt in range(_ATTEMPTS):
                    job = job if job is not None and job.is_alive else self._started(job)
                    try:
                        self._finish(chunk, job.call("score", chunk=chunk))
                        break
                    except JobFailed:
                        if job.is_alive or self._stop.is_set() or attempt + 1 == _ATTEMPTS:
                            raise
                        with self._lock:
                            self.restarts += 1
        finally:
            if job is not None:
                self._ended(job)

    def _next(self, waiting: Iterable[Chunk]) -> Chunk | None:
        with self._lock:
            chunk = None if self._stop.is_set() else next(iter(waiting), None)
            if chunk is not None:
                self._in_flight += chunk.rows
                self.rows_in_flight = max(self.rows_in_flight, self._in_flight)
            return chunk

    def _finish(self, chunk: Chunk, answer: dict[str, object]) -> None:
        if "refused" in answer:
            field = answer["field"]
            hint = "--on-error null writes null for such rows, and says why beside each."
            raise Invalid(str(answer["refused"]), field=None if field is None else str(field), hint=hint)
        part = parse(Part, answer)
        with self._lock:
            self._in_flight -= chunk.rows
            self._parts[chunk.number] = part
            self._rows, self._failed = self._rows + part.rows, self._failed + part.failed
            self._watcher(self._rows, self._failed, self._total)

    def _started(self, before: Job | None) -> Job:
        if before is not None:
            self._ended(before)
        job = Job(_ENTRY, python=self._python, package=None, log=self._log, environment=_ENVIRONMENT)
        with self._lock:
            self._jobs.add(job)
        if self._stop.is_set():
            job.kill()
        try:
            job.call("open", None, **self._opening)
        except BaseException:
            self._ended(job)
            raise
        return job

    def _ended(self, job: Job) -> None:
        with self._lock:
            self._jobs.discard(job)
        job.close()
