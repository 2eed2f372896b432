"""Judge the rule on each final window, and start the corrective action that it asks for."""

from __future__ import annotations

import dataclasses

from relevo.contract.service import ContractService
from relevo.errors import Conflict
from relevo.identity.model import RELEVO
from relevo.ledger.service import Ledger
from relevo.monitoring.model import Window, WindowState
from relevo.monitoring.service import Monitoring
from relevo.platform.clock import utc_now
from relevo.platform.state import State
from relevo.registry.model import ModelVersion
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
        try:
            self._record(decision)
        except Conflict as error:  # somebody began a release since the rule was judged
            reason = f"{decision.reason}; held back: {error.message}"
            decision = dataclasses.replace(decision, fired=False, release=None, reason=reason)
            self._record(decision)
        # After the commit: a crash in between is mended when the window's workflow runs this step again.
        self._act(decision)
        return decision

    def _record(self, decision: Decision) -> None:
        """The decision, and with it the release that it begins, in one transaction."""
        with self._state.transaction() as tx:
            if decision.release is not None:
                self._releases.begin(
                    decision.release,
                    model=decision.model,
                    revision=self._contracts.current(decision.model, tx).revision,
                    as_of=decision.event_at,
                    reason=decision.reason,
                    requested_by=RELEVO.name,
                    tx=tx,
                )
                self._ledger.append(
                    tx,
                    actor=RELEVO,
                    action="retraining started",
                    subject=decision.model,
                    reason=decision.reason,
                    facts={"window_end": decision.window_end, "window_revision": decision.window_revision},
                    event_at=decision.event_at,
                )
            store.add_decision(tx, decision)

    def _act(self, decision: Decision) -> None:
        if decision.release is not None:
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
        event_at = self._monitoring.event_time(window.endpoint)
        verdict = policy.judge_rule(
            contract,
            contract.retrain,
            windows=self._final_until(window),
            champion=self._champion(champion),
            trainings=[release.event_at for release in self._releases.releases(window.endpoint, limit=None)],
            now=event_at,
            is_release_open=bool(self._releases.under_way(window.endpoint)),
        )
        return Decision(
            model=window.endpoint,
            window_end=window.end,
            window_revision=window.revision,
            fired=verdict.fires,
            reason=verdict.reason,
            release=f"deliver-{window.endpoint}-{window.end:%Y%m%dT%H%M%S}" if verdict.fires else None,
            event_at=event_at,
            decided_at=utc_now(),
        )

    def _champion(self, version: ModelVersion) -> policy.Champion:
        evidence = self._releases.evidence(version.model, version.number)
        metrics = {} if evidence is None else evidence.evaluation.metrics
        return policy.Champion(version.number, version.as_of, metrics)

    def _final_until(self, window: Window) -> list[Window]:
        """Final windows, the oldest first; this one last, in the revision that is decided on."""
        windows = self._monitoring.windows(window.endpoint)
        return [*(one for one in windows if one.state is WindowState.FINAL and one.end < window.end), window]
