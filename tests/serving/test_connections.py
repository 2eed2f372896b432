"""One connection, in a server of the test's own with an application that takes its time."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import uvicorn

from relevo.serving import connections
from relevo.serving.connections import Connection

HEAD = b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Application:
    """Answers the path of each request once it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_answer = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        await asyncio.to_thread(self.may_answer.wait, 10)
        body = scope["path"].encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    def until_asked(self, requests: int) -> None:
        deadline = threading.Event()
        for _ in range(1_000):
            if len(self.asked) >= requests:
                return
            deadline.wait(0.01)
        raise AssertionError(f"{requests} requests were expected, got {self.asked}")


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def address(application: Application, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    config = uvicorn.Config(
        application, http=Connection, ws="none", lifespan="off", log_config=None, timeout_keep_alive=1
    )
    server = uvicorn.Server(config)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield listener.getsockname()
        server.should_exit = True
        application.may_answer.set()
        thread.join(timeout=10)
        assert not thread.is_alive()


@pytest.fixture
def connection(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=10) as connection:
        yield connection


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    received = b""
    while part := connection.recv(65_536):
        received += part
    return received


def test_an_answer_comes_after_the_caller_has_closed_its_side(
    application: Application, connection: socket.socket
) -> None:
    connection.sendall(HEAD % 1)
    application.until_asked(1)
    connection.shutdown(socket.SHUT_WR)
    connection.settimeout(0.3)
    with pytest.raises(TimeoutError):  # it waits, and does not hang up
        connection.recv(1)
    connection.settimeout(10)
    application.may_answer.set()
    assert rest(connection).endswith(b"/1")


def test_garbage_waits_for_the_answers_before_it(application: Application, connection: socket.socket) -> None:
    connection.sendall(HEAD % 1 + HEAD % 2)
    application.until_asked(1)
    connection.sendall(b"GARBAGE\r\n\r\n")
    application.may_answer.set()
    received = rest(connection)
    assert (received.count(b"200 OK"), b"400" in received) == (2, False)
    assert received.index(b"/1") < received.index(b"/2")


def test_a_body_that_breaks_off_while_another_answer_is_due_is_refused_after_it(
    application: Application, connection: socket.socket
) -> None:
    connection.sendall(HEAD % 1 + b"POST /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    application.until_asked(1)
    application.may_answer.set()
    received = rest(connection)
    assert (
        received.index(b"200 OK") < received.index(b"400 Bad Request") < received.index(b"invalid character in chunk")
    )
    assert application.asked == ["/1"]


@pytest.mark.parametrize("head", [b"GET", b"GET / HTTP/1.1\r\nHost:", (HEAD % 1)[:-2]])
def test_a_head_that_never_comes_is_refused(application: Application, connection: socket.socket, head: bytes) -> None:
    connection.sendall(head)
    received = rest(connection)
    assert received.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"too_slow"' in received


def test_a_head_does_not_get_more_time_by_coming_slowly(application: Application, connection: socket.socket) -> None:
    def drip() -> None:
        wait = threading.Event()
        for _ in range(200):
            connection.sendall(b"a")
            wait.wait(0.02)

    connection.sendall(b"GET /")
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        drip()
    assert application.asked == []


def test_a_connection_that_asks_nothing_is_closed(connection: socket.socket) -> None:
    assert rest(connection) == b""


def test_whole_requests_are_never_taken_for_a_part_of_one(
    application: Application, connection: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[int] = []
    monkeypatch.setattr(Connection, "_wait_for_head", lambda self, size: waited.append(size))
    application.may_answer.set()
    for _ in range(3):
        connection.sendall(HEAD % 1 + HEAD % 2)
        received = b""
        while received.count(b"HTTP/1.1 200") < 2:
            received += connection.recv(65_536)
    assert waited == []
