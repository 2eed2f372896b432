"""Error budgets and how fast they burn: pure decisions, in wall time.

The objectives are those of the contract's service level: at most ``error_rate`` of the requests fail, and at most 1%
are slower than ``p99_ms``. A burn rate of 1 uses the budget up in exactly its period. The rules are the multiwindow,
multi-burn-rate alerts of Beyer et al., The Site Reliability Workbook (2018), chapter 5: the long window says that it
matters, the short one that it still goes on, so that an alert ends soon after its cause.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from relevo.contract.durations import format_duration
from relevo.contract.model import ServiceLevel
from relevo.monitoring.model import AlertKind, Finding, Severity
from relevo.serving.model import Counters
from relevo.serving.policy import add, since, slower_than

#: Over which the budget is counted.
PERIOD = timedelta(days=30)
#: Fewer requests, or fewer bad ones, in the long window are no rate: one failure of ten is no incident.
MIN_REQUESTS, MIN_BAD = 50, 5
#: An error rate of 0 leaves no budget to burn; this stands in for it.
LEAST_BUDGET = 1e-6
#: A rate of exactly a rule's factor holds, also where division makes 14.399999 of 14.4.
_NEARLY = 1 - 1e-9


class Counted(NamedTuple):
    """What callers of an endpoint got: requests, those that failed, those that were too slow."""

    requests: int = 0
    failed: int = 0
    slow: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """An alert when both windows burn at least ``factor`` times as fast as they may."""

    long: timedelta
    short: timedelta
    factor: float
    severity: Severity


RULES = (
    Rule(timedelta(hours=1), timedelta(minutes=5), 14.4, Severity.CRITICAL),  # 2% of the budget in an hour
    Rule(timedelta(hours=6), timedelta(minutes=30), 6.0, Severity.CRITICAL),  # 5% in six hours
    Rule(timedelta(days=3), timedelta(hours=6), 1.0, Severity.WARNING),  # 10% in three days
)
#: Every window that a rule or a page looks at, the shortest first.
WINDOWS = tuple(sorted({PERIOD, *(rule.long for rule in RULES), *(rule.short for rule in RULES)}))


@dataclass(frozen=True, slots=True)
class Objective:
    """What may be bad: a share of the requests, in words for messages."""

    kind: AlertKind
    budget: float
    words: str

    def bad(self, counted: Counted) -> int:
        """Which requests used the budget."""
        return counted.failed if self.kind is AlertKind.ERROR_BUDGET else counted.slow


@dataclass(frozen=True, slots=True)
class BudgetState:
    """How an objective stands. ``left`` is the share of the budget of the period that is left, below 0 when overspent.

    ``burn`` is the burn rate by window in words (``5m``); None where nobody asked.
    """

    kind: AlertKind
    words: str
    allowed: float
    requests: int
    bad: int
    left: float
    burn: dict[str, float | None]


def objectives(slo: ServiceLevel) -> tuple[Objective, Objective]:
    """The two objectives of a service level."""
    return (
        Objective(AlertKind.ERROR_BUDGET, max(slo.error_rate, LEAST_BUDGET), "failed"),
        Objective(AlertKind.LATENCY_BUDGET, 0.01, f"took more than {slo.p99_ms:g} ms"),
    )


def increase(after: Mapping[int, Counters], before: Mapping[int, Counters] | None) -> dict[int, Counters]:
    """What was counted between two readings of the gateway's counters, by version.

    Counters are summed over all boots and only grow. When they have shrunk all the same, since reports were deleted,
    nothing is known of the time between. ``before`` None: there was no reading yet; what came earlier is not counted.
    """
    if before is None:
        return {}
    grown = {version: since(counters, before.get(version)) for version, counters in after.items()}
    has_shrunk = any(each.requests < 0 or min(each.latency) < 0 for each in grown.values())
    return {} if has_shrunk or before.keys() - after.keys() else grown


def seen_by_callers(counted: Mapping[int, Counters], canaries: Collection[int], limit_ms: float) -> Counted:
    """What callers got. Requests that a canary failed were answered by the champion, which counted them too.

    Requests that were turned away, since the log or the online store could not be used, failed for whoever sent them.

    >>> seen_by_callers({1: Counters(requests=90, failed=1), 2: Counters(requests=10, failed=10)}, {2}, 50)
    Counted(requests=90, failed=1, slow=0)
    """
    total, answered_again = Counters(), 0
    for version, counters in counted.items():
        total = add(total, counters)
        if version in canaries:
            answered_again += counters.failed
    turned_away = total.unlogged + total.unfilled
    return Counted(
        requests=total.requests - answered_again + turned_away,
        failed=total.failed - answered_again + turned_away,
        slow=slower_than(total, limit_ms),
    )


def burn_rate(objective: Objective, counted: Counted) -> float | None:
    """How many times as fast as it may the budget burns; None without a request.

    >>> burn_rate(Objective(AlertKind.ERROR_BUDGET, 0.001, "failed"), Counted(1000, 2, 0))
    2.0
    """
    return objective.bad(counted) / counted.requests / objective.budget if counted.requests else None


def budget_left(objective: Objective, counted: Counted) -> float:
    """The share of the budget that is left after ``counted``, which is what the period has seen so far.

    >>> budget_left(Objective(AlertKind.ERROR_BUDGET, 0.001, "failed"), Counted(10_000, 4, 0))
    0.6
    """
    return 1.0 - (burn_rate(objective, counted) or 0.0)


def judge(endpoint: str, objective: Objective, windows: Mapping[timedelta, Counted]) -> Finding:
    """The first rule that holds, as an alert; without one the alert is over."""
    for rule in RULES:
        long, short = windows.get(rule.long, Counted()), windows.get(rule.short, Counted())
        is_enough = long.requests >= MIN_REQUESTS and objective.bad(long) >= MIN_BAD
        rates = [burn_rate(objective, counted) or 0.0 for counted in (long, short)]
        if is_enough and all(rate >= rule.factor * _NEARLY for rate in rates):
            left = budget_left(objective, windows.get(PERIOD, Counted()))
            return Finding(objective.kind, rule.severity, True, _message(endpoint, objective, rule, rates, long, left))
    return Finding(objective.kind, Severity.WARNING, False, "")


def state_of(objective: Objective, windows: Mapping[timedelta, Counted]) -> BudgetState:
    """How the objective stands, for people."""
    period = windows.get(PERIOD, Counted())
    return BudgetState(
        kind=objective.kind,
        words=objective.words,
        allowed=objective.budget,
        requests=period.requests,
        bad=objective.bad(period),
        left=budget_left(objective, period),
        burn={
            format_duration(window): burn_rate(objective, windows.get(window, Counted()))
            for window in WINDOWS
            if window != PERIOD
        },
    )


def _message(endpoint: str, objective: Objective, rule: Rule, rates: list[float], long: Counted, left: float) -> str:
    share = objective.bad(long) / long.requests
    spent = f"{left:.0%} of it is left" if left > 0 else f"it is spent {1 - left:.1f} times over"
    return (
        f"{endpoint} burns its budget {rates[0]:.1f} times as fast as it may: {share:.2%} of {long.requests:,} "
        f"requests in {format_duration(rule.long)} {objective.words}, allowed are {objective.budget:.2%} "
        f"({rates[1]:.1f} times in the last {format_duration(rule.short)}). Of the {PERIOD.days} days' budget, {spent}."
    )
