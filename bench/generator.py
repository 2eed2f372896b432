"""A load that keeps its rate, whatever the server does: ``python generator.py``, with what to do as JSON on its input.

Every request has a time at which it is due. Its latency counts from then, also when it had to wait for a connection, so
that a server that stalls is not spared the requests of that time. Ends when all are answered, or a while after the last
was due; then prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from pathlib import Path
from typing import Any

import uvloop

LAST_ANSWERS_SECONDS = 30.0
TICK_SECONDS = 0.001


class Load:
    """Requests in turn over kept connections.

    Args:
        requests: Whole HTTP requests.
        rate: Requests a second.
        seconds: How long requests are due.
        window_seconds: Latencies are told by spans of this length.
    """

    def __init__(self, requests: list[bytes], rate: float, seconds: float, window_seconds: float) -> None:
        self._requests, self._rate, self._window = requests, rate, window_seconds
        self._total = int(rate * seconds)
        self._sent = self.answered = self.errors = 0
        self.first_error: str | None = None
        self._idle: deque[Connection] = deque()
        self._latencies: list[list[float]] = [[] for _ in range(int(seconds / window_seconds) + 1)]
        self._loop = asyncio.get_running_loop()
        self._began = 0.0

    async def run(self, host: str, port: int, connections: int) -> dict[str, Any]:
        """Send everything when it is due."""
        for _ in range(connections):
            _, connection = await self._loop.create_connection(lambda: Connection(self), host, port)
            self._idle.append(connection)
        self._began = self._loop.time()
        deadline = self._began + self._total / self._rate + LAST_ANSWERS_SECONDS
        while self.answered + self.errors < self._total and self._loop.time() < deadline:
            self._pump()
            await asyncio.sleep(TICK_SECONDS)
        seconds = self._loop.time() - self._began
        return {
            "asked": self._total,
            "sent": self._sent,
            "answered": self.answered,
            "errors": self.errors + self._total - self.answered - self.errors,
            "first_error": self.first_error,
            "seconds": seconds,
            "windows": [_window(values) for values in self._latencies if values],
        }

    def done(self, connection: Connection, due: float, status: bytes) -> None:
        """A connection has an answer."""
        if status == b"200":
            self.answered += 1
            place = int((due - self._began) / self._window)
            self._latencies[place].append((self._loop.time() - due) * 1e3)
        else:
            self.failed(f"status {status.decode()}")
        self._idle.append(connection)
        self._pump()

    def failed(self, why: str) -> None:
        """A request has no answer, or not a good one."""
        self.errors += 1
        self.first_error = self.first_error or why

    def _pump(self) -> None:
        due = min(self._total, int((self._loop.time() - self._began) * self._rate) + 1)
        while self._sent < due and self._idle:
            at = self._began + self._sent / self._rate
            self._idle.popleft().ask(self._requests[self._sent % len(self._requests)], at)
            self._sent += 1


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._due: float | None = None
        self._got = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.WriteTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def ask(self, request: bytes, due: float) -> None:
        assert self._transport is not None
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head = self._got.find(b"\r\n\r\n")
        if head < 0 or len(self._got) < head + 4 + _length(self._got[:head]):
            return
        status, due = self._got[9:12], self._due
        self._got, self._due = b"", None
        assert due is not None
        self._load.done(self, due, status)

    def connection_lost(self, error: Exception | None) -> None:
        if self._due is not None:
            self._load.failed(f"the connection was lost: {error}")


def _length(head: bytes) -> int:
    place = head.lower().index(b"content-length:") + 15
    return int(head[place:].split(b"\r", 1)[0])


def _window(values: list[float]) -> dict[str, float]:
    values.sort()
    return {
        "requests": len(values),
        "p50_ms": values[len(values) // 2],
        "p99_ms": values[min(len(values) - 1, int(len(values) * 0.99))],
        "max_ms": values[-1],
    }


def _requests(lines: list[bytes], host: str, token: str) -> list[bytes]:
    """Whole requests, of lines with a path, a tab and a body."""
    made = []
    for line in lines:
        path, _, body = line.partition(b"\t")
        made.append(
            b"POST %b HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (path, host.encode(), token.encode(), len(body), body)
        )
    return made


async def _main(asked: dict[str, Any]) -> dict[str, Any]:
    lines = Path(asked["bodies"]).read_bytes().splitlines()
    load = Load(
        _requests(lines, asked["host"], asked["token"]), asked["rate"], asked["seconds"], asked["window_seconds"]
    )
    return await load.run(asked["host"], asked["port"], asked["connections"])


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_main(json.load(sys.stdin)))))
