"""Judge the rule on each final window, and start the corrective action that it asks for."""

from __future__ import annotations

from datetime import datetime

from relevo.contract.service import ContractService
from relevo.identity.model import RELEVO
from relevo.ledger.service import Ledger
from relevo.monitoring.model import Window, WindowState
from relevo.monitoring.service import Monitoring
from relevo.platform.clock import utc_now
from relevo.platform.state import State
from relevo.registry.service import Registry
from relevo.releases.service import Releases
from relevo.releases.workflow import Deliver
from relevo.retraining import policy, store
from relevo.retraining.model import Decision


class Retraining:
    """The rule of each contract, judged when a window becomes final. Thread-safe."""

    def __init__(
        self,
        state: State,
        *,
        contracts: ContractService,
        registry: Registry,
        monitoring: Monitoring,
        releases: Releases,
        deliver: Deliver,
        ledger: Ledger,
    ) -> None:
        self._state = state
        self._contracts = contracts
        self._registry = registry
        self._monitoring = monitoring
        self._releases = releases
        self._deliver = deliver
        self._ledger = ledger

    def decisions(self, model: str) -> list[Decision]:
        """Every decision on a model, the newest window first."""
        with self._state.read() as tx:
            return store.select_decisions(tx, model)

    def on_final(self, window: Window) -> Decision | None:
        """Judge the rule after a window became final; idempotent a window. None without a rule or a champion."""
        known = next((one for one in self.decisions(window.endpoint) if one.window_end == window.end), None)
        if known is not None:
            self._act(known)
            return known
        decision = self._judge(window)
        if decision is None:
            return None
        with self._state.transaction() as tx:
            store.add_decision(tx, decision)
            if decision.fired:
                self._ledger.append(
                    tx,
                    actor=RELEVO,
                    action="retraining started",
                    subject=window.endpoint,
                    reason=decision.reason,
                    facts={"window_end": window.end.isoformat(), "window_revision": window.revision},
                    event_at=window.end,
                )
        # After the commit: a crash in between is mended when the window's workflow runs this step again.
        self._act(decision)
        return decision

    def _act(self, decision: Decision) -> None:
        if decision.fired and decision.release is not None:
            self._deliver.start(
                decision.model,
                release_id=decision.release,
                as_of=decision.event_at,
                reason=decision.reason,
                requested_by=RELEVO.name,
            )

    def _judge(self, window: Window) -> Decision | None:
        contract = self._contracts.current(window.endpoint).contract
        champion = self._registry.champion(window.endpoint)
        if contract.retrain is None or champion is None:
            return None
        releases = self._releases.releases(window.endpoint)
        evidence = self._releases.evidence(window.endpoint, champion.number)
        verdict = policy.judge_rule(
            contract.retrain,
            task=contract.task,
            metric=policy.primary_metric(contract.task, contract.gates),
            windows=self._final_until(window),
            champion=policy.Champion(
                champion.number, champion.as_of, evidence.evaluation.metrics if evidence is not None else {}
            ),
            trainings=[release.event_at for release in releases],
            is_release_open=any(release.state.is_open for release in releases),
        )
        event_at = self._monitoring.event_time(window.endpoint)
        name = f"deliver-{window.endpoint}-{_stamp(window.end)}" if verdict.fires else None
        return Decision(
            model=window.endpoint,
            window_end=window.end,
            window_revision=window.revision,
            fired=verdict.fires,
            reason=verdict.reason,
            release=name,
            event_at=event_at,
            decided_at=utc_now(),
        )

    def _final_until(self, window: Window) -> list[Window]:
        windows = self._monitoring.windows(window.endpoint)
        final = [one for one in windows if one.state is WindowState.FINAL and one.end < window.end]
        return [*sorted(final, key=lambda one: one.end), window]


def _stamp(at: datetime) -> str:
    return at.strftime("%Y%m%dT%H%M")
