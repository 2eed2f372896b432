"""What the batches of a model in a process of its own were: how large, and how long their requests had waited."""

from __future__ import annotations

import threading
from bisect import bisect_left

#: Upper bounds of the buckets of rows; one more holds what is larger.
ROWS_EDGES: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
#: Upper bounds of the buckets of waiting time, in milliseconds; one more holds what is longer.
WAIT_EDGES_MS: tuple[float, ...] = (0.1, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)


class BatchCounts:
    """Running counts. Several threads may write: a process that ends does so beside its successor.

    Attributes:
        batches: How many there were.
        rows: Batches by ``ROWS_EDGES``, shape ``(n_edges + 1,)``.
        rows_total: Rows of all batches.
        waits: Requests by ``WAIT_EDGES_MS``, shape ``(n_edges + 1,)``.
        wait_ms_total: How long they waited, all together.
    """

    __slots__ = ("_lock", "batches", "rows", "rows_total", "wait_ms_total", "waits")

    def __init__(self) -> None:
        self.batches = 0
        self.rows = [0] * (len(ROWS_EDGES) + 1)
        self.rows_total = 0
        self.waits = [0] * (len(WAIT_EDGES_MS) + 1)
        self.wait_ms_total = 0.0
        self._lock = threading.Lock()

    def add(self, rows: int, waits_ms: list[float]) -> None:
        """A batch of so many rows, whose requests have waited so long."""
        with self._lock:
            self.batches += 1
            self.rows[bisect_left(ROWS_EDGES, rows)] += 1
            self.rows_total += rows
            for wait_ms in waits_ms:
                self.waits[bisect_left(WAIT_EDGES_MS, wait_ms)] += 1
                self.wait_ms_total += wait_ms
