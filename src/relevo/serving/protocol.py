"""Uvicorn's HTTP protocol with two additions: answers in one write, and a drain that cuts no request.

ASGI sends the head and the body of an answer as two messages, which become two system calls and two packets: a third of
what the gateway spends on a request. The application finds the other way as an extension of the scope.

A worker that stops closes a connection with the answer to the last request that it has received there, which says so.
Uvicorn closes it with the answer to the one that it works on, and forgets those that were sent behind it.
"""

from __future__ import annotations

import fcntl
import termios
from array import array
from collections.abc import Iterable
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

#: The extension's name. ``scope["extensions"][WHOLE](status, headers, body)`` says whether it has sent the answer; if
#: not, it is to be sent as ASGI has it. Who takes it takes it out of the scope, or request and answer stay in a cycle.
WHOLE = "relevo.http.response.whole"

Headers = Iterable[tuple[bytes, bytes]]


class Protocol(HttpToolsProtocol):
    """The protocol of a gateway worker's connections.

    Attributes:
        is_draining: Whether the connection is to be closed once everything that it has received is answered.
    """

    is_draining = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        send = partial(_send_whole, cycle, self)
        cycle.scope["extensions"] = {WHOLE: send}  # type: ignore[dict-item]  # ASGI says dicts
        super()._start_asgi_task(cycle, app)

    @property
    def has_more(self) -> bool:
        """Whether requests wait here that were received, read or not."""
        if self.pipeline:
            return True
        unread = array("i", [0])
        fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.FIONREAD, unread)
        return unread[0] > 0


def _send_whole(cycle: RequestResponseCycle, connection: Protocol, status: int, headers: Headers, body: bytes) -> bool:
    """Send an answer that nothing was sent of; False when ASGI's way is needed.

    ``headers`` are the application's own words, in lower case and with the body's length; the caller's never.
    """
    if cycle.response_started or cycle.flow.write_paused or cycle.scope["method"] == "HEAD":
        return False
    if cycle.disconnected:
        return True
    if connection.is_draining and not connection.has_more:
        cycle.keep_alive = False
    parts = [STATUS_LINE[status]]
    for name, value in (*cycle.default_headers, *headers):
        parts += name, b": ", value, b"\r\n"
        if name == b"connection":
            cycle.keep_alive = False
    if not cycle.keep_alive and b"connection" not in parts:
        parts.append(b"connection: close\r\n")
    parts += b"\r\n", body
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"".join(parts))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True
