"""What ``serving.py`` makes of its measurements: medians, ratios within the rounds, the best peer, goals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from report import Goal, Report, median_of, median_ratio
from served_models import MODELS

TOLERANCE = 1e-6
LIMIT, OURS, DURABLE = "bare uvicorn", "Relevo, buffered", "Relevo, durable"
NOT_PEERS = (LIMIT, OURS, DURABLE)

Row = dict[str, Any]

#: Rows a request, callers and model, with the times of the best peer's rate that were set before the first run.
RATES = (
    (1, 16, "linear", 40.0),
    (1, 16, "boosted", 18.0),
    (1, 16, "uncompiled", 2.0),
    (1, 1, "linear", 15.0),
    (1, 1, "boosted", 8.0),
    (100, 16, "linear", 20.0),
    (100, 16, "boosted", 3.0),
    (100, 1, "linear", 20.0),
    (100, 1, "boosted", 3.0),
)
#: Shares of the limit with features, which no peer has.
SHARES = {"6 columns sent": 0.5, "20 columns sent": 0.4, "6 sent, 14 looked up": 0.3}


def summarise(report: Report) -> None:
    """Fill summary and goals."""
    cases = dict.fromkeys((one["workload"], one["rows"], one["callers"]) for one in report.measurements)
    for workload, rows, callers in cases:
        report.summary += _case(report.measurements, {"workload": workload, "rows": rows, "callers": callers})
    report.goals = list(_goals(report))


def rows_of(report: Report, workload: str, rows: int, callers: int) -> list[Row]:
    """The lines of one case."""
    which = {"workload": workload, "rows": rows, "callers": callers}
    return [row for row in report.summary if which.items() <= row.items()]


def line_of(report: Report, workload: str, rows: int, callers: int, server: str) -> Row | None:
    """The line of one server in one case, None when it was not measured."""
    found = [row for row in rows_of(report, workload, rows, callers) if row["server"] == server]
    return found[0] if found else None


def _case(measurements: Sequence[Row], which: Row) -> list[Row]:
    servers = dict.fromkeys(one["server"] for one in measurements if which.items() <= one.items())
    rates = {server: median_of(measurements, "requests_per_second", **which, server=server) for server in servers}
    waits = {server: median_of(measurements, "p99_ms", **which, server=server) for server in servers}
    peers = [server for server in servers if server not in NOT_PEERS]
    best, quickest = max(peers, key=rates.__getitem__, default=None), min(peers, key=waits.__getitem__, default=None)

    def beside(figure: str, server: str, other: str | None) -> float | None:
        if other is None:
            return None
        return median_ratio(measurements, figure, which | {"server": server}, which | {"server": other})

    return [
        which
        | {"server": server, "is_best_peer": server == best}
        | {
            figure: median_of(measurements, figure, **which, server=server)
            for figure in ("requests_per_second", "p50_ms", "p99_ms", "cpu_us_per_request")
        }
        | {
            "of_best_peer": beside("requests_per_second", server, best),
            "of_limit": beside("requests_per_second", server, LIMIT),
            "p99_of_lowest": beside("p99_ms", server, quickest),
            "cpu_of_limit": beside("cpu_us_per_request", server, LIMIT),
            "of_buffered": beside("requests_per_second", server, OURS),
        }
        for server in servers
    ]


def _goals(report: Report) -> Iterator[Goal]:
    """The goals whose case was measured."""
    yield Goal("largest difference from the models' own answers", TOLERANCE, report.checks["largest_difference"], False)
    at = partial(_figure, report)
    for rows, callers, model, target in RATES:
        measured = at(model, rows, callers, OURS, "of_best_peer")
        if measured is not None:
            yield Goal(f"{_words(rows, callers, model)}: times the best peer's rate", target, measured, True)
    for model in MODELS:
        if model != "uncompiled" and (measured := at(model, 1, 16, OURS, "p99_of_lowest")) is not None:
            yield Goal(f"{_words(1, 16, model)}: p99 beside the lowest of a peer", 0.1, measured, False)
    for workload, target in {"linear": 0.5, **SHARES}.items():
        if (measured := at(workload, 1, 16, OURS, "of_limit")) is not None:
            yield Goal(f"{_words(1, 16, workload)}: share of bare uvicorn's rate", target, measured, True)
    for workload in (*MODELS, *SHARES):
        if (measured := at(workload, 1, 16, DURABLE, "of_buffered")) is not None:
            yield Goal(f"{_words(1, 16, workload)}, durable: share of the buffered rate", 0.5, measured, True)


def _figure(report: Report, workload: str, rows: int, callers: int, server: str, figure: str) -> float | None:
    line = line_of(report, workload, rows, callers, server)
    return None if line is None else line[figure]


def _words(rows: int, callers: int, workload: str) -> str:
    return f"{workload}, {count(rows, 'row')}, {count(callers, 'caller')}"


def count(number: int, what: str) -> str:
    """``1 row``, ``100 rows``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
