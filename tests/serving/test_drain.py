"""SIGTERM in the middle of requests: what was received is answered, in order, and the last answer closes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path

from gateway_home import Home, body
from originals import serve_original, slow_model
from raw_http import asked, connected, read_answer

CLOSING = (200, "close")
GOING_ON = (200, None)


def slow(home: Home, milliseconds: float) -> bytes:
    return asked(home, json.dumps(body(milliseconds)).encode())


def started(home: Home) -> subprocess.Popen[bytes]:
    home.endpoint("durable")
    serve_original(home, slow_model())
    return home.workers[0]


def says_it_drains(connection: socket.socket, stream: BufferedReader) -> bool:
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: here\r\n\r\n")
    return read_answer(stream)[0] == 503


def in_flight(home: Home, requests: int) -> None:
    """Wait until the worker's process has taken in what was sent: the kernel holds no byte of it."""
    port = home.listener.getsockname()[1]
    home.eventually(lambda: _unread(port) == 0)
    home.eventually(lambda: _connections(port) == requests)


def _sockets(port: int) -> list[list[str]]:
    """The established sockets of the gateway's side, as the kernel lists them."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row for row in rows if int(row[1].split(":")[1], 16) == port and row[3] == "01"]


def _unread(port: int) -> int:
    return sum(int(row[4].split(":")[1], 16) for row in _sockets(port))


def _connections(port: int) -> int:
    return len(_sockets(port))


def test_requests_sent_behind_each_other_are_all_answered(home: Home) -> None:
    worker = started(home)
    with connected(home) as (connection, stream):
        connection.sendall(slow(home, 50.0) * 20)
        in_flight(home, 1)
        worker.send_signal(signal.SIGTERM)
        answers = [read_answer(stream) for _ in range(20)]
        assert [(status, headers.get("connection")) for status, headers in answers] == [GOING_ON] * 19 + [CLOSING]
        assert stream.read() == b""
    assert worker.wait(20) == 0
    assert len([one for one in home.records() if one.status == "ok"]) == 20


def test_a_request_that_comes_behind_one_that_is_worked_on_is_answered(home: Home) -> None:
    worker = started(home)
    with connected(home) as (connection, stream), connected(home) as (watching, told):
        connection.sendall(slow(home, 1_000.0))
        in_flight(home, 2)
        worker.send_signal(signal.SIGTERM)
        home.eventually(lambda: says_it_drains(watching, told))
        connection.sendall(slow(home, 1.0))
        answers = [read_answer(stream) for _ in range(2)]
        assert [(status, headers.get("connection")) for status, headers in answers] == [GOING_ON, CLOSING]
    assert worker.wait(20) == 0


def test_an_open_connection_gets_the_answer_to_its_next_request(home: Home) -> None:
    worker = started(home)
    with connected(home) as (connection, stream), connected(home) as (watching, told):
        connection.sendall(asked(home))
        assert read_answer(stream)[0] == 200
        worker.send_signal(signal.SIGTERM)
        home.eventually(lambda: says_it_drains(watching, told))
        connection.sendall(asked(home))
        status, headers = read_answer(stream)
        assert (status, headers["connection"]) == CLOSING
        assert stream.read() == b""
    assert worker.wait(20) == 0


def test_many_connections_with_many_requests_lose_none(home: Home) -> None:
    worker = started(home)
    with ExitStack() as stack, ThreadPoolExecutor(16) as readers:
        opened = [stack.enter_context(connected(home)) for _ in range(16)]
        for connection, _ in opened:
            connection.sendall(slow(home, 5.0) * 10)
        in_flight(home, 16)
        worker.send_signal(signal.SIGTERM)
        got = list(readers.map(lambda one: [read_answer(one[1]) for _ in range(10)], opened))
        for answers in got:
            *before, last = [(status, headers.get("connection")) for status, headers in answers]
            assert before == [GOING_ON] * 9
            assert last in (GOING_ON, CLOSING)  # who was answered before the worker knew of its end is not told of it
    assert worker.wait(20) == 0
    assert len([one for one in home.records() if one.status == "ok"]) == 160
