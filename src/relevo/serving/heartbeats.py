"""Files by which gateway workers report: what they have loaded, which route they follow, what they counted.

One file a boot of a worker, ``gateway/worker-<worker>-<boot>.json``, replaced atomically. Files of earlier boots stay,
since counters are sums over all boots; only a live worker's word on what is loaded counts.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from relevo.serving.model import Counters, Heartbeat, LabelCounters, LogLosses, ShadowCounters
from relevo.serving.policy import add, add_labels

#: A worker that has not reported for this long is taken for dead or hung. It reports at least every second.
MAX_AGE = timedelta(seconds=6)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Heartbeat).decode


def write(folder: Path, heartbeat: Heartbeat) -> None:
    """Replace the worker's file. Readers see the old one or the new one, never a part.

    Not synced: after a power cut every worker starts a new boot.
    """
    path = folder / f"worker-{heartbeat.worker}-{heartbeat.boot}.json"
    draft = path.with_suffix(".tmp")
    draft.write_bytes(_encode(heartbeat))
    draft.replace(path)


def read(folder: Path) -> list[Heartbeat]:
    """Every boot's last report, of the living and the dead."""
    found = []
    for path in sorted(folder.glob("worker-*.json")):
        with contextlib.suppress(FileNotFoundError):
            found.append(_read_one(path))
    return found


def alive(heartbeats: Iterable[Heartbeat], now: datetime) -> list[Heartbeat]:
    """The reports of workers that run: the newest of each worker, not too old, its process there."""
    newest: dict[int, Heartbeat] = {}
    for heartbeat in heartbeats:
        known = newest.get(heartbeat.worker)
        if known is None or heartbeat.at > known.at:
            newest[heartbeat.worker] = heartbeat
    return [one for one in newest.values() if now - one.at <= MAX_AGE and Path(f"/proc/{one.pid}").exists()]


def total(heartbeats: Iterable[Heartbeat], endpoint: str) -> dict[int, Counters]:
    """The endpoint's counters by version, over all workers and boots."""
    sums: dict[int, Counters] = {}
    for heartbeat in heartbeats:
        for version, counters in heartbeat.counters.get(endpoint, {}).items():
            sums[version] = add(sums[version], counters) if version in sums else counters
    return sums


def total_shadows(heartbeats: Iterable[Heartbeat], endpoint: str) -> dict[int, ShadowCounters]:
    """The counters of the endpoint's shadows by version, over all workers and boots."""
    sums: dict[int, ShadowCounters] = {}
    for heartbeat in heartbeats:
        for version, counters in heartbeat.shadows.get(endpoint, {}).items():
            sums[version] = add(sums[version], counters) if version in sums else counters
    return sums


def total_labels(heartbeats: Iterable[Heartbeat], endpoint: str) -> LabelCounters:
    """The endpoint's label counters over all workers and boots."""
    sums = LabelCounters()
    for heartbeat in heartbeats:
        if endpoint in heartbeat.labels:
            sums = add_labels(sums, heartbeat.labels[endpoint])
    return sums


def total_shed(heartbeats: Iterable[Heartbeat]) -> Counter[tuple[str, str]]:
    """How many requests were sent away by endpoint and reason, over all workers and boots."""
    sums: Counter[tuple[str, str]] = Counter()
    for heartbeat in heartbeats:
        for endpoint, reasons in heartbeat.shed.items():
            sums.update({(endpoint, reason): requests for reason, requests in reasons.items()})
    return sums


def log_losses(heartbeats: Sequence[Heartbeat], alive: Sequence[Heartbeat]) -> dict[str, LogLosses]:
    """What of each endpoint was not logged, over all workers and boots, and why the log cannot be written now."""
    error = next((one.log.error for one in alive if one.log.error is not None), None)
    sums: dict[str, LogLosses] = {}
    for heartbeat in heartbeats:
        for endpoint, versions in heartbeat.counters.items():
            before = sums.get(endpoint, LogLosses())
            sums[endpoint] = LogLosses(
                missed_rows=before.missed_rows + sum(one.missed_rows for one in versions.values()),
                unlogged=before.unlogged + sum(one.unlogged for one in versions.values()),
                error=error,
            )
    return sums


def _read_one(path: Path) -> Heartbeat:
    return _decode(path.read_bytes())
