"""Ports for servers of a test's own."""

from __future__ import annotations

import socket
from contextlib import ExitStack


def free_ports(count: int) -> list[int]:
    """Different ports on which nobody listens now."""
    with ExitStack() as held:
        taken = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in taken]


def free_port() -> int:
    """A port on which nobody listens now."""
    return free_ports(1)[0]
