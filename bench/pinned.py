"""Servers pinned to one core, one of them awake at a time, and wrk on the other core."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

HERE = Path(__file__).parent
SERVER_CORE, LOAD_CORE = 0, 1
START_SECONDS = 120
FINISH_SECONDS = 0.3
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "POLARS_MAX_THREADS"), "1"
)


class NotStarted(Exception):
    """A server that ended or did not answer, with its last words."""


@dataclass(frozen=True)
class Server:
    """A process and its children on the server's core, and where it listens."""

    process: subprocess.Popen[bytes]
    url: str
    output: Path

    def cpu_seconds(self) -> float:
        """Processor time of the whole tree."""
        times = [process.cpu_times() for process in self._tree()]
        return sum(each.user + each.system for each in times)

    def resident_mb(self) -> float:
        return sum(process.memory_info().rss for process in self._tree()) / 2**20

    def pause(self) -> None:
        """Parents first, so that none sees a child stop."""
        for process in self._tree():
            process.suspend()

    def resume(self) -> None:
        for process in reversed(self._tree()):
            process.resume()

    def wait_until_ready(self, path: str) -> None:
        """Until it answers 200 at ``path``.

        Raises:
            NotStarted: It ended, or took too long.
        """
        deadline = time.monotonic() + START_SECONDS
        why = "nothing answered"
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise NotStarted(f"ended with status {self.process.returncode}: {self.last_words()}")
            with contextlib.suppress(httpx.HTTPError):
                answer = httpx.get(self.url + path, timeout=5)
                if answer.status_code == 200:
                    return
                why = f"{answer.status_code} {answer.text[:200]}"
            time.sleep(0.1)
        raise NotStarted(f"was not ready after {START_SECONDS} s ({why}): {self.last_words()}")

    def last_words(self) -> str:
        return " / ".join(self.output.read_text(errors="replace").splitlines()[-5:])[-600:]

    def stop(self) -> None:
        """Ask it to end; what has not ended after a while is killed."""
        if self.process.poll() is not None:
            return
        tree = self._tree()
        self.resume()
        self.process.terminate()
        _, left = psutil.wait_procs(tree, timeout=20)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def _tree(self) -> list[psutil.Process]:
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]


@contextlib.contextmanager
def serving(
    command: Sequence[str], output: Path, *, environment: dict[str, str] | None = None, folder: Path | None = None
) -> Iterator[Server]:
    """A server process, pinned; ``{fd}`` in its command is a listening socket, which it inherits, ``{port}`` a port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listener.set_inheritable(True)
    port, number = listener.getsockname()[1], listener.fileno()
    is_inherited = any("{fd}" in word for word in command)
    if not is_inherited:
        listener.close()
    with output.open("ab") as file:
        process = subprocess.Popen(
            [
                *("taskset", "--cpu-list", str(SERVER_CORE)),
                *(word.replace("{fd}", str(number)).replace("{port}", str(port)) for word in command),
            ],
            pass_fds=[number] if is_inherited else [],
            env={**os.environ, **ONE_THREAD, **(environment or {})},
            cwd=folder,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    server = Server(process, f"http://127.0.0.1:{port}", output)
    try:
        yield server
    finally:
        server.stop()
        listener.close()


@contextlib.contextmanager
def awake(server: Server) -> Iterator[None]:
    """A server that was paused, for a while: the others must not take the core, not even by polling.

    It answers what wrk has left behind first: paused within a call, it would take the pause for the call's time.
    """
    server.resume()
    try:
        yield
    finally:
        time.sleep(FINISH_SECONDS)
        server.pause()


def load(server: Server, path: str, callers: int, *, bodies: Path, token: str, seconds: int) -> dict[str, Any]:
    """What wrk and the server's processes say of one measurement.

    Raises:
        NotStarted: A request failed.
    """
    before = server.cpu_seconds()
    command = [
        *("taskset", "--cpu-list", str(LOAD_CORE), "wrk", "--threads", "1", "--connections", str(callers)),
        *("--duration", f"{seconds}s", "--timeout", "10s", "--script", str(HERE / "rotate.lua"), server.url + path),
    ]
    done = subprocess.run(
        command, env={**os.environ, "BODIES": str(bodies), "TOKEN": token}, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if found["errors"] or not found["requests"]:
        raise NotStarted(f"{found['errors']} of {found['requests']} requests failed: {server.last_words()}")
    found["requests_per_second"] = found["requests"] / found["seconds"]
    found["cpu_us_per_request"] = (server.cpu_seconds() - before) / found["requests"] * 1e6
    return found


def prepare() -> None:
    """Stop without the tools or the cores; and let a signal to end unwind, so that no paused server is left behind."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    if shutil.which("wrk") is None:
        sys.exit("The load generator wrk is not installed. On Debian and Ubuntu: apt-get install wrk")
    if shutil.which("taskset") is None:
        sys.exit("taskset is not installed. On Debian and Ubuntu: apt-get install util-linux")
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        sys.exit(f"The benchmark needs cores {SERVER_CORE} and {LOAD_CORE}; it may use {os.sched_getaffinity(0)}.")
