"""Windows and alerts of every endpoint: what is due, what a window shows, what is recorded, raised and resolved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from relevo.contract.model import Contract
from relevo.contract.service import ContractService
from relevo.errors import Conflict, NotFound
from relevo.identity.model import RELEVO, Principal
from relevo.ledger.service import Ledger
from relevo.monitoring import policy, store
from relevo.monitoring.analysis import Rows, read_inputs, read_label_counts, read_rows
from relevo.monitoring.loading import is_refused, loading_finding
from relevo.monitoring.looks import Looks
from relevo.monitoring.model import (
    Alert,
    AlertKind,
    DueWindow,
    Finding,
    Period,
    Reference,
    Severity,
    Window,
    WindowState,
)
from relevo.monitoring.observation import observe_period, observe_window
from relevo.monitoring.references import References
from relevo.platform.clock import EventClock, utc_now
from relevo.platform.state import State, Transaction
from relevo.predictions.log import PredictionLog
from relevo.serving.service import Serving

#: How many of the newest windows a verdict looks at, and how many final ones are checked for later labels.
HISTORY = 12
REVISED = 3


class Monitoring:
    """What happened to each endpoint, window by window. Thread-safe.

    Windows have the length that the contract names, in event time, and follow one another from the UTC midnight
    before the endpoint's first route took effect. A row belongs to the window of its asked time, or of its arrival when
    the caller gave none.
    """

    def __init__(
        self,
        state: State,
        *,
        contracts: ContractService,
        references: References,
        serving: Serving,
        log: PredictionLog,
        clock: EventClock,
        ledger: Ledger,
    ) -> None:
        self._state = state
        self._contracts = contracts
        self._references = references
        self._serving = serving
        self._log = log
        self._clock = clock
        self._ledger = ledger
        self._looks = Looks()

    # -- windows ------------------------------------------------------------------------------------------------

    def begins_at(self, endpoint: str) -> datetime | None:
        """Start of the endpoint's first window; None before its first route."""
        routes = self._serving.routes(endpoint)
        if not routes:
            return None
        length = self.require(endpoint).monitor.window
        return policy.first_window(min(route.effective_event_at for route in routes), length)

    def event_time(self, endpoint: str) -> datetime:
        """The endpoint's event time now."""
        return self._clock.now(endpoint)

    def require(self, endpoint: str) -> Contract:
        """The contract in force.

        Raises:
            NotFound: There is no such model.
        """
        return self._contracts.current(endpoint).contract

    def due(self, endpoint: str) -> list[DueWindow]:
        """The windows to analyse now, in the order in which they became due."""
        begins_at = self.begins_at(endpoint)
        if begins_at is None:
            return []
        contract = self.require(endpoint)
        with self._state.read() as tx:
            recorded = store.latest_states(tx, endpoint)
        return policy.due_windows(
            begins_at=begins_at,
            length=contract.monitor.window,
            wait=policy.label_wait(contract),
            watermark=self._clock.now(endpoint),
            recorded=recorded,
        )

    def analyse(self, endpoint: str, start: datetime, end: datetime, state: WindowState) -> Window:
        """What the log shows of one window now; reads only. Flush the log first.

        Its revision is that of the last recorded analysis when the rows, the labels and the metrics are the same, so
        that analysing again changes nothing.
        """
        rows = self._rows(endpoint, start, end)
        reference = self._reference(endpoint, rows.version)
        found = observe_window(self.require(endpoint), rows, reference, DueWindow(start, end, state))
        with self._state.read() as tx:
            latest = store.latest_window(tx, endpoint, end)
        return replace(found, revision=policy.next_revision(latest, found))

    def record(self, tx: Transaction, window: Window) -> bool:
        """Store a window; False, and nothing changed, when its revision is there already."""
        return store.add_window(tx, window, utc_now())

    def revise(self, endpoint: str) -> list[Window]:
        """Analyse again the newest final windows: the new revisions of those that have got labels, not recorded."""
        recorded = self.windows(endpoint, limit=HISTORY)
        newest = [window for window in recorded if window.state is WindowState.FINAL][-REVISED:]
        if not newest:
            return []
        log = self._log.window(endpoint, newest[0].start, newest[-1].end, known_by=self._clock.now(endpoint))
        labels = read_label_counts(log, newest)
        changed = [one for one, counts in zip(newest, labels, strict=True) if not counts.are_those_of(one)]
        return [self.analyse(endpoint, one.start, one.end, WindowState.FINAL) for one in changed]

    def windows(self, endpoint: str, limit: int | None = None) -> list[Window]:
        """The last revision of each of the newest ``limit`` windows, the oldest first."""
        with self._state.read() as tx:
            return store.latest_windows(tx, endpoint, limit)

    def window(self, endpoint: str, end: datetime) -> Window:
        """The last revision of the window that ends then.

        Raises:
            NotFound: It has not been recorded.
        """
        with self._state.read() as tx:
            found = store.latest_window(tx, endpoint, end)
        if found is None:
            raise NotFound(f"There is no window of {endpoint} that ends at {end.isoformat()}.")
        return found

    def revisions(self, endpoint: str, end: datetime) -> list[Window]:
        """Every revision of one window, the first first."""
        with self._state.read() as tx:
            return store.revisions(tx, endpoint, end)

    # -- alerts -------------------------------------------------------------------------------------------------

    def judge(self, tx: Transaction, endpoint: str) -> list[Alert]:
        """Raise and resolve what the recorded windows call for; returns the alerts that changed. Idempotent."""
        history = store.latest_windows(tx, endpoint, HISTORY)
        changed = [
            self.raise_alert(tx, endpoint, finding, history[-1].end)
            if finding.is_raised
            else self._recover(tx, endpoint, finding.kind, history[-1].end)
            for finding in policy.findings(self.require(endpoint), history)
            if finding.is_raised is not None
        ]
        return [alert for alert in changed if alert is not None]

    def raise_alert(self, tx: Transaction, endpoint: str, finding: Finding, event_at: datetime) -> Alert | None:
        """Open an alert, and write it to the ledger; None when one of its kind is open already."""
        if store.open_alert(tx, endpoint, finding.kind) is not None:
            return None
        alert = store.add_alert(tx, endpoint, finding, event_at=event_at, raised_at=utc_now())
        self._enter(tx, alert, action="alert raised", actor=RELEVO, reason=alert.message, event_at=event_at)
        return alert

    def resolve_alert(self, tx: Transaction, alert_id: int, actor: Principal, reason: str = "") -> Alert:
        """Close an alert by hand. The next window that shows the same opens a new one.

        Raises:
            NotFound: There is no such alert.
            Conflict: It is resolved already.
        """
        alert = store.find_alert(tx, alert_id)
        if alert is None:
            raise NotFound(f"There is no alert {alert_id}.")
        if alert.resolved_at is not None:
            raise Conflict(f"Alert {alert_id} was resolved at {alert.resolved_at.isoformat()}.")
        return self._close(tx, alert, actor, reason, self._clock.now(alert.endpoint, tx))

    def alerts(
        self,
        open_only: bool = False,
        endpoint: str | None = None,
        limit: int | None = 200,
        kind: AlertKind | None = None,
    ) -> Sequence[Alert]:
        """Alerts, the newest first; without a ``limit`` all."""
        with self._state.read() as tx:
            return store.all_alerts(tx, open_only=open_only, endpoint=endpoint, limit=limit, kind=kind)

    def report_unwatched(self, tx: Transaction, endpoint: str, due: DueWindow, why: str) -> None:
        """Raise the alert that a window could not be analysed; the next one that can be resolves it."""
        message = f"The {due.state} window of {endpoint} to {due.end.isoformat()} could not be analysed: {why}"
        self.raise_alert(tx, endpoint, Finding(AlertKind.WATCH, Severity.CRITICAL, True, message), due.end)

    def report_watched(self, tx: Transaction, endpoint: str, end: datetime) -> None:
        """Resolve the alert that a window could not be analysed."""
        self._recover(tx, endpoint, AlertKind.WATCH, end)

    def report_release(self, endpoint: str, message: str) -> None:
        """Raise the alert that a release failed or was withdrawn; the next one that goes live or fails resolves it."""
        with self._state.transaction() as tx:
            event_at = self._clock.now(endpoint, tx)
            known = store.open_alert(tx, endpoint, AlertKind.RELEASE)
            if known is not None and known.message != message:
                self._close(tx, known, RELEVO, "another release ended", event_at)
            self.raise_alert(tx, endpoint, Finding(AlertKind.RELEASE, Severity.CRITICAL, True, message), event_at)

    def report_live(self, endpoint: str, release_id: str) -> None:
        """Resolve the alert that a release failed or was withdrawn: a later one went live."""
        with self._state.transaction() as tx:
            event_at = self._clock.now(endpoint, tx)
            self._recover(tx, endpoint, AlertKind.RELEASE, event_at, reason=f"release {release_id} went live")

    def report_features(self, endpoint: str, failure: str | None) -> None:
        """Take into account that the features were brought up to date, or (``failure``) why they were not."""
        message = f"The features of {endpoint} could not be brought up to date: {failure}"
        is_raised = self._looks.judge(endpoint, AlertKind.FEATURES, failure is not None)
        self._report(endpoint, Finding(AlertKind.FEATURES, Severity.CRITICAL, is_raised, message))

    def report_freshness(self, endpoint: str, stale: Sequence[str]) -> None:
        """Take another look at the features' freshness into account; ``stale`` says in words which are too old."""
        is_raised = self._looks.judge(endpoint, AlertKind.FRESHNESS, bool(stale))
        self._report(endpoint, policy.freshness_finding(stale, is_raised))

    def judge_loading(self) -> None:
        """Look at what the gateway has loaded for every endpoint; a refused version is an alert until it is mended."""
        said = self._serving.loading()
        if not said:  # no gateway runs
            return
        raised = {alert.endpoint: alert for alert in self.alerts(open_only=True, kind=AlertKind.BUNDLE, limit=None)}
        for endpoint, states in said.items():
            if endpoint in raised or is_refused(states):
                route = self._serving.current_route(endpoint)
                answering = [] if route is None else [arm.version for arm in route.arms]
                finding, known = loading_finding(endpoint, states, answering), raised.get(endpoint)
                self._restate(endpoint, finding, known, is_same=known is not None and known.message == finding.message)

    def report_budget(self, endpoint: str, finding: Finding, known: Alert | None) -> None:
        """Raise, resolve or, when it got worse or better, state anew the alert on a budget; ``known`` is open now."""
        self._restate(endpoint, finding, known, is_same=known is not None and known.severity is finding.severity)

    def report_log(self, endpoint: str, lost: str | None) -> None:
        """Take another look at the log into account; ``lost`` says in words what it did not take, None: nothing."""
        is_raised = self._looks.judge(endpoint, AlertKind.LOG, lost is not None)
        message = f"The prediction log could not be written: {lost}"
        self._report(endpoint, Finding(AlertKind.LOG, Severity.CRITICAL, is_raised, message))

    # -- performance over longer periods ------------------------------------------------------------------------

    def performance_by_period(
        self, endpoint: str, periods: Sequence[tuple[datetime, datetime]], version: int | None = None
    ) -> list[Period]:
        """Performance of what was live in each period, and of ``version`` asked again about the same labelled rows.

        A version is asked again through its sealed runtime with the inputs as they were logged: what would it have
        answered, had it been left alone? Drift is measured against the baseline of ``version``, else of the version
        that answered most rows of the period.

        Raises:
            Conflict: The version takes an input that was not logged.
        """
        contract = self.require(endpoint)
        again = self._reference(endpoint, version)
        found: list[Period] = []
        for start, end in periods:
            rows = self._rows(endpoint, start, end)
            reference = again or self._reference(endpoint, rows.version)
            rescored = None
            if again is not None and rows.labelled.height:
                inputs = read_inputs(rows.labelled, again.inputs)
                rescored = self._references.predict(endpoint, again.version, inputs)
            found.append(observe_period(contract, rows, reference, rescored, start, end))
        return found

    # -- inside -------------------------------------------------------------------------------------------------

    def _report(self, endpoint: str, finding: Finding) -> None:
        """Raise or resolve what a look calls for; a look that changes nothing writes nothing."""
        is_open = any(alert.kind is finding.kind for alert in self.alerts(open_only=True, endpoint=endpoint))
        if finding.is_raised is None or finding.is_raised == is_open:
            return
        with self._state.transaction() as tx:
            event_at = self._clock.now(endpoint, tx)
            if finding.is_raised:
                self.raise_alert(tx, endpoint, finding, event_at)
            else:
                self._recover(tx, endpoint, finding.kind, event_at)

    def _restate(self, endpoint: str, finding: Finding, known: Alert | None, *, is_same: bool) -> None:
        """Like ``_report``; an open alert that is not the same any more gives way to a new one."""
        if finding.is_raised is None or (is_same if finding.is_raised else known is None):
            return
        with self._state.transaction() as tx:
            event_at = self._clock.now(endpoint, tx)
            self._recover(
                tx, endpoint, finding.kind, event_at, reason="it has changed" if finding.is_raised else "recovered"
            )
            if finding.is_raised:
                self.raise_alert(tx, endpoint, finding, event_at)

    def _rows(self, endpoint: str, start: datetime, end: datetime) -> Rows:
        return read_rows(self._log.window(endpoint, start, end, known_by=self._clock.now(endpoint)))

    def _reference(self, endpoint: str, version: int | None) -> Reference | None:
        return None if version is None else self._references.of(endpoint, version)

    def _recover(
        self, tx: Transaction, endpoint: str, kind: AlertKind, event_at: datetime, *, reason: str = "recovered"
    ) -> Alert | None:
        alert = store.open_alert(tx, endpoint, kind)
        return None if alert is None else self._close(tx, alert, RELEVO, reason, event_at)

    def _close(self, tx: Transaction, alert: Alert, actor: Principal, reason: str, event_at: datetime) -> Alert:
        resolved_at = utc_now()
        store.resolve(tx, alert.id, resolved_at)
        self._enter(tx, alert, action="alert resolved", actor=actor, reason=reason, event_at=event_at)
        return replace(alert, resolved_at=resolved_at)

    def _enter(
        self, tx: Transaction, alert: Alert, *, action: str, actor: Principal, reason: str, event_at: datetime
    ) -> None:
        self._ledger.append(
            tx,
            actor=actor,
            action=action,
            subject=alert.endpoint,
            reason=reason,
            facts={"alert": alert.id, "kind": alert.kind, "severity": alert.severity},
            event_at=event_at,
        )
