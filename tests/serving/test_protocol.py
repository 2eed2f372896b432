"""Answers that go out in one write keep to HTTP: their order, the ends of connections, heads without a body."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from urllib.parse import urlsplit

import pytest
from gateway_home import ENDPOINT, Home, body


@contextmanager
def connected(home: Home) -> Iterator[tuple[socket.socket, BufferedReader]]:
    place = urlsplit(home.url)
    with (
        socket.create_connection((place.hostname, place.port), timeout=10) as connection,
        connection.makefile("rb") as stream,
    ):
        yield connection, stream


def asked(home: Home, content: bytes | None = None, *, version: str = "1.1", **more: str) -> bytes:
    content = json.dumps(body(5.0)).encode() if content is None else content
    headers = {"Host": "here", "Authorization": f"Bearer {home.admin}", "Content-Length": str(len(content)), **more}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /endpoints/{ENDPOINT}/invocations HTTP/{version}\r\n{head}\r\n".encode() + content


def read_head(stream: BufferedReader) -> tuple[int, dict[str, str]]:
    status = int(stream.readline().split()[1])
    headers = {}
    while (line := stream.readline()) != b"\r\n":
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return status, headers


def read_answer(stream: BufferedReader) -> tuple[int, dict[str, str]]:
    status, headers = read_head(stream)
    json.loads(stream.read(int(headers["content-length"])))
    return status, headers


def test_requests_that_are_sent_together_are_answered_in_their_order(shared: Home) -> None:
    with connected(shared) as (connection, stream):
        connection.sendall(asked(shared) + asked(shared, b"{}") + asked(shared))
        assert [read_answer(stream)[0] for _ in range(3)] == [200, 400, 200]


@pytest.mark.parametrize(("version", "more"), [("1.1", {"Connection": "close"}), ("1.0", {})])
def test_a_connection_that_is_to_be_closed_is_closed_after_its_answer(
    shared: Home, version: str, more: dict[str, str]
) -> None:
    with connected(shared) as (connection, stream):
        connection.sendall(asked(shared, version=version, **more))
        status, headers = read_answer(stream)
        assert (status, headers["connection"]) == (200, "close")
        assert stream.read() == b""


def test_a_head_has_the_length_of_the_body_and_no_body(shared: Home) -> None:
    with connected(shared) as (connection, stream):
        connection.sendall(b"HEAD /health HTTP/1.1\r\nHost: here\r\n\r\n")
        status, headers = read_head(stream)
        assert status == 200
        assert int(headers["content-length"]) > 0
        connection.sendall(asked(shared))
        assert read_answer(stream)[0] == 200


def test_a_caller_who_waits_for_leave_to_send_gets_it(shared: Home) -> None:
    whole = asked(shared, Expect="100-continue")
    head, _, content = whole.partition(b"\r\n\r\n")
    with connected(shared) as (connection, stream):
        connection.sendall(head + b"\r\n\r\n")
        assert read_head(stream)[0] == 100
        connection.sendall(content)
        assert read_answer(stream)[0] == 200


def test_many_answers_that_nobody_reads_yet_all_arrive(shared: Home) -> None:
    with connected(shared) as (connection, stream):
        connection.sendall(asked(shared) * 2000)
        assert {read_answer(stream)[0] for _ in range(2000)} == {200}
