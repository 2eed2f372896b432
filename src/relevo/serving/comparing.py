"""How what a shadow answers compares with what callers got, and the counters of it in a worker."""

from __future__ import annotations

from bisect import bisect_left
from operator import ne

from relevo.contract.model import Task
from relevo.runtimes.exchange import Predictions
from relevo.runtimes.model import Signature
from relevo.serving.model import LATENCY_EDGES_MS, ShadowCounters


class ShadowTally:
    """Running counts of one shadow, as `ShadowCounters` names them. The event loop alone writes."""

    __slots__ = (
        "_frozen",
        "changed_rows",
        "compared_rows",
        "decided_rows",
        "difference_total",
        "dropped",
        "failed",
        "latency",
        "latency_ms_total",
        "requests",
        "unfilled",
        "unlogged",
    )

    def __init__(self) -> None:
        self.requests = self.failed = self.dropped = self.unfilled = self.unlogged = 0
        self.compared_rows = self.decided_rows = self.changed_rows = 0
        self.difference_total = self.latency_ms_total = 0.0
        self.latency = [0] * (len(LATENCY_EDGES_MS) + 1)
        self._frozen = ShadowCounters()

    def asked(self, latency_ms: float, *, failed: bool = False) -> None:
        """Count a copy that the shadow was asked with."""
        self.requests += 1
        self.failed += failed
        self.latency_ms_total += latency_ms
        self.latency[bisect_left(LATENCY_EDGES_MS, latency_ms)] += 1

    def compared(self, given: Predictions, got: Predictions, signature: Signature) -> None:
        """Count how the answers for the same rows differ; both are by ``signature``."""
        self.compared_rows += len(given)
        self.difference_total += sum(map(difference, given, got))
        if signature.task is Task.CLASSIFICATION:
            self.decided_rows += len(given)
            self.changed_rows += sum(map(ne, map(decision, given), map(decision, got)))

    def frozen(self) -> ShadowCounters:
        """The counts now; the same object as long as nothing is counted."""
        before = self._frozen
        known = (before.requests, before.dropped, before.unfilled)
        if known != (self.requests, self.dropped, self.unfilled):
            self._frozen = ShadowCounters(
                requests=self.requests,
                failed=self.failed,
                dropped=self.dropped,
                unfilled=self.unfilled,
                unlogged=self.unlogged,
                compared_rows=self.compared_rows,
                decided_rows=self.decided_rows,
                changed_rows=self.changed_rows,
                difference_total=self.difference_total,
                latency_ms_total=self.latency_ms_total,
                latency=tuple(self.latency),
            )
        return self._frozen


class ShadowTallies:
    """The counts of every shadow of a worker's boot. They outlive the routes that named it."""

    def __init__(self) -> None:
        self._versions: dict[tuple[str, int], ShadowTally] = {}

    def of(self, endpoint: str, version: int) -> ShadowTally:
        """The tally of that version; made on the first call."""
        return self._versions.setdefault((endpoint, version), ShadowTally())

    def versions(self) -> dict[str, dict[int, ShadowCounters]]:
        """The counts by endpoint and version."""
        counts: dict[str, dict[int, ShadowCounters]] = {}
        for (endpoint, version), tally in self._versions.items():
            counts.setdefault(endpoint, {})[version] = tally.frozen()
        return counts


def are_comparable(one: Signature, other: Signature) -> bool:
    """Whether predictions of both mean the same: of the same task, and the same classes in the same order."""
    return one.task is other.task and one.classes == other.classes


def difference(one: float | list[float], other: float | list[float]) -> float:
    """The absolute difference of two predictions; with more than two classes the mean over the classes.

    >>> round(difference(0.75, 0.5), 3), round(difference([0.5, 0.25, 0.25], [0.75, 0.25, 0.0]), 4)
    (0.25, 0.1667)
    """
    ones = one if isinstance(one, list) else [one]
    others = other if isinstance(other, list) else [other]
    return sum(abs(a - b) for a, b in zip(ones, others, strict=True)) / len(ones)


def decision(prediction: float | list[float]) -> int:
    """The index of the class that a prediction decides for; the second of two from a probability of 0.5 on.

    >>> decision(0.5), decision(0.49), decision([0.2, 0.5, 0.3])
    (1, 0, 1)
    """
    if isinstance(prediction, list):
        return max(range(len(prediction)), key=prediction.__getitem__)
    return int(prediction >= 0.5)
