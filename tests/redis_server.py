"""A real Redis for the tests: the one that answers, else one that is started for this run."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redis

from ports import free_port

DEFAULT_URL = os.environ.get("RELEVO_TEST_REDIS", "redis://127.0.0.1:6379/0")


@contextmanager
def redis_url() -> Iterator[str]:
    """The URL of a Redis that keys may be put into; raises when none runs and none can be started."""
    if answers(DEFAULT_URL):
        yield DEFAULT_URL
        return
    with OwnRedis() as own:
        yield own.url


class OwnRedis:
    """A Redis of a test's own, which it may kill and start again. Keeps its data in an append-only file."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="relevo-redis-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> OwnRedis:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self, *options: str) -> None:
        """Start it, and wait until it answers."""
        program = shutil.which("redis-server")
        if program is None:
            raise FileNotFoundError("The tests need Redis; run tests/prerequisites.sh, or set RELEVO_TEST_REDIS.")
        usual = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", ""]
        usual += ["--appendonly", "yes", "--appendfsync", "always", "--logfile", "log"]
        self._process = subprocess.Popen([program, *usual, *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not answers(self.url):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"Redis did not start: {(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def forget(url: str, prefix: str) -> None:
    """Delete every key with the prefix."""
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(match=f"{prefix}:*", count=1_000):
            client.delete(key)


def answers(url: str) -> bool:
    """Whether a Redis is there, and has read what it kept."""
    with suppress(redis.RedisError), redis.Redis.from_url(url, socket_connect_timeout=3) as client:
        return bool(client.ping())
    return False
