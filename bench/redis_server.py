"""A Redis on this machine for a benchmark: the one that runs, or one started for it; its databases are left empty."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis

HOST, PORT = "127.0.0.1", 6379
#: Databases of the default sixteen, one a store, so that each can be emptied by itself.
DATABASES = {"relevo": 11, "feast": 12, "raw": 13}
_STARTS_WITHIN = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Redis:
    """Where it listens."""

    port: int
    version: str

    def url(self, store: str) -> str:
        """The URL of a store's own database."""
        return f"redis://{HOST}:{self.port}/{DATABASES[store]}"

    def connection_string(self, store: str) -> str:
        """The same as Feast writes it."""
        return f"{HOST}:{self.port},db={DATABASES[store]}"

    def empty(self, store: str) -> None:
        with redis.Redis.from_url(self.url(store)) as client:
            client.flushdb()


@contextlib.contextmanager
def running_redis(folder: Path) -> Iterator[Redis]:
    """A Redis whose databases of ours were empty before, and are again after."""
    with contextlib.ExitStack() as stack:
        port = PORT
        if not _answers(port):
            port = stack.enter_context(_started(folder))
        with redis.Redis(HOST, port) as client:
            server = Redis(port, str(client.info("server")["redis_version"]))
        for store in DATABASES:
            with redis.Redis.from_url(server.url(store)) as client:
                if client.dbsize():
                    sys.exit(f"{server.url(store)} is in use: expected an empty database")
            stack.callback(server.empty, store)
        yield server


def _answers(port: int) -> bool:
    with redis.Redis(HOST, port) as client, contextlib.suppress(redis.ConnectionError):
        return bool(client.ping())
    return False


@contextlib.contextmanager
def _started(folder: Path) -> Iterator[int]:
    if shutil.which("redis-server") is None:
        sys.exit("expected a Redis on 127.0.0.1:6379, or redis-server to start one: apt-get install redis-server")
    with socket.socket() as one:
        one.bind((HOST, 0))
        port = int(one.getsockname()[1])
    command = ["redis-server", "--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no"]
    with (folder / "redis.log").open("w") as log:
        process = subprocess.Popen([*command, "--dir", str(folder)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _STARTS_WITHIN
        while not _answers(port):
            if time.monotonic() > deadline or process.poll() is not None:
                sys.exit(f"redis-server did not start: see {folder / 'redis.log'}")
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()
