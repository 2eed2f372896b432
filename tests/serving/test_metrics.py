"""How many rows came together, and how long requests waited: on ``/metrics``, summed over the workers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
from gateway_home import ENDPOINT, Home
from originals import serve_original, slow_model
from prometheus_client.parser import text_string_to_metric_families

from relevo.runtimes.batches import ROWS_EDGES, WAIT_EDGES_MS, BatchCounts
from relevo.serving.counters import Tally
from relevo.serving.metrics import exposition
from relevo.serving.model import Heartbeat


def samples(text: str) -> dict[tuple[str, str], float]:
    """The numbers of version 1, by name and upper bound."""
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("endpoint") == ENDPOINT and sample.labels.get("version") == "1"
    }


def report(worker: int, tally: Tally, waiting: int) -> Heartbeat:
    counters, rows = {ENDPOINT: {1: tally.frozen()}}, {ENDPOINT: {1: waiting}}
    return Heartbeat(worker, 1, f"{worker}", datetime(2013, 1, 1, tzinfo=UTC), counters=counters, waiting=rows)


def test_a_tally_counts_requests_by_their_rows() -> None:
    tally = Tally()
    for rows in (1, 1, 2, 3, 10_000, 20_000):
        tally.answered(rows, 1.0)
    tally.answered(0, 1.0, failed=True)

    sizes = dict(zip([*map(str, ROWS_EDGES), "more"], tally.frozen().sizes, strict=True))
    assert {edge: count for edge, count in sizes.items() if count} == {"1": 3, "2": 1, "5": 1, "10000": 1, "more": 1}


def test_batches_are_counted_by_rows_and_waiting_time() -> None:
    counts = BatchCounts()
    counts.add(1, [0.05])
    counts.add(30, [0.05, 7.0, 60_000.0])

    assert (counts.batches, counts.rows_total, sum(counts.rows)) == (2, 31, 2)
    assert counts.rows[ROWS_EDGES.index(50)] == 1
    assert [counts.waits[WAIT_EDGES_MS.index(edge)] for edge in (0.1, 10)] == [2, 1]
    assert counts.waits[-1] == 1
    assert counts.wait_ms_total == 60_007.1


def test_workers_are_summed_and_only_the_living_have_rows_that_wait() -> None:
    one, other = Tally(), Tally()
    one.answered(3, 1.0)
    other.answered(1, 1.0)
    other.batches.add(4, [1.0, 3.0])
    reports = [report(0, one, 5), report(1, other, 7), report(2, Tally(), 100)]
    got = samples(exposition(reports, reports[:2]).decode())

    assert got["relevo_request_rows_count", ""] == 2
    assert got["relevo_request_rows_sum", ""] == 4
    assert (got["relevo_request_rows_bucket", "1"], got["relevo_request_rows_bucket", "5"]) == (1, 2)
    assert (got["relevo_batch_rows_count", ""], got["relevo_batch_rows_sum", ""]) == (1, 4)
    assert (got["relevo_batch_wait_seconds_count", ""], got["relevo_batch_wait_seconds_sum", ""]) == (2, 0.004)
    assert got["relevo_waiting_rows", ""] == 12


def test_a_version_without_a_process_of_its_own_has_no_batches() -> None:
    tally = Tally()
    tally.answered(3, 1.0)
    got = samples(exposition([report(0, tally, 0)], []).decode())

    assert not [name for name, _ in got if "batch" in name]


def test_requests_that_wait_for_a_models_process_are_seen_and_counted_as_its_batches(home: Home) -> None:
    home.endpoint("buffered")
    serve_original(home, slow_model())
    with home.client() as client, ThreadPoolExecutor(8) as callers:
        sent = [callers.submit(ask, home, 700.0)]
        home.eventually(lambda: read(client).get(("relevo_waiting_rows", "")) == 0.0)
        sent += [callers.submit(ask, home, 1.0) for _ in range(6)]
        home.eventually(lambda: read(client)["relevo_waiting_rows", ""] >= 2)
        assert [one.result() for one in sent] == [200] * 7
        home.eventually(lambda: read(client)["relevo_batch_wait_seconds_count", ""] == 7)
        got = read(client)
    assert got["relevo_waiting_rows", ""] == 0
    assert got["relevo_batch_rows_sum", ""] == got["relevo_request_rows_sum", ""] == 7
    assert got["relevo_batch_rows_count", ""] < 7, "who waited went together"
    assert got["relevo_batch_rows_bucket", "1"] < got["relevo_batch_rows_count", ""]
    assert got["relevo_batch_wait_seconds_sum", ""] > 0.1


def ask(home: Home, distance: float) -> int:
    with home.client() as client:
        return home.predict(client, distance).status_code


def read(client: httpx.Client) -> dict[Any, float]:
    return samples(client.get("/metrics").text)
