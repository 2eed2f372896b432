"""Processes that end with the one that started them, however that one ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

#: The variable in which the supervisor tells its children its process id.
SUPERVISOR_VARIABLE = "RELEVO_SUPERVISOR"

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, number: signal.Signals) -> None:
    """Get ``number`` from the kernel when the parent ends, and at once when it has ended already.

    Args:
        parent: Process id of the parent, as it said itself: to ask now would be too late when it is gone.
        number: SIGTERM where something has to be put away, SIGKILL elsewhere.
    """
    if sys.platform == "linux":  # elsewhere children end when their pipes or sockets do
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def die_with_supervisor() -> None:
    """Stop cleanly when the supervisor ends; nothing happens in a process that none started."""
    supervisor = os.environ.get(SUPERVISOR_VARIABLE)
    if supervisor is not None:
        die_with_parent(int(supervisor), signal.SIGTERM)
