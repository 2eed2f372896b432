"""Read new classes with ``encoding.parse`` from threads that all begin at the same time.

msgspec works out a class when it first reads it, and two threads that do so at once crash the process: without the lock
in ``parse`` it dies here within the first few classes.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
from typing import Any

from relevo.platform.encoding import parse

CLASSES = 200
THREADS = 8
VALUE = {"leaf": {"a1": 1}, "leaves": [{"a2": 2}], "named": {"x": {}}}


def new_class(number: int) -> Any:
    """A class that reads another one, in several places."""
    fields: list[Any] = [(f"a{place}", int | None, None) for place in range(30)]
    leaf: Any = dataclasses.make_dataclass(f"Leaf{number}", fields, frozen=True, slots=True)
    parts: list[Any] = [("leaf", leaf), ("leaves", tuple[leaf, ...]), ("named", dict[str, leaf])]
    return dataclasses.make_dataclass(f"Tree{number}", parts, frozen=True, slots=True)


def read_at_once(kind: Any) -> int:
    """How many threads have read the class right."""
    barrier = threading.Barrier(THREADS)
    read: list[bool] = []

    def run() -> None:
        barrier.wait()
        found = parse(kind, VALUE)
        read.append((found.leaf.a1, found.leaves[0].a2, found.named["x"].a1) == (1, 2, None))

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(read)


if __name__ == "__main__":
    sys.setswitchinterval(1e-6)
    whole = sum(read_at_once(new_class(number)) == THREADS for number in range(CLASSES))
    print(f"{whole} classes were read by {THREADS} threads each")
