"""HTTP by hand, for what a client library would not do."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from urllib.parse import urlsplit

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
