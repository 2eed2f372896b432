"""The use cases of a release: begin, record evidence, approve, load, promote, end, roll back."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa

from relevo.contract.model import Contract
from relevo.contract.service import ContractService
from relevo.errors import Conflict, NotFound
from relevo.identity.model import RELEVO, Principal
from relevo.ledger.service import Ledger
from relevo.platform.clock import EventClock, utc_now
from relevo.platform.state import State, Transaction
from relevo.registry.service import Registry
from relevo.releases import policy, store
from relevo.releases.model import Approval, Evaluation, Evidence, GateResult, Release, ReleaseState
from relevo.releases.rollout import Rollout, check_open, required_version, words
from relevo.serving.model import Route
from relevo.serving.service import Serving


class Releases:
    """Releases, their evidence and approvals. Thread-safe.

    A model has at most one release under way. Methods that name a ``release_id`` are steps of its workflow: each may be
    repeated, and changes something once. They raise ``Cancelled`` when the release has ended meanwhile.
    """

    def __init__(
        self,
        state: State,
        *,
        contracts: ContractService,
        registry: Registry,
        serving: Serving,
        ledger: Ledger,
        clock: EventClock,
    ) -> None:
        self._state = state
        self._contracts = contracts
        self._serving = serving
        self._rollout = Rollout(registry, serving)
        self._ledger = ledger
        self._clock = clock

    # -- reading ------------------------------------------------------------------------------------------------

    def release(self, release_id: str) -> Release:
        """The release of that id.

        Raises:
            NotFound: There is none.
        """
        with self._state.read() as tx:
            return _found(store.find_release(tx, release_id), release_id)

    def releases(
        self, model: str | None = None, state: ReleaseState | None = None, limit: int | None = 100
    ) -> list[Release]:
        """Releases, the newest first; without a ``limit`` all."""
        states = None if state is None else {state}
        with self._state.read() as tx:
            return store.select_releases(tx, model=model, states=states, limit=limit)

    def under_way(self, model: str | None = None) -> list[Release]:
        """The releases that have not ended: at most one a model."""
        with self._state.read() as tx:
            return store.select_releases(tx, model=model, states=[one for one in ReleaseState if one.is_open])

    def evidence(self, model: str, version: int) -> Evidence | None:
        """What the decision on a version rests on; None while it is not judged yet."""
        with self._state.read() as tx:
            return store.evidence_of(tx, model, version)

    def approvals(self, model: str, version: int) -> list[Approval]:
        """Every word given on a version, the oldest first."""
        with self._state.read() as tx:
            return store.approvals_of(tx, model, version)

    # -- beginning and ending -----------------------------------------------------------------------------------

    def begin(
        self,
        release_id: str,
        *,
        model: str,
        revision: int,
        as_of: datetime,
        reason: str,
        requested_by: str,
        tx: Transaction | None = None,
    ) -> Release:
        """Record that a release begins; the same id again gives the recorded one, however it stands.

        Raises:
            Conflict: Another release of the model is under way.
        """
        with self._state.transaction() if tx is None else contextlib.nullcontext(tx) as writing:
            known = store.find_release(writing, release_id)
            if known is not None:
                return known
            other = store.open_release(writing, model)
            if other is not None:
                raise Conflict(f"Release {other.id} of {model} is under way.", hint="Wait for it, or cancel it.")
            now = utc_now()
            begun = Release(
                release_id,
                model,
                revision,
                None,
                ReleaseState.TRAINING,
                reason,
                requested_by,
                None,
                None,
                now,
                now,
                as_of,
            )
            try:
                store.add_release(writing, begun)
            except sa.exc.IntegrityError as error:
                raise Conflict(f"Another release of {model} began at this moment.") from error
            self.record(writing, begun, "release began", "begin", subject=model, reason=reason)
            return begun

    def end(self, release_id: str, outcome: ReleaseState, reason: str, actor: Principal = RELEVO) -> Release:
        """End a release without its version going live, and undo what it has moved, in one transaction.

        One that has ended stays as it is.
        """
        with self._state.transaction() as tx:
            release = _found(store.find_release(tx, release_id, lock=True), release_id)
            if not release.state.is_open:
                return release
            event_at = self._clock.now(release.model, tx)
            route = self._rollout.give_back(tx, release, outcome, reason, event_at)
            store.update_release(tx, release_id, utc_now(), state=outcome, outcome=reason)
            facts = {} if route is None else {"route_revision": route.revision, "back_to": route.champion}
            action = f"release {words(outcome)}"
            self.record(tx, release, action, "end", actor=actor, reason=reason, event_at=event_at, facts=facts)
            return _found(store.find_release(tx, release_id), release_id)

    # -- steps of the workflow ----------------------------------------------------------------------------------

    def prepare(self, release_id: str) -> dict[str, object]:
        """What steers the release's workflow: contract revision, event time, champion, canary steps."""
        with self._state.transaction() as tx:
            release = self.locked(tx, release_id)
            champion = self._rollout.champion(release.model, tx)
        return {
            "revision": release.contract_revision,
            "as_of": release.event_at,
            "champion": champion,
            "is_imported": self.contract_of(release).imported is not None,
            "has_shadow": champion is not None and self.contract_of(release).release.shadow is not None,
            "steps": self.contract_of(release).release.canary.steps if champion is not None else (),
        }

    def judge(self, release_id: str, version: int, evaluation: Evaluation, facts: dict[str, object]) -> Evidence:
        """Judge the gates of the contract on an evaluation, and record it as evidence."""
        evaluation = policy.defined_only(evaluation)
        with self._state.transaction() as tx:
            release = self.locked(tx, release_id)
            contract = self.contract_of(release)
            gates = policy.judge_gates(contract.gates, contract.task, evaluation)
            found = policy.evidence_of(release.model, version, evaluation, gates, facts)
            self._keep_evidence(tx, release, found, gates, "gates")
        return found

    def judge_further(
        self, release_id: str, step: str, gates: tuple[GateResult, ...], facts: dict[str, object]
    ) -> Evidence:
        """Record new evidence: what is known already, with these verdicts and facts beside it."""
        with self._state.transaction() as tx:
            release = self.locked(tx, release_id)
            assert release.evidence is not None
            before = store.find_evidence(tx, release.evidence)
            assert before is not None
            if facts.keys() <= before.facts.keys():  # recorded by this step before a crash
                return before
            every = (*before.gates, *gates)
            found = policy.evidence_of(
                release.model, before.version, before.evaluation, every, {**before.facts, **facts}
            )
            self._keep_evidence(tx, release, found, gates, step)
        return found

    def await_approval(self, release_id: str) -> policy.ApprovalCount:
        """Put the release before people, unless its contract needs nobody; gives how the vote stands."""
        with self._state.transaction() as tx:
            release = self.locked(tx, release_id)
            self._rollout.stage(tx, release)
            vote = self._count(tx, release)
            if not vote.is_decided:
                store.update_release(tx, release_id, utc_now(), state=ReleaseState.WAITING_FOR_APPROVAL)
            return vote

    def load(self, release_id: str) -> None:
        """Place the version, and wait until every gateway worker has loaded and probed it."""
        with self._state.transaction() as tx:
            release = self.locked(tx, release_id)
            self.check_champion(tx, release)
            self._rollout.place(tx, release.model, required_version(release), self.contract_of(release))
        self._rollout.await_loaded(release.model, required_version(release))

    def promote(self, release_id: str) -> None:
        """Make the version the champion: route, stages, placements and ledger entry in one transaction."""
        with self._state.transaction() as tx:
            release = _found(store.find_release(tx, release_id, lock=True), release_id)
            if release.state in {ReleaseState.LIVE, ReleaseState.ROLLED_BACK}:
                return  # promoted by this step before a crash; a person may have rolled it back since
            check_open(release)
            self.check_champion(tx, release)
            event_at = self._clock.now(release.model, tx)
            reason = f"promoted: {release.reason}"
            route = self._rollout.promote(tx, release, reason, event_at)
            store.update_release(tx, release_id, utc_now(), state=ReleaseState.LIVE, outcome=reason)
            facts = {"route_revision": route.revision}
            self.record(tx, release, "version promoted", "promote", reason=reason, event_at=event_at, facts=facts)

    # -- what people do -----------------------------------------------------------------------------------------

    def decide(self, release_id: str, principal: Principal, *, approved: bool, reason: str) -> policy.ApprovalCount:
        """Record a person's word on the release that waits for it.

        Raises:
            Conflict: The release does not wait for approval, or the person has spoken already.
            NotAllowed: The person asked for this release.
        """
        with self._state.transaction() as tx:
            release = _found(store.find_release(tx, release_id, lock=True), release_id)
            if release.state is not ReleaseState.WAITING_FOR_APPROVAL or self._count(tx, release).is_decided:
                decided = "decided" if release.state is ReleaseState.WAITING_FOR_APPROVAL else words(release.state)
                raise Conflict(f"Release {release_id} is {decided}; it does not wait for approval.")
            applied_by = self._contracts.revision(release.model, release.contract_revision).applied_by
            policy.check_approver(principal, requested_by=release.requested_by, applied_by=applied_by)
            version = required_version(release)
            if any(given.principal == principal.name for given in store.approvals_of(tx, release.model, version)):
                raise Conflict(f"{principal.name} has decided on {release.model}/{version} already.")
            assert release.evidence is not None
            word = Approval(release.model, version, principal.name, approved, reason, release.evidence, utc_now())
            store.add_approval(tx, word)
            action = "release approved" if approved else "release refused"
            self.record(tx, release, action, f"word of {principal.name}", actor=principal, reason=reason)
            return self._count(tx, release)

    def roll_back(self, model: str, principal: Principal, reason: str) -> Route:
        """Put the previous champion back, in one transaction.

        Raises:
            Conflict: There is no previous champion, or a canary is under way: end that first.
        """
        seen, previous = self._serving.current_route(model), self._rollout.previous(model)
        if seen is None or previous is None:
            raise Conflict(f"{model} has no previous champion to go back to.", hint=f"See relevo history {model}.")
        with self._state.transaction() as tx:
            self._rollout.place(tx, model, previous, self._contracts.current(model, tx).contract)
        self._rollout.await_loaded(model, previous)
        with self._state.transaction() as tx:
            under_way = store.open_release(tx, model, lock=True)
            if under_way is not None and under_way.state.is_moving:
                raise Conflict(
                    f"Release {under_way.id} is in its {under_way.state}.", hint=f"Cancel {under_way.id} first."
                )
            event_at = self._clock.now(model, tx)
            route = self._rollout.roll_back(
                tx,
                model,
                previous,
                seen=seen,
                keep=None if under_way is None else under_way.version,
                actor=principal,
                reason=reason,
                event_at=event_at,
            )
            for live in store.select_releases(tx, model=model, states={ReleaseState.LIVE}):
                if live.version == seen.champion:
                    store.update_release(tx, live.id, utc_now(), state=ReleaseState.ROLLED_BACK, outcome=reason)
            self._ledger.append(
                tx,
                actor=principal,
                action="version rolled back",
                subject=f"{model}/{seen.champion}",
                reason=reason,
                facts={"back_to": previous, "route_revision": route.revision},
                event_at=event_at,
            )
        return route

    # -- within, and for other steps of this package ------------------------------------------------------------

    def locked(self, tx: Transaction, release_id: str) -> Release:
        """The release, which is under way and stays so until the transaction ends."""
        release = _found(store.find_release(tx, release_id, lock=True), release_id)
        check_open(release)
        return release

    def contract_of(self, release: Release) -> Contract:
        """The contract that the release was begun under."""
        return self._contracts.revision(release.model, release.contract_revision).contract

    def check_champion(self, tx: Transaction, release: Release) -> None:
        """The evidence compares with one champion; against another one it says nothing."""
        evidence = None if release.evidence is None else store.find_evidence(tx, release.evidence)
        self._rollout.check_champion(tx, release, None if evidence is None else evidence.evaluation.champion)

    def _keep_evidence(
        self, tx: Transaction, release: Release, found: Evidence, gates: tuple[GateResult, ...], what: str
    ) -> None:
        """Record evidence, and that these gates were judged in it."""
        store.add_evidence(tx, found)
        store.update_release(tx, release.id, utc_now(), version=found.version, evidence=found.digest)
        judged = _found(store.find_release(tx, release.id), release.id)
        words = {"gates": [gate.message for gate in gates], "passed": found.passed}
        self.record(tx, judged, f"{what} judged", "judge" if what == "gates" else f"judge {what}", facts=words)

    def _count(self, tx: Transaction, release: Release) -> policy.ApprovalCount:
        assert release.evidence is not None
        needed = self.contract_of(release).release.approvals
        given = store.approvals_of(tx, release.model, required_version(release))
        return policy.count_approvals(given, release.evidence, needed)

    def record(
        self,
        tx: Transaction,
        release: Release,
        action: str,
        step: str,
        *,
        actor: Principal = RELEVO,
        subject: str | None = None,
        reason: str = "",
        event_at: datetime | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        """Write a step of the release into the ledger, once."""
        self._ledger.append(
            tx,
            actor=actor,
            action=action,
            subject=subject or (f"{release.model}/{release.version}" if release.version else release.model),
            reason=reason,
            evidence=release.evidence,
            facts={"release": release.id, **(facts or {})},
            event_at=event_at or release.event_at,
            once=(release.id, step),
        )


def _found(value: Release | None, release_id: str) -> Release:
    if value is None:
        raise NotFound(f"There is no release {release_id!r}.", hint="List them with `relevo releases`.")
    return value
