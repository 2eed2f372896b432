"""What callers got from each endpoint, kept by minute and hour of wall time, and the alerts on its error budgets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from relevo.contract.model import ServiceLevel
from relevo.errors import NotFound
from relevo.monitoring import burn, store
from relevo.monitoring.burn import PERIOD, WINDOWS, BudgetState, Counted
from relevo.monitoring.model import AlertKind
from relevo.monitoring.service import Monitoring
from relevo.platform.state import State
from relevo.serving.model import Counters
from relevo.serving.service import Serving

MINUTE, HOUR = 60, 3600
#: Longer windows are summed from hours; minutes are kept a little longer than the longest window that needs them.
_BY_THE_MINUTE = timedelta(hours=6)
_KEPT = {MINUTE: _BY_THE_MINUTE + timedelta(hours=1), HOUR: PERIOD + timedelta(hours=1)}
_KINDS = (AlertKind.ERROR_BUDGET, AlertKind.LATENCY_BUDGET)


class ServiceLevels:
    """Counts and judges. One thread calls ``look``; reading is thread-safe.

    Args:
        state: The state store.
        monitoring: Raises and resolves the alerts.
        serving: The gateway's counters.
    """

    def __init__(self, state: State, *, monitoring: Monitoring, serving: Serving) -> None:
        self._state = state
        self._monitoring = monitoring
        self._serving = serving
        self._marks: dict[str, dict[int, Counters]] | None = None

    def look(self, now: datetime) -> None:
        """Count what came since the last look, also before a restart, and judge every endpoint. ``now``: wall time."""
        self._count(now)
        self._judge(now)

    def states(self, endpoint: str, now: datetime) -> list[BudgetState]:
        """How both objectives of the endpoint stand."""
        slo = self._monitoring.require(endpoint).release.slo
        windows = self._sums(now).get(endpoint, {})
        return [burn.state_of(objective, windows) for objective in burn.objectives(slo)]

    def hours(self, endpoint: str, since: datetime) -> list[tuple[datetime, Counted]]:
        """What was counted in each hour with a request, the oldest first."""
        with self._state.read() as tx:
            return store.counts_of(tx, endpoint, HOUR, since)

    def _count(self, now: datetime) -> None:
        if self._marks is None:
            with self._state.read() as tx:
                self._marks = store.all_marks(tx)
        read = self._serving.all_counters()
        changed = {name: counters for name, counters in read.items() if counters != self._marks.get(name)}
        if not changed:
            return
        levels = {name: self._level(name) for name in changed}
        with self._state.transaction() as tx:
            for name, counters in changed.items():
                grown = burn.increase(counters, self._marks.get(name))
                level = levels[name]
                if level is not None and grown:
                    counted = burn.seen_by_callers(grown, self._canaries(name), level.p99_ms)
                    for seconds in (MINUTE, HOUR) if any(counted) else ():
                        store.add_counts(tx, name, seconds, _begin(now, seconds), counted)
                store.set_mark(tx, name, counters)
            for seconds, kept in _KEPT.items():
                store.forget_counts(tx, seconds, now - kept)
        self._marks |= changed  # after the commit: one that failed is tried again

    def _judge(self, now: datetime) -> None:
        sums = self._sums(now)
        alerts = [alert for kind in _KINDS for alert in self._monitoring.alerts(open_only=True, kind=kind, limit=None)]
        known = {(alert.endpoint, alert.kind): alert for alert in alerts}
        for endpoint in sorted({*sums, *(endpoint for endpoint, _ in known)}):
            level = self._level(endpoint)
            if level is None:
                continue
            for objective in burn.objectives(level):
                finding = burn.judge(endpoint, objective, sums.get(endpoint, {}))
                self._monitoring.report_budget(endpoint, finding, known.get((endpoint, objective.kind)))

    def _sums(self, now: datetime) -> dict[str, dict[timedelta, Counted]]:
        """What was counted, by endpoint and window."""
        found: dict[str, dict[timedelta, Counted]] = {}
        with self._state.read() as tx:
            for window in WINDOWS:
                seconds = MINUTE if window <= _BY_THE_MINUTE else HOUR
                for endpoint, counted in store.sum_counts(tx, seconds, now - window).items():
                    found.setdefault(endpoint, {})[window] = counted
        return found

    def _canaries(self, endpoint: str) -> set[int]:
        route = self._serving.current_route(endpoint)
        return set() if route is None else {arm.version for arm in route.arms[1:]}

    def _level(self, endpoint: str) -> ServiceLevel | None:
        """The service level in force; None for an endpoint without a contract."""
        try:
            return self._monitoring.require(endpoint).release.slo
        except NotFound:
            return None


def _begin(at: datetime, seconds: int) -> datetime:
    """Begin of the span that holds ``at``."""
    return datetime.fromtimestamp(int(at.timestamp()) // seconds * seconds, UTC)
