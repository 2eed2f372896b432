"""Processes that end with the one that started them, however that one ends."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Get ``number`` from the kernel when the parent process ends; at once when it is gone already.

    Args:
        parent: Process id of the parent, as it said itself: asking the kernel here would be too late for one that died.
        number: SIGTERM to stop cleanly, SIGKILL where nothing needs to be put away.
    """
    if hasattr(ctypes.CDLL(None), "prctl"):  # Linux; elsewhere children end when their pipes or sockets do
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)
