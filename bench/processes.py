"""The parent's side of a measured process: starts it, asks it, and stops it when it takes too much memory or time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

HERE = Path(__file__).parent
_LOOKS_EVERY = 0.05  # seconds


class Stopped(Exception):
    """The process was stopped, or ended before it had answered.

    Attributes:
        why: In words.
        seconds: How long the call had been under way.
        peak_mb: The most memory that its processes were seen to hold together.
    """

    def __init__(self, why: str, seconds: float, peak_mb: float) -> None:
        super().__init__(why)
        self.why, self.seconds, self.peak_mb = why, seconds, peak_mb


class Child:
    """A process of ``bench/SCRIPT`` (``children.serve``). A context: it ends with it.

    Args:
        script: File in this folder.
        python: Interpreter of the environment that the script needs.
        log: Where its standard error goes; it is shown when the process fails.
        memory_gb: It is killed when it and its children hold more.
        environment: Variables on top of ours.
    """

    def __init__(
        self,
        script: str,
        *,
        log: Path,
        python: Path | str = sys.executable,
        memory_gb: float | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._script, self._log, self._limit_mb = script, log, None if memory_gb is None else memory_gb * 1024
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                [str(python), "-W", "ignore", str(HERE / script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | (environment or {}),
            )
        self.pid = self._process.pid
        self.peak_mb = 0.0

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _kill(self._process.pid)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]

    def call(self, function: str, *, limit_seconds: float | None = None, **arguments: Any) -> Any:
        """What the child's function gives; ``peak_mb`` then is the most memory that the child has held.

        Raises:
            Stopped: It was killed for one of its limits, or has ended by itself.
        """
        began = time.monotonic()
        with _Watch(self._process.pid, self._limit_mb, limit_seconds) as watch:
            with contextlib.suppress(BrokenPipeError):
                print(json.dumps({"call": function, "arguments": arguments}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            why = watch.why or f"ended with status {self._process.wait()}: {self._last_words()}"
            raise Stopped(why, time.monotonic() - began, watch.peak_mb)
        said = json.loads(line)
        self.peak_mb = max(said["peak_mb"], watch.peak_mb)
        if "error" in said:
            raise Stopped(f"{self._script} {function}: {said['error']}", time.monotonic() - began, self.peak_mb)
        return said["value"]

    def _last_words(self) -> str:
        lines = self._log.read_text().splitlines()
        return lines[-1] if lines else ""


class _Watch(threading.Thread):
    """Looks at the memory of a process and its children while a call is under way; kills them at a limit."""

    def __init__(self, pid: int, limit_mb: float | None, limit_seconds: float | None) -> None:
        super().__init__(daemon=True)
        self._pid, self._limit_mb, self._limit_seconds = pid, limit_mb, limit_seconds
        self._is_over = threading.Event()
        self.why: str | None = None
        self.peak_mb = 0.0

    def __enter__(self) -> _Watch:
        if self._limit_mb is not None or self._limit_seconds is not None:
            self.start()
        return self

    def __exit__(self, *about: object) -> None:
        self._is_over.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        began = time.monotonic()
        while not self._is_over.wait(_LOOKS_EVERY):
            held = sum(map(_resident_mb, _tree(self._pid)))
            self.peak_mb = max(self.peak_mb, held)
            if self._limit_mb is not None and held > self._limit_mb:
                self.why = f"held more than {self._limit_mb / 1024:g} GB"
            elif self._limit_seconds is not None and time.monotonic() - began > self._limit_seconds:
                self.why = f"took more than {self._limit_seconds:g} s"
            if self.why is not None:
                _kill(self._pid)
                return


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _resident_mb(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / 2**20
    except psutil.NoSuchProcess:
        return 0.0


def _kill(pid: int) -> None:
    """End the process and its children, children first."""
    for process in reversed(_tree(pid)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
