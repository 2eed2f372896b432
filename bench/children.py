"""The child's side of a measured process: answers calls until its input ends. Needs the standard library alone.

A call is a line of JSON on standard input, its answer a line of JSON on what was standard output. Whatever a library
prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

Function = Callable[..., Any]


def serve(functions: Mapping[str, Function]) -> None:
    """Answer calls of ``functions`` by name; each answer carries the most memory that this process has held."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            said = {"value": functions[asked["call"]](**asked["arguments"])}
        except Exception as error:
            traceback.print_exc()
            said = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said | {"peak_mb": peak_mb()}), file=answers, flush=True)


def peak_mb() -> float:
    """The most memory that this process has had resident."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """How long the call takes, and what it gives."""
    began = time.perf_counter()
    given = call()
    return time.perf_counter() - began, given


def microseconds_of(call: Callable[[Any], Any], arguments: Sequence[Any], first: int, calls: int) -> list[float]:
    """How long each of ``calls`` calls takes; arguments in turn, beginning with number ``first``."""
    times = []
    for argument in islice(cycle(arguments), first, first + calls):
        began = time.perf_counter_ns()
        call(argument)
        times.append((time.perf_counter_ns() - began) / 1e3)
    return times
