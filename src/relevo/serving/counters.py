"""The counters that a gateway worker adds to on the request path; one writer, no locks."""

from __future__ import annotations

from bisect import bisect_left

from relevo.runtimes.batches import ROWS_EDGES, BatchCounts
from relevo.serving.model import LATENCY_EDGES_MS, Counters, LabelCounters
from relevo.serving.policy import add_labels


class Tally:
    """Running counts of one version of an endpoint. Not thread-safe: the event loop alone writes."""

    __slots__ = (
        "_frozen",
        "_frozen_at",
        "addressed",
        "batches",
        "explained",
        "failed",
        "latency",
        "latency_ms_total",
        "missed_rows",
        "refused",
        "replaced",
        "requests",
        "rows",
        "sizes",
        "unfilled",
        "unlogged",
        "unsampled_rows",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.rows = 0
        self.failed = 0
        self.refused = 0
        self.addressed = 0
        self.explained = 0
        self.replaced = 0
        self.unlogged = 0
        self.unfilled = 0
        self.unsampled_rows = 0
        self.missed_rows = 0
        self.latency_ms_total = 0.0
        self.latency = [0] * (len(LATENCY_EDGES_MS) + 1)
        self.sizes = [0] * (len(ROWS_EDGES) + 1)  # of more than one row: most have one, and are not worth the search
        self.batches = BatchCounts()  # written by the threads of the version's processes
        self._frozen = Counters()
        self._frozen_at = 0

    @property
    def activity(self) -> int:
        """A number that grows with whatever is counted."""
        asked = self.requests + self.refused + self.addressed + self.explained
        return asked + self.unlogged + self.unfilled + self.replaced + self.batches.batches

    def answered(self, rows: int, latency_ms: float, *, failed: bool = False) -> None:
        """Count a request of the arm's traffic."""
        self.requests += 1
        self.rows += rows
        self.failed += failed
        self.latency_ms_total += latency_ms
        self.latency[bisect_left(LATENCY_EDGES_MS, latency_ms)] += 1
        if rows > 1:
            self.sizes[bisect_left(ROWS_EDGES, rows)] += 1

    def frozen(self) -> Counters:
        """The counts now; the same object as long as nothing is counted."""
        activity = self.activity
        if activity == self._frozen_at:
            return self._frozen
        self._frozen_at = activity
        batches = self.batches
        self._frozen = Counters(
            requests=self.requests,
            rows=self.rows,
            failed=self.failed,
            refused=self.refused,
            addressed=self.addressed,
            explained=self.explained,
            replaced=self.replaced,
            unlogged=self.unlogged,
            unfilled=self.unfilled,
            unsampled_rows=self.unsampled_rows,
            missed_rows=self.missed_rows,
            latency_ms_total=self.latency_ms_total,
            latency=tuple(self.latency),
            sizes=(self.requests - sum(self.sizes), *self.sizes[1:]),
            batch_rows=batches.rows_total,
            batches=tuple(batches.rows),
            wait_ms_total=batches.wait_ms_total,
            waits=tuple(batches.waits),
        )
        return self._frozen


class Tallies:
    """All counts of a worker's boot. They outlive the versions that were unloaded."""

    def __init__(self) -> None:
        self._versions: dict[str, dict[int, Tally]] = {}
        self._labels: dict[str, LabelCounters] = {}

    def of(self, endpoint: str, version: int) -> Tally:
        """The tally of that version; made on the first call."""
        versions = self._versions.setdefault(endpoint, {})
        if version not in versions:
            versions[version] = Tally()
        return versions[version]

    def add_labels(self, endpoint: str, counts: LabelCounters) -> None:
        """Count what a labels request brought."""
        self._labels[endpoint] = add_labels(self._labels.get(endpoint, LabelCounters()), counts)

    def versions(self) -> dict[str, dict[int, Counters]]:
        """The counts by version of every endpoint that was asked anything."""
        counts: dict[str, dict[int, Counters]] = {}
        for endpoint, versions in self._versions.items():
            for version, tally in versions.items():
                if tally.activity:
                    counts.setdefault(endpoint, {})[version] = tally.frozen()
        return counts

    def labels(self) -> dict[str, LabelCounters]:
        """Every endpoint's label counts."""
        return dict(self._labels)
