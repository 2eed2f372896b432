"""A real gateway worker for the homes of releases."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

from relevo.platform.settings import Settings
from relevo.serving.service import Serving


class Gateway:
    """A listening socket, whose port the settings must name, and a worker that serves it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listener.set_inheritable(True)
        self.port: int = self.listener.getsockname()[1]
        self._worker: subprocess.Popen[bytes] | None = None

    def start(self, settings: Settings, serving: Serving) -> None:
        """A worker that has reported."""
        descriptor = self.listener.fileno()
        log = settings.folder("logs") / "worker.out"
        with log.open("ab") as output:
            self._worker = subprocess.Popen(
                [sys.executable, "-m", "relevo.serving.worker", "--fd", str(descriptor), "--worker", "0"],
                pass_fds=[descriptor],
                env={**os.environ, "RELEVO_HOME": str(settings.root)},
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + 30
        while not any(one.pid == self._worker.pid for one in serving.live_workers()):
            assert self._worker.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        """End the worker; the socket stays, and nobody answers there."""
        if self._worker is not None:
            self._worker.terminate()
            assert self._worker.wait(timeout=20) is not None
            self._worker = None

    def close(self) -> None:
        self.stop()
        self.listener.close()
