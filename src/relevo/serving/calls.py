"""One request to a route of the gateway: who asks, what may be asked, and how the body comes."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from relevo.errors import Invalid, NotAllowed, RelevoError, TooLarge
from relevo.identity.model import Permission, Principal
from relevo.serving.limits import Limits

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class WrongMethod(RelevoError):
    """The path exists, and takes another method."""

    code = "wrong_method"
    http_status = 405

    def __init__(self, path: str, method: str, expected: str) -> None:
        super().__init__(f"{path[:200]} takes {expected}, got {method}.")
        self.expected = expected


class TooSlow(RelevoError):
    """The body did not arrive in time."""

    code = "too_slow"
    http_status = 408


class WrongType(RelevoError):
    """The body comes in an encoding, or is of a type, that the route does not take."""

    code = "wrong_type"
    http_status = 415
    exit_status = 2


class Call(msgspec.Struct, frozen=True, gc=False):
    """One request to a route: who asks, for which endpoint, with which headers and body to come."""

    principal: Principal
    name: str
    headers: dict[bytes, bytes]
    receive: Receive


def require(principal: Principal, *permissions: Permission) -> None:
    """Raises NotAllowed unless the principal has one of the permissions."""
    for permission in permissions:
        if principal.may(permission):
            return
    raise NotAllowed(f"{principal.name} ({principal.role}) lacks the permission {permissions[-1]}.")


def addressed(principal: Principal, version: bytes, field: str) -> int:
    """The version that the caller names.

    Raises:
        NotAllowed: The caller may not.
        Invalid: It is no number.
    """
    require(principal, Permission.ADDRESS_VERSION)
    return number(version, field, "a version's number", 9)


def number(text: bytes, field: str, expected: str, digits: int) -> int:
    """A whole number of so many digits at most.

    Raises:
        Invalid: It is none.
    """
    if not text.isdigit() or len(text) > digits:
        raise Invalid(f"Expected {expected}, got {text[:40].decode('latin-1')!r}.", field=field)
    return int(text)


async def read_body(call: Call, limits: Limits) -> bytes:
    """The whole body; one that is too large is refused before it is read.

    Raises:
        Invalid: The connection was closed before the body had arrived, or its compression is broken.
        TooLarge: It is larger than the limit, or would be after its decompression.
        TooSlow: It did not arrive in time.
        WrongType: It is encoded in a way that is not known.
    """
    length = call.headers.get(b"content-length")
    if length is not None and int(length) > limits.body_bytes:
        raise TooLarge(f"A body has at most {limits.body_bytes:,} bytes, got {int(length):,}.")
    message = await call.receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        body = await _rest(call.receive, body, limits)
    if message["type"] == "http.disconnect":
        raise Invalid("The connection was closed before the body had arrived.")
    if b"content-encoding" in call.headers:
        return await asyncio.to_thread(_decompressed, body, call.headers[b"content-encoding"], limits.body_bytes)
    return body


async def _rest(receive: Receive, start: bytes, limits: Limits) -> bytes:
    parts, size = [start], len(start)
    try:
        async with asyncio.timeout(limits.body_seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Invalid("The connection was closed before the body had arrived.")
                parts.append(message["body"])
                size += len(message["body"])
                if size > limits.body_bytes:
                    raise TooLarge(f"A body has at most {limits.body_bytes:,} bytes.")
                if not message["more_body"]:
                    return b"".join(parts)
    except TimeoutError:
        raise TooSlow(f"The body did not arrive within {limits.body_seconds:g} s.") from None


def _decompressed(body: bytes, encoding: bytes, limit: int) -> bytes:
    """The body as it was before gzip or deflate; never more than ``limit`` bytes are made."""
    name = encoding.strip().lower()
    if name == b"identity":
        return body
    if name not in (b"gzip", b"x-gzip", b"deflate"):
        shown = encoding[:40].decode("latin-1")
        raise WrongType(
            f"Expected Content-Encoding gzip, deflate or identity, got {shown!r}.", field="content-encoding"
        )
    stream = zlib.decompressobj(zlib.MAX_WBITS if name == b"deflate" else zlib.MAX_WBITS | 16)
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise Invalid(f"The body is no {name.decode()}: {error}.", field="content-encoding") from None
    if len(plain) > limit:
        raise TooLarge(f"A body has at most {limit:,} bytes after its decompression.")
    if not stream.eof or stream.unused_data:
        problem = "it goes on after its end" if stream.eof else "it ends too early"
        raise Invalid(f"The body is no {name.decode()}: {problem}.", field="content-encoding")
    return plain
