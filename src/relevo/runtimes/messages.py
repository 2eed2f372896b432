"""What the isolated runtime and its child say to each other: msgpack behind a length of four bytes, over a socket."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_LENGTH = struct.Struct("<I")
_encode = msgspec.msgpack.Encoder().encode


class Closed(Exception):
    """The other side is gone."""


class TimedOut(Exception):
    """No whole message came in time."""


class Question(msgspec.Struct, array_like=True, frozen=True):
    """Rows to answer, or to explain, ``(n_rows, n_inputs)``."""

    rows: Sequence[Sequence[Any]]
    explain: bool = False


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """Predictions or contributions a row, or why there are none; neither once the child is ready."""

    predictions: list[float | list[float]] | None = None
    error: str | None = None


#: Made once, on import: msgspec crashes when two threads read a class at the same time.
_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in (Question, Answer, dict)
}


def send(to: socket.socket, message: object) -> None:
    """Sends one message whole."""
    body = _encode(message)
    to.sendall(_LENGTH.pack(len(body)) + body)


def receive(source: socket.socket, kind: type[T], deadline: float | None = None) -> T:
    """The next message.

    Args:
        source: The socket.
        kind: Type of the message.
        deadline: On the monotonic clock; None waits for ever.

    Raises:
        Closed: The other side is gone, or does not speak our language.
        TimedOut: The deadline passed.
    """
    (length,) = _LENGTH.unpack(_exactly(source, _LENGTH.size, deadline))
    try:
        return _decoders[kind].decode(_exactly(source, length, deadline))  # type: ignore[no-any-return]
    except msgspec.MsgspecError:
        raise Closed from None


def _exactly(source: socket.socket, size: int, deadline: float | None) -> bytes:
    parts: list[bytes] = []
    while size > 0:
        if deadline is not None:
            source.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            part = source.recv(min(size, 1 << 20))
        except TimeoutError:
            raise TimedOut from None
        except OSError:
            raise Closed from None
        if not part:
            raise Closed
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
