"""One connection to the gateway: HTTP/1.1 by uvicorn and httptools, with a bound and a reason for what goes wrong.

What uvicorn leaves open, and callers meet: heads of requests without end, heads that never come, offers to speak HTTP/2
(which Java's client makes with its first request, and whose body was lost), an answer that overtakes the one before it.
"""

from __future__ import annotations

from asyncio import Transport
from typing import Any, cast

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from relevo.errors import Invalid, RelevoError, TooLarge
from relevo.serving import inference_protocol
from relevo.serving.calls import Receive, Scope, Send, TooSlow
from relevo.serving.protocol import Protocol

#: Of a request's line and headers, give or take what arrives at once.
HEAD_BYTES = 65_536
#: For a request's head to arrive.
HEAD_SECONDS = 30.0

_encode = msgspec.json.Encoder().encode


class HeadTooLarge(TooLarge):
    """The request's line and headers are larger than the limit."""

    code = "head_too_large"
    http_status = 431


class Connection(Protocol):
    """Reads requests from one connection, and starts the application for each."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.scope: Any = {}
        self.url = b""
        self._unfinished: Any = None  # the scope of a request whose head is not there yet
        self._head_bytes = 0
        self._head_deadline = 0.0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """A connection that asks nothing is closed like one that asks nothing more."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        """Parse what has come; the callbacks do the rest."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_on(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(Invalid(f"The request is not HTTP/1.1: {_cause(error)}."))
            return
        if "method" not in self.scope:
            self._wait_for_head(len(data))

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """A caller that has sent all it wants to still gets its answer."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return None
        self.cycle.keep_alive = False
        return True

    def _wait_for_head(self, size: int) -> None:
        if self._unfinished is not self.scope:
            self._unfinished = self.scope
            self._head_bytes = 0  # what came with its beginning may belong to requests before it
            self._head_deadline = self.loop.time() + HEAD_SECONDS
        else:
            self._head_bytes += size
        if self._head_bytes > HEAD_BYTES:
            self._refuse(HeadTooLarge(f"The line and the headers of a request have at most {HEAD_BYTES:,} bytes."))
        elif self.cycle is None or self.cycle.response_complete:
            self.timeout_keep_alive_task = self.loop.call_at(self._head_deadline, self._give_up)

    def _give_up(self) -> None:
        self._refuse(TooSlow(f"The head of the request did not arrive within {HEAD_SECONDS:g} s."))

    def _read_on(self, data: bytes) -> None:
        """Go on in HTTP/1.1 after a request that offers another protocol: the parser takes it for the last one.

        A parser in its place begins with the framing of the same request, so that it reads the body.
        """
        parser = httptools.HttpRequestParser(_Body(self))
        framing = [
            b"%b: %b\r\n" % header for header in self.headers if header[0] in (b"content-length", b"transfer-encoding")
        ]
        if framing:
            self.cycle.more_body = True
        self.parser = parser
        try:
            parser.feed_data(b"".join([b"POST / HTTP/1.1\r\n", *framing, b"\r\n"]))
        except httptools.HttpParserError as error:  # it was parsed once
            raise RuntimeError("the framing of a request cannot be read again") from error
        if data:
            self.data_received(data)

    def _refuse(self, error: RelevoError) -> None:
        """Answer what is no request and close, once the requests before it have their answers."""
        cycle = self.cycle
        if self.transport.is_closing():
            return
        if self.pipeline and cycle.more_body:
            self.pipeline[0] = (cycle, cast(Any, _Refusal(error)))
            cycle.keep_alive = False
        elif cycle is not None and not cycle.response_complete and not cycle.more_body:
            cycle.keep_alive = False
        else:
            body = _said(error, self.url.decode("latin-1"))
            head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[error.http_status] + head + body)
            self.transport.close()


class _Refusal:
    """The application for a request that turned out to be none while it waited for its turn."""

    def __init__(self, error: RelevoError) -> None:
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.pop("extensions", None)
        body = _said(self._error, scope["path"])
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": self._error.http_status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class _Body:
    """The callbacks of a parser that begins with the body of a request, whose head is known."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._is_known = True
        self.on_body = connection.on_body

    def on_message_begin(self) -> None:
        if not self._is_known:
            self._connection.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._is_known:
            self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_known:
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self._is_known:
            self._connection.on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_known = False
        self._connection.on_message_complete()


def _said(error: RelevoError, path: str) -> bytes:
    return inference_protocol.refusal(error) if path.startswith("/v2/") else _encode(error.as_json())


def _cause(error: httptools.HttpParserError) -> str:
    text = str(error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else error)
    return f"{text[:1].lower()}{text[1:200]}" if text else "it cannot be read"
