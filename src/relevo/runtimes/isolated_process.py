"""The process that holds an original model, and what is said to it."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import relevo
from relevo.errors import Unavailable
from relevo.platform.memory import private_bytes
from relevo.runtimes.messages import Answer, Closed, Question, TimedOut, receive, send


class ChildProcess:
    """The child process and the socket to it.

    Attributes:
        loaded_bytes: What it took in memory when it had loaded the model; 0 before.
        is_warm: Whether it has answered a call.
    """

    def __init__(self, folder: Path, signature: dict[str, Any], python: Path) -> None:
        self.loaded_bytes = 0
        self.is_warm = False
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
                env=environment(),
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

    def await_ready(self, limit_seconds: float) -> None:
        """Returns when the child has loaded the model.

        Raises:
            Unavailable: It cannot, or not in time; it is ended.
        """
        try:
            ready = self.receive(limit_seconds)
        except (TimedOut, Closed):
            raise Unavailable(f"The model's process did not start: {self.stop()}.") from None
        if ready.error is not None:
            self.stop()
            raise Unavailable(f"The model's process did not start: {ready.error}")
        self.loaded_bytes = self.bytes

    @property
    def has_spoken(self) -> bool:
        """Whether something of the child waits to be read, or it is gone."""
        return bool(select.select([self.socket], [], [], 0)[0])

    @property
    def bytes(self) -> int:
        """The memory that it shares with nobody."""
        return private_bytes(self.process.pid)

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


def environment() -> dict[str, str]:
    """Nothing of ours but what a process needs: no token or address reaches the model."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ") if name in os.environ}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    root = Path(relevo.__file__).parents[1]
    # An installed package is found through the environment itself; its pins must not be shadowed.
    path = {} if root.name == "site-packages" else {"PYTHONPATH": str(root)}
    return kept | threads | path | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
