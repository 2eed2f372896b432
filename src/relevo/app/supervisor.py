"""``relevo up``: one light parent that binds the ports, locks the home folder and keeps three children alive."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from relevo.errors import Conflict, Unavailable
from relevo.platform.processes import SUPERVISOR_VARIABLE
from relevo.platform.settings import Settings

FIRST_BACK_OFF_SECONDS = 0.5
LONGEST_BACK_OFF_SECONDS = 30.0
STEADY_AFTER_SECONDS = 60.0
STOP_WITHIN_SECONDS = 20.0


@dataclass(slots=True)
class Child:
    """A process that is started again whenever it ends before it was told to."""

    name: str
    command: list[str]
    file_descriptors: tuple[int, ...]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_again_at: float = 0.0
    back_off_seconds: float = FIRST_BACK_OFF_SECONDS
    restarts: int = 0

    def start(self, environment: dict[str, str]) -> None:
        """Start it, with its output appended to its log."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=self.file_descriptors,
                env=environment,
                start_new_session=True,  # a Ctrl-C reaches the supervisor alone, which stops the children in order
            )
        self.started_at = time.monotonic()

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def plan_restart(self) -> float:
        """Note that it has ended; the seconds until it is started again (they double while it keeps falling)."""
        if time.monotonic() - self.started_at > STEADY_AFTER_SECONDS:
            self.back_off_seconds = FIRST_BACK_OFF_SECONDS
        wait, self.back_off_seconds = self.back_off_seconds, min(self.back_off_seconds * 2, LONGEST_BACK_OFF_SECONDS)
        self.start_again_at = time.monotonic() + wait
        self.process = None
        self.restarts += 1
        return wait


@dataclass(frozen=True, slots=True)
class Sockets:
    """What Relevo listens on. The children inherit them, so that a port stays open while one is started again."""

    control: socket.socket
    gateway: socket.socket


@dataclass(slots=True)
class Supervisor:
    """Starts control plane, gateway workers and collector, restarts what falls, and stops them cleanly.

    The caller holds the home folder (``locked_home``) for as long as it runs.

    ``say`` gets one line for each thing that a person should know.
    """

    settings: Settings
    sockets: Sockets
    say: Callable[[str], None]
    children: list[Child] = field(default_factory=list)
    is_stopping: bool = False

    def run(self, on_ready: Callable[[], None]) -> None:
        """Run until SIGINT or SIGTERM."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: setattr(self, "is_stopping", True))
        self.children = self._children(self.sockets.control.fileno(), self.sockets.gateway.fileno())
        for child in self.children:
            child.start(self._environment())
        try:
            self._watch(on_ready)
        finally:
            self._stop()

    def _children(self, control: int, gateway: int) -> list[Child]:
        logs = self.settings.folder("logs")

        def child(name: str, module: str, *arguments: str, fds: tuple[int, ...] = ()) -> Child:
            return Child(name, [sys.executable, "-m", module, *arguments], fds, logs / f"{name}.log")

        workers = [
            child(f"gateway-{k}", "relevo.serving.worker", "--fd", str(gateway), "--worker", str(k), fds=(gateway,))
            for k in range(self.settings.gateway_workers)
        ]
        plane = child("control", "relevo.app.control", "--fd", str(control), fds=(control,))
        return [plane, *workers, child("collector", "relevo.predictions.collector")]

    def _environment(self) -> dict[str, str]:
        """The settings as they are now, so that a child that starts later sees the same."""
        settings = {
            f"RELEVO_{name.upper()}": str(value)
            for name, value in self.settings.model_dump().items()
            if value is not None
        }
        return {**os.environ, **settings, "RELEVO_HOME": str(self.settings.root), SUPERVISOR_VARIABLE: str(os.getpid())}

    def _watch(self, on_ready: Callable[[], None]) -> None:
        is_ready = False
        while not self.is_stopping:
            for child in self.children:
                self._keep_alive(child)
            if not is_ready and answers(self.settings):
                is_ready = True
                on_ready()
            time.sleep(0.05 if not is_ready else 0.2)

    def _keep_alive(self, child: Child) -> None:
        if child.process is None:
            if time.monotonic() >= child.start_again_at:
                child.start(self._environment())
        elif not child.is_running:
            status = child.process.returncode
            wait = child.plan_restart()
            self.say(f"{child.name} ended with status {status}; starting it again in {wait:.1f} s (log: {child.log})")

    def _stop(self) -> None:
        """Gateway first, so that no request is dropped; the collector next, so that it takes what was logged."""
        self.say("Stopping: requests in flight are finished, logs are synced.")
        deadline = time.monotonic() + STOP_WITHIN_SECONDS
        for prefix in ("gateway", "collector", "control"):
            family = [child for child in self.children if child.name.startswith(prefix) and child.is_running]
            for child in family:
                assert child.process is not None
                child.process.terminate()
            for child in family:
                assert child.process is not None
                try:
                    child.process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    self.say(f"{child.name} did not stop within {STOP_WITHIN_SECONDS:.0f} s and was killed.")
                    child.process.kill()
                    child.process.wait()


@contextlib.contextmanager
def locked_home(settings: Settings) -> Iterator[None]:
    """Hold the home folder; the kernel lets go of the lock when this process ends, however it ends.

    Raises:
        Conflict: Another ``relevo up`` holds it; the message names its process and address.
    """
    path = settings.folder() / "lock"
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = json.loads(lock.read() or "{}")
            raise Conflict(
                f"The home folder {settings.root} is in use by process {holder.get('pid', '?')}, "
                f"which serves {holder.get('url', 'another address')}.",
                hint="Stop it first, or set RELEVO_HOME to another folder.",
            ) from None
        lock.truncate(0)
        lock.write(json.dumps({"pid": os.getpid(), "url": f"http://{settings.host}:{settings.port}"}))
        lock.flush()
        yield


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[Sockets]:
    """Listen on both ports.

    Raises:
        Conflict: A port is taken; the message names its owner.
    """
    with (
        listen(settings.host, settings.port, "RELEVO_PORT") as control,
        listen(settings.host, settings.gateway_port, "RELEVO_GATEWAY_PORT") as gateway,
    ):
        yield Sockets(control, gateway)


def listen(host: str, port: int, setting: str) -> socket.socket:
    """A listening socket that children inherit.

    Raises:
        Conflict: The port is taken; the message names its owner.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if error.errno not in {98, 48}:
            hint = f"Set {setting} to a port from 1024 on." if error.errno == errno.EACCES else "Set RELEVO_HOST."
            raise Unavailable(f"Cannot listen on {host}:{port}: {error.strerror}.", hint=hint) from None
        raise Conflict(
            f"Port {port} on {host} is in use by {port_owner(port)}.", hint=f"Stop it, or set {setting} to a free port."
        ) from None
    listener.listen(2048)
    listener.set_inheritable(True)
    return listener


def port_owner(port: int) -> str:
    """The process that listens on a port, in words, as far as this user may see it."""
    with contextlib.suppress(psutil.AccessDenied):
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                if connection.pid is None:
                    break
                with contextlib.suppress(psutil.NoSuchProcess):
                    return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return "a process of another user"


def answers(settings: Settings) -> bool:
    """Whether the control plane answers on its port."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection((settings.host, settings.port), timeout=1) as connection,
    ):
        connection.sendall(f"GET /health HTTP/1.1\r\nHost: {settings.host}\r\nConnection: close\r\n\r\n".encode())
        connection.settimeout(1)
        return connection.recv(64).startswith(b"HTTP/1.1 200")
    return False
