"""Jobs: a team's code runs in a child process with its own environment; calls and answers are lines of JSON.

The parent holds a `Job` and calls functions by name; the child's module ends in `serve({...})`. Both talk over pipes of
their own, so whatever the team's code prints goes to the job's log. The child never outlives its parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from relevo.errors import JobFailed
from relevo.platform.child import JOB_VARIABLE, JSON, progress, serve
from relevo.platform.encoding import to_json
from relevo.platform.logging import redact

__all__ = ["JSON", "Job", "progress", "serve"]

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
_SECRET_NAMES = ("TOKEN", "PASSWORD", "SECRET", "KEY", "CONNECTION")
_CLOSE_SECONDS = 5.0
_POLL_MS = 200
_LAST_LOG_LINES = 5
_MAX_ANSWER_BYTES = 64 * 1024 * 1024  # answers are references and small facts, never data

# PR_SET_PDEATHSIG tells the child when the *thread* that started it ends. This one ends with the process.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="relevo-job-starter")


class Job:
    """A child process ``python -m entry`` that answers calls one at a time. Thread-safe; a context manager.

    The child gets PATH, HOME, LANG, TZ, TMPDIR, what ``environment`` adds, and nothing else of the parent's variables.
    It runs in a process group of its own, which ends as a whole with the job.

    Args:
        entry: The module to run; it calls `serve`.
        python: The interpreter, from `environments.python_for`.
        package: Folder from which the team's package is imported; also the working folder.
        log: File that standard output and error are appended to.
        environment: Further variables. Values of names with TOKEN, PASSWORD, SECRET, KEY or CONNECTION are kept out of
            messages.

    Raises:
        JobFailed: When the interpreter cannot be started.
    """

    def __init__(
        self,
        entry: str,
        *,
        python: Path,
        package: Path | None,
        log: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.entry = entry
        python, self.log = python.absolute(), log.absolute()  # not resolved: a venv's interpreter is a link
        package = None if package is None else package.resolve()
        self._secrets = [value for name, value in environment.items() if value and _is_secret(name)]
        self._lock = threading.Lock()
        self._is_closed = False
        self._received = bytearray()
        self.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        self._process, self._calls, self._answers = _starter.submit(
            _start, [str(python), "-m", entry], package, self.log, _environment(package, environment)
        ).result()
        self._readable = select.poll()
        self._readable.register(self._answers, select.POLLIN)

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the child is there to answer."""
        return not self._is_closed and not self._has_exited()

    def call(
        self, function: str, /, on_progress: Callable[[str, float | None], None] | None = None, **arguments: object
    ) -> JSON:
        """Run the child's ``function`` with ``arguments`` (anything that converts to JSON) and return its answer.

        Args:
            function: A name that the child serves.
            on_progress: Called in this thread with a text and a fraction done (0 to 1, or None).
            **arguments: The function's arguments.

        Raises:
            JobFailed: With the type, message and place of the error in the team's code; or, when the child died, how,
                and the last lines of its log. A job that died stays dead; one whose function raised goes on.
        """
        request = json.dumps({"call": function, "arguments": to_json(arguments)}).encode() + b"\n"
        with self._lock:
            if self._is_closed:
                raise JobFailed(f"The job {self.entry} is closed; it cannot run {function}.")
            try:
                self._send(request)
                return self._answer(function, on_progress)
            except JobFailed:
                raise
            except BaseException:
                # Interrupted half-way, perhaps by on_progress: what the child has sent since belongs to no call.
                self._abandon()
                raise

    def close(self) -> None:
        """End the child: gently when it is idle, by force after five seconds, with everything that it started."""
        with self._lock:
            if self._is_closed:
                return
            os.close(self._calls)
            deadline = time.monotonic() + _CLOSE_SECONDS
            while not self._has_exited() and time.monotonic() < deadline:
                time.sleep(0.005)
            self._end()

    def kill(self) -> None:
        """End the child and everything that it started at once; a call under way in another thread fails."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, request: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # the child is dead: reading its answer says how
            while request:
                request = request[os.write(self._calls, request) :]

    def _answer(self, function: str, on_progress: Callable[[str, float | None], None] | None) -> JSON:
        while True:
            line = self._line()
            if line is None:
                raise self._death(function)
            try:
                message: JSON = json.loads(line)
            except ValueError:
                self._abandon()
                raise JobFailed(f"The job {self.entry} answered {function} with something that is not JSON.") from None
            if "progress" in message:
                if on_progress is not None:
                    on_progress(message["progress"], message["fraction"])
            elif "error" in message:
                raise self._failure(message["error"])
            else:
                answer: JSON = message["answer"]
                return answer

    def _line(self) -> bytes | None:
        """The next line from the child, or None when it is dead and everything it sent was read."""
        searched = 0
        while True:
            end = self._received.find(b"\n", searched)
            if end >= 0:
                line = bytes(self._received[:end])
                del self._received[: end + 1]
                return line
            searched = len(self._received)
            # A process that the child forked may hold the pipe open: the end of file alone does not tell of its death.
            was_dead = self._has_exited()
            is_readable = bool(self._readable.poll(0 if was_dead else _POLL_MS))
            received = os.read(self._answers, 1 << 16) if is_readable else b""
            if not received and (is_readable or was_dead):
                return None
            self._received += received
            if len(self._received) > _MAX_ANSWER_BYTES:
                self._abandon()
                raise JobFailed(f"The job {self.entry} gave more than {_MAX_ANSWER_BYTES >> 20} MiB as its answer.")

    def _failure(self, error: JSON) -> JobFailed:
        message = error["message"] if error["type"] is None else f"{error['type']}: {error['message']}"
        place = f" ({error['place']})" if error["place"] else ""
        hint = error["hint"] or f"The whole traceback is in {self.log}."
        return JobFailed(self._redact(message) + place, field=error["field"], hint=self._redact(hint))

    def _death(self, function: str) -> JobFailed:
        deadline = time.monotonic() + _CLOSE_SECONDS
        while not self._has_exited() and time.monotonic() < deadline:
            time.sleep(0.005)  # it closed its pipe, and is about to end
        code = self._abandon()
        how = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        text = f"The job {self.entry} {how} while it ran {function}."
        last = self._last_log_lines()
        if last:
            text += f" Last lines of its log:\n{last}"
        hint = "It may have run out of memory." if code == -signal.SIGKILL else f"Its log is {self.log}."
        return JobFailed(text, hint=hint)

    def _has_exited(self) -> bool:
        """Whether the child has ended; it is not reaped yet, so that its process group keeps its number."""
        if self._process.returncode is not None:
            return True
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # reaped by another thread in between
            return True

    def _abandon(self) -> int:
        """Close the job at once; its exit code. No later call can read what this one left in the pipe."""
        os.close(self._calls)
        return self._end()

    def _end(self) -> int:
        """Kill what is left of the process group, reap the child, and return its exit code."""
        self._is_closed = True
        self.kill()
        code = self._process.wait()
        os.close(self._answers)
        return code

    def _last_log_lines(self) -> str:
        with self.log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, end - 4096))
            lines = file.read().decode(errors="replace").splitlines()
        return self._redact("\n".join(lines[-_LAST_LOG_LINES:]))

    def _redact(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return redact(text)


def _start(
    command: list[str], package: Path | None, log: Path, environment: dict[str, str]
) -> tuple[subprocess.Popen[bytes], int, int]:
    """Start the child; its process, the pipe that calls go into, and the pipe that answers come from."""
    child_calls, calls = os.pipe()
    answers, child_answers = os.pipe()
    work = {"calls": child_calls, "answers": child_answers, "parent": os.getpid(), "package": str(package or "")}
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=package or log.parent,
                env=environment | {JOB_VARIABLE: json.dumps(work)},
                pass_fds=(child_calls, child_answers),
                process_group=0,
            )
    except OSError as error:
        os.close(calls)
        os.close(answers)
        raise JobFailed(f"The job {' '.join(command)} could not be started: {error}.") from None
    finally:
        os.close(child_calls)
        os.close(child_answers)
    return process, calls, answers


def _environment(package: Path | None, given: Mapping[str, str]) -> dict[str, str]:
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    environment |= {
        "PYTHONNOUSERSITE": "1",
        "PYTHONSAFEPATH": "1",  # the working folder is no place to import from by accident
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }
    if package is not None:
        environment["PYTHONPATH"] = str(package)
    return environment | dict(given)


def _is_secret(name: str) -> bool:
    return any(word in name.upper() for word in _SECRET_NAMES)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
