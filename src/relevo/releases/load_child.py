"""The callers of a load test, in a process of their own: ``python -m relevo.releases.load_child``.

In the control plane their clocks would also measure what else happens there. Plain threads over kept connections: what
a request costs here is a small part of what it costs at the gateway.
"""

from __future__ import annotations

import http.client
import itertools
import json
import math
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relevo.platform.child import serve
from relevo.registry.load_rows import LoadRows, read_load_rows

#: The variable that holds the test's token; the job keeps its value out of every message.
TOKEN = "RELEVO_TOKEN"  # noqa: S105, a name
#: The first requests of each caller fill caches and are not measured.
WARM_UP = 5
#: A run ends after so long, with what it has measured by then.
RUN_SECONDS = 60.0
_REQUEST_SECONDS = 10.0
_READY_SECONDS = 10.0
_PAUSE_SECONDS = 0.1


class GatewayAway(Exception):
    """The gateway does not answer, or not yet: the test says nothing of the version."""


@dataclass
class Tally:
    """What all callers have measured. Each appends; the interpreter's lock is enough."""

    latencies_ms: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    away: list[str] = field(default_factory=list)
    timeouts: int = 0


def run(
    *,
    host: str,
    port: int,
    endpoint: str,
    version: int,
    bundle: str,
    sent: list[str],
    requests: int,
    concurrency: int,
    rows: int,
) -> dict[str, Any]:
    """One run over the rows of the bundle in the folder ``bundle``: figures, or ``{"away": why}``."""
    sample = read_load_rows(Path(bundle))
    assert isinstance(sample, LoadRows)
    bodies = sample.bodies(set(sent), rows)
    path = f"/endpoints/{endpoint}/invocations"
    headers = {
        "Authorization": f"Bearer {os.environ[TOKEN]}",
        "Content-Type": "application/json",
        "X-Relevo-Version": str(version),
    }
    callers = [Caller(host, port, path, headers) for _ in range(concurrency)]
    try:
        callers[0].wait_until_ready(bodies[0])
        seconds, tally = _send(callers, bodies, requests)
    except GatewayAway as error:
        return {"away": str(error)}
    if tally.away:
        return {"away": tally.away[0]}
    return _figures(tally, seconds)


class Caller:
    """One connection that is kept. Belongs to one thread at a time."""

    def __init__(self, host: str, port: int, path: str, headers: dict[str, str]) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=_REQUEST_SECONDS)
        self._path = path
        self._headers = headers

    def wait_until_ready(self, body: bytes) -> None:
        """Ask until the gateway knows the token and answers for the version.

        Raises:
            GatewayAway: It does not within ten seconds.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                if self.ask(body)[0] not in {401, 503}:
                    return
                why = "the version is not loaded"
            except (GatewayAway, TimeoutError) as error:
                why = str(error)
            if time.monotonic() >= deadline:
                raise GatewayAway(why)
            time.sleep(_PAUSE_SECONDS)

    def ask(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer.

        Raises:
            GatewayAway: The connection broke.
            TimeoutError: There was no answer in time.
        """
        try:
            self._connection.request("POST", self._path, body, self._headers)
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except TimeoutError:
            self._connection.close()
            raise
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise GatewayAway(f"{type(error).__name__}: {error}") from error


def _send(callers: list[Caller], bodies: list[bytes], requests: int) -> tuple[float, Tally]:
    """All requests over all callers; the seconds that the measured ones took."""
    turn, tally = itertools.count(), Tally()
    gate = threading.Barrier(len(callers) + 1)
    deadline = time.monotonic() + RUN_SECONDS

    def call(caller: Caller) -> None:
        for index in range(WARM_UP):
            _measure(caller, bodies[index % len(bodies)], Tally())
        gate.wait()
        # When every caller has waited in vain, going on would only cost time.
        while not tally.away and tally.timeouts < len(callers) and time.monotonic() < deadline:
            index = next(turn)
            if index >= requests:
                return
            _measure(caller, bodies[index % len(bodies)], tally)

    threads = [threading.Thread(target=call, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    gate.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started, tally


def _measure(caller: Caller, body: bytes, tally: Tally) -> None:
    started = time.perf_counter()
    try:
        status, content = caller.ask(body)
    except TimeoutError:
        tally.timeouts += 1
        tally.failures.append(f"no answer within {_REQUEST_SECONDS:g} s")
    except GatewayAway as error:
        tally.away.append(str(error))
        return
    else:
        if status == 503:
            tally.away.append(_message(content))
            return
        if status != 200:
            tally.failures.append(_message(content))
    tally.latencies_ms.append((time.perf_counter() - started) * 1000)


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"]["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return content[:200].decode(errors="replace")


def _figures(tally: Tally, seconds: float) -> dict[str, Any]:
    ordered = sorted(tally.latencies_ms)

    def quantile(share: float) -> float:
        """The nearest rank: the smallest latency that at least that share kept."""
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    return {
        "requests": len(ordered),
        "failed": len(tally.failures),
        "failure": tally.failures[0] if tally.failures else None,
        "p50_ms": quantile(0.5),
        "p95_ms": quantile(0.95),
        "p99_ms": quantile(0.99),
        "requests_per_second": len(ordered) / seconds,
    }


if __name__ == "__main__":
    serve({"run": run})
