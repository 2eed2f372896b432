"""Prometheus text: the counters of all gateway workers and boots, whichever worker is scraped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from relevo.runtimes.batches import ROWS_EDGES, WAIT_EDGES_MS
from relevo.serving.heartbeats import total, total_labels, total_shadows, total_shed
from relevo.serving.model import LATENCY_EDGES_MS, Counters, Heartbeat

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

_EDGES_S = [f"{edge / 1000:g}" for edge in LATENCY_EDGES_MS] + ["+Inf"]
_ROWS = [*map(str, ROWS_EDGES), "+Inf"]
_WAITS_S = [f"{edge / 1000:g}" for edge in WAIT_EDGES_MS] + ["+Inf"]
_ARM = ("endpoint", "version")
#: An endpoint and a version, and what its share of the traffic came to.
_Count = tuple[tuple[str, str], Counters]


def exposition(reports: Sequence[Heartbeat], alive: Sequence[Heartbeat]) -> bytes:
    """The metrics text.

    Args:
        reports: The last report of every boot, of the living and the dead: counters are summed over them.
        alive: Those of workers that run: what is loaded now.
    """
    counts = [
        ((endpoint, str(version)), counters)
        for endpoint in sorted({name for one in reports for name in one.counters})
        for version, counters in sorted(total(reports, endpoint).items())
    ]
    registry = CollectorRegistry()
    registry.register(
        _Once(
            [
                *_traffic(counts),
                *_batches(counts, alive),
                *_shadows(reports),
                *_shed(reports),
                *_labels(reports),
                *_log(reports, alive),
                *_loaded(alive),
            ]
        )
    )
    return generate_latest(registry)


class _Once(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _traffic(counts: Sequence[_Count]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "relevo_requests", "Requests of a version's share of the traffic.", labels=(*_ARM, "outcome")
    )
    rows = CounterMetricFamily("relevo_rows", "Rows of those requests.", labels=_ARM)
    refused = CounterMetricFamily("relevo_refused_requests", "Requests with a wrong input.", labels=_ARM)
    addressed = CounterMetricFamily(
        "relevo_addressed_requests", "Requests that named the version by header.", labels=_ARM
    )
    explained = CounterMetricFamily("relevo_explained_requests", "Requests for contributions.", labels=_ARM)
    replaced = CounterMetricFamily(
        "relevo_replaced_processes",
        "Processes of a model that hung, died or grew too large, and were replaced.",
        labels=_ARM,
    )
    unlogged = CounterMetricFamily(
        "relevo_unlogged_requests", "Requests turned away since the log could not take them.", labels=_ARM
    )
    unfilled = CounterMetricFamily(
        "relevo_unfilled_requests", "Requests turned away since the online store could not be asked.", labels=_ARM
    )
    unsampled = CounterMetricFamily(
        "relevo_unsampled_rows", "Answered rows that the sample of the log leaves out.", labels=_ARM
    )
    missed = CounterMetricFamily(
        "relevo_missed_rows", "Answered rows that were to be logged and were not, since the log was full.", labels=_ARM
    )
    latency = HistogramMetricFamily(
        "relevo_request_duration_seconds", "From the whole body read to the answer ready.", labels=_ARM
    )
    for arm, counters in counts:
        requests.add_metric((*arm, "ok"), counters.requests - counters.failed)
        requests.add_metric((*arm, "failed"), counters.failed)
        rows.add_metric(arm, counters.rows)
        refused.add_metric(arm, counters.refused)
        addressed.add_metric(arm, counters.addressed)
        explained.add_metric(arm, counters.explained)
        replaced.add_metric(arm, counters.replaced)
        unlogged.add_metric(arm, counters.unlogged)
        unfilled.add_metric(arm, counters.unfilled)
        unsampled.add_metric(arm, counters.unsampled_rows)
        missed.add_metric(arm, counters.missed_rows)
        latency.add_metric(arm, _buckets(_EDGES_S, counters.latency), counters.latency_ms_total / 1000)
    yield from (requests, rows, refused, addressed, explained, replaced, unlogged, unfilled, unsampled, missed, latency)


def _batches(counts: Sequence[_Count], alive: Sequence[Heartbeat]) -> Iterator[Metric]:
    """How many rows came together: in requests, and in the calls of models that have a process of their own."""
    sizes = HistogramMetricFamily("relevo_request_rows", "Rows of a request.", labels=_ARM)
    batches = HistogramMetricFamily("relevo_batch_rows", "Rows of a call of a model's own process.", labels=_ARM)
    waits = HistogramMetricFamily(
        "relevo_batch_wait_seconds",
        "From a request's rows complete to its call of the model's own process.",
        labels=_ARM,
    )
    waiting = GaugeMetricFamily("relevo_waiting_rows", "Rows that wait for a model's own process.", labels=_ARM)
    for arm, counters in counts:
        sizes.add_metric(arm, _buckets(_ROWS, counters.sizes), counters.rows)
        if any(counters.batches):
            batches.add_metric(arm, _buckets(_ROWS, counters.batches), counters.batch_rows)
            waits.add_metric(arm, _buckets(_WAITS_S, counters.waits), counters.wait_ms_total / 1000)
    sums: Counter[tuple[str, int]] = Counter()
    for one in alive:
        for endpoint, versions in one.waiting.items():
            sums.update({(endpoint, version): rows for version, rows in versions.items()})
    for (endpoint, version), rows in sorted(sums.items()):
        waiting.add_metric((endpoint, str(version)), rows)
    yield from (sizes, batches, waits, waiting)


def _buckets(edges: Sequence[str], counts: Sequence[int]) -> list[tuple[str, float]]:
    return list(zip(edges, accumulate(counts), strict=True))


def _shadows(reports: Sequence[Heartbeat]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "relevo_shadow_requests", "Copies of requests, by what became of them.", labels=(*_ARM, "outcome")
    )
    compared = CounterMetricFamily("relevo_shadow_compared_rows", "Rows that both versions answered.", labels=_ARM)
    difference = CounterMetricFamily(
        "relevo_shadow_difference", "Sum of the absolute differences of those rows' predictions.", labels=_ARM
    )
    changed = CounterMetricFamily(
        "relevo_shadow_changed_rows", "Those of them that are decided otherwise.", labels=_ARM
    )
    unlogged = CounterMetricFamily(
        "relevo_shadow_unlogged_requests", "Copies whose answer the log did not take.", labels=_ARM
    )
    latency = HistogramMetricFamily(
        "relevo_shadow_duration_seconds", "From taking up a copy to its answer ready.", labels=_ARM
    )
    for endpoint in sorted({name for one in reports for name in one.shadows}):
        for version, counters in sorted(total_shadows(reports, endpoint).items()):
            arm = (endpoint, str(version))
            requests.add_metric((*arm, "ok"), counters.requests - counters.failed)
            requests.add_metric((*arm, "failed"), counters.failed)
            requests.add_metric((*arm, "unfilled"), counters.unfilled)
            requests.add_metric((*arm, "dropped"), counters.dropped)
            compared.add_metric(arm, counters.compared_rows)
            difference.add_metric(arm, counters.difference_total)
            changed.add_metric(arm, counters.changed_rows)
            unlogged.add_metric(arm, counters.unlogged)
            latency.add_metric(arm, _buckets(_EDGES_S, counters.latency), counters.latency_ms_total / 1000)
    yield from (requests, compared, difference, changed, unlogged, latency)


def _shed(reports: Sequence[Heartbeat]) -> Iterator[Metric]:
    shed = CounterMetricFamily(
        "relevo_shed_requests", "Requests sent away with 429 before they waited.", labels=("endpoint", "reason")
    )
    for (endpoint, reason), requests in sorted(total_shed(reports).items()):
        shed.add_metric((endpoint, reason), requests)
    yield shed


def _log(reports: Sequence[Heartbeat], alive: Sequence[Heartbeat]) -> Iterator[Metric]:
    failures = CounterMetricFamily("relevo_log_write_failures", "Batches of the log that could not be written.")
    failures.add_metric((), sum(one.log.failures for one in reports))
    lost = CounterMetricFamily("relevo_log_lost_frames", "Requests whose record was dropped with such a batch.")
    lost.add_metric((), sum(one.log.lost_frames for one in reports))
    waiting = GaugeMetricFamily("relevo_log_waiting_bytes", "Bytes of the log that wait for the disk.")
    waiting.add_metric((), sum(one.log.waiting_bytes for one in alive))
    yield from (failures, lost, waiting)


def _labels(reports: Sequence[Heartbeat]) -> Iterator[Metric]:
    labels = CounterMetricFamily("relevo_labels", "Labels received.", labels=("endpoint", "result"))
    for endpoint in sorted({name for one in reports for name in one.labels}):
        counts = total_labels(reports, endpoint)
        labels.add_metric((endpoint, "accepted"), counts.accepted)
        labels.add_metric((endpoint, "duplicate"), counts.duplicates)
        labels.add_metric((endpoint, "conflict"), counts.conflicts)
        labels.add_metric((endpoint, "unknown"), counts.unknown)
    yield labels


def _loaded(alive: Sequence[Heartbeat]) -> Iterator[Metric]:
    workers = GaugeMetricFamily("relevo_gateway_workers", "Gateway workers that run.")
    workers.add_metric((), len(alive))
    loaded = GaugeMetricFamily(
        "relevo_version_loaded", "1 when the worker has loaded and probed the version.", labels=(*_ARM, "worker")
    )
    resting = GaugeMetricFamily(
        "relevo_versions_resting", "Placed versions that are out of memory until they are asked.", labels=("worker",)
    )
    memory = GaugeMetricFamily(
        "relevo_model_memory_bytes", "What the versions in memory are counted to take.", labels=("worker",)
    )
    budget = GaugeMetricFamily(
        "relevo_model_memory_budget_bytes", "What the versions in memory may take.", labels=("worker",)
    )
    for one in alive:
        worker = (str(one.worker),)
        resting.add_metric(worker, one.resting)
        memory.add_metric(worker, one.memory_bytes)
        budget.add_metric(worker, one.budget_bytes)
        for endpoint, versions in sorted(one.loaded.items()):
            for version, state in sorted(versions.items()):
                loaded.add_metric((endpoint, str(version), str(one.worker)), float(state == "ready"))
    yield from (workers, loaded, resting, memory, budget)
