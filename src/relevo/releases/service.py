"""The use cases of a release: record evidence, approve, move the traffic, promote, roll back."""

from __future__ import annotations

from datetime import datetime

from relevo.contract.model import Contract
from relevo.contract.service import ContractService
from relevo.errors import Conflict, NotFound
from relevo.identity.model import RELEVO, Principal
from relevo.ledger.service import Ledger
from relevo.platform.clock import EventClock, utc_now
from relevo.platform.encoding import digest, to_json
from relevo.platform.state import State, Transaction
from relevo.registry.model import ModelVersion, Stage
from relevo.registry.service import Registry
from relevo.releases import policy, store
from relevo.releases.model import Approval, Evaluation, Evidence, Release, ReleaseState
from relevo.serving.model import Arm, Counters, Route
from relevo.serving.policy import since
from relevo.serving.service import Serving

LOAD_WITHIN_SECONDS = 120.0


class Releases:
    """Releases, their evidence and approvals. Thread-safe; the only caller of ``set_route`` and ``set_stage``.

    Methods that name a ``release_id`` are steps of its workflow: each is idempotent under that id.
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
        self._registry = registry
        self._serving = serving
        self._ledger = ledger
        self._clock = clock

    # -- reading ------------------------------------------------------------------------------------------------

    def release(self, release_id: str) -> Release:
        """The release of that id.

        Raises:
            NotFound: There is none.
        """
        with self._state.read() as tx:
            return _found(store.find_release(tx, release_id), f"release {release_id!r}")

    def releases(self, model: str | None = None, state: ReleaseState | None = None, limit: int = 100) -> list[Release]:
        """Releases, the newest first."""
        with self._state.read() as tx:
            return store.select_releases(tx, model=model, state=state, limit=limit)

    def evidence(self, model: str, version: int) -> Evidence | None:
        """What the decision on a version rests on; None while it is not judged yet."""
        with self._state.read() as tx:
            return store.evidence_of(tx, model, version)

    def approvals(self, model: str, version: int) -> list[Approval]:
        """Every word given on a version, the oldest first."""
        with self._state.read() as tx:
            return store.approvals_of(tx, model, version)

    # -- steps of the workflow ----------------------------------------------------------------------------------

    def open(
        self, release_id: str, model: str, revision: int, as_of: datetime, reason: str, requested_by: str
    ) -> dict[str, int | None]:
        """Record that a release begins; gives the champion that the challenger will be compared with."""
        now = utc_now()
        opened = Release(
            release_id, model, revision, None, ReleaseState.TRAINING, reason, requested_by, None, None, now, now, as_of
        )
        with self._state.transaction() as tx:
            store.add_release(tx, opened)
            self._record(tx, opened, RELEVO, "release began", "begin", subject=model, reason=reason)
        champion = self._champion(model)
        return {"champion": champion}

    def judge(self, release_id: str, version: int, evaluation: Evaluation, facts: dict[str, object]) -> Evidence:
        """Judge the gates of the contract on an evaluation, and record it as evidence."""
        release = self.release(release_id)
        contract = self._contract(release)
        gates = policy.judge_gates(contract.gates, contract.task, evaluation)
        body = {"version": version, "model": release.model, "evaluation": evaluation, "gates": gates, "facts": facts}
        found = Evidence(digest(body), release.model, version, evaluation, gates, facts)
        with self._state.transaction() as tx:
            store.add_evidence(tx, found)
            store.update_release(tx, release_id, utc_now(), version=version, evidence=found.digest)
            self._record(tx, release, RELEVO, "gates judged", "judge", version=version, evidence=found)
        return found

    def close(self, release_id: str, outcome: ReleaseState, reason: str) -> None:
        """Record how a release ended without going live; its version stays a candidate."""
        release = self.release(release_id)
        with self._state.transaction() as tx:
            store.update_release(tx, release_id, utc_now(), state=outcome, outcome=reason)
            action = f"release {outcome.replace('_', ' ')}"
            self._record(tx, release, RELEVO, action, "close", version=release.version, reason=reason)

    def await_approval(self, release_id: str) -> policy.ApprovalCount:
        """Put the release before people; gives how the vote stands."""
        release = self.release(release_id)
        assert release.version is not None
        assert release.evidence is not None
        with self._state.transaction() as tx:
            store.update_release(tx, release_id, utc_now(), state=ReleaseState.WAITING_FOR_APPROVAL)
            if self._registry.version(release.model, release.version).stage is Stage.CANDIDATE:
                self._registry.set_stage(tx, release.model, release.version, Stage.STAGING)
            return self._count(tx, release)

    def load(self, release_id: str) -> None:
        """Place the version, and wait until every gateway worker has loaded and probed it."""
        release = self.release(release_id)
        assert release.version is not None
        self._load(self._registry.version(release.model, release.version))

    def shift(self, release_id: str, percent: int) -> dict[str, object]:
        """Send ``percent`` of the traffic to the challenger; gives what a bake is measured from."""
        release = self.release(release_id)
        assert release.version is not None
        champion = self._champion(release.model)
        assert champion is not None
        reason = f"canary step: {percent} % to version {release.version}"
        with self._state.transaction() as tx:
            event_at = self._clock.now(release.model, tx)
            arms = (Arm(champion, 100 - percent), Arm(release.version, percent))
            self._route(tx, release, arms, f"canary-{percent}", reason, event_at)
            store.update_release(tx, release_id, utc_now(), state=ReleaseState.CANARY)
            self._record(tx, release, RELEVO, "traffic shifted", f"canary-{percent}", reason=reason, event_at=event_at)
        counters = {str(version): to_json(count) for version, count in self._serving.counters(release.model).items()}
        return {"began_at": event_at.isoformat(), "champion": champion, "counters": counters}

    def look(
        self, release_id: str, champion: int, began_at: datetime, before: dict[int, Counters]
    ) -> policy.BakeVerdict:
        """Judge the canary step that began at ``began_at`` (event time) with the counters ``before``."""
        release = self.release(release_id)
        assert release.version is not None
        contract = self._contract(release)
        counted = self._serving.counters(release.model)
        return policy.judge_bake(
            contract.release.canary,
            contract.release.slo,
            challenger=release.version,
            counters={version: since(count, before.get(version)) for version, count in counted.items()},
            champion=champion,
            began_at=began_at,
            now=self._clock.now(release.model),
        )

    def promote(self, release_id: str) -> Route:
        """Make the version the champion: route, stages and ledger entry in one transaction."""
        release = self.release(release_id)
        assert release.version is not None
        reason = f"promoted: {release.reason}"
        with self._state.transaction() as tx:
            event_at = self._clock.now(release.model, tx)
            route = self._route(tx, release, (Arm(release.version, 100),), "promote", reason, event_at)
            self._enthrone(tx, release.model, release.version)
            store.update_release(tx, release_id, utc_now(), state=ReleaseState.LIVE, outcome=reason)
            self._record(tx, release, RELEVO, "version promoted", "promote", reason=reason, event_at=event_at)
        self._keep_two(release.model, release.version)
        return route

    def withdraw(self, release_id: str, reason: str, outcome: ReleaseState = ReleaseState.ROLLED_BACK) -> None:
        """Give all traffic back to the champion, in one transaction; nothing happens when it never had any less."""
        release = self.release(release_id)
        with self._state.transaction() as tx:
            current = self._serving.current_route(release.model, tx)
            if current is not None and len(current.arms) > 1 and release.version in {a.version for a in current.arms}:
                event_at = self._clock.now(release.model, tx)
                self._route(tx, release, (Arm(current.champion, 100),), "withdraw", reason, event_at)
            store.update_release(tx, release_id, utc_now(), state=outcome, outcome=reason)
            self._record(tx, release, RELEVO, "canary withdrawn", "withdraw", reason=reason)

    # -- what people do -----------------------------------------------------------------------------------------

    def decide(self, release_id: str, principal: Principal, *, approved: bool, reason: str) -> policy.ApprovalCount:
        """Record a person's word on the release that waits for it.

        Raises:
            Conflict: The release does not wait for approval, or the person has spoken already.
            NotAllowed: The person asked for this release.
        """
        release = self.release(release_id)
        if release.state is not ReleaseState.WAITING_FOR_APPROVAL or release.version is None:
            raise Conflict(f"Release {release_id} is {release.state.replace('_', ' ')}; it does not wait for approval.")
        assert release.evidence is not None
        policy.check_approver(principal, release.requested_by)
        word = Approval(release.model, release.version, principal.name, approved, reason, release.evidence, utc_now())
        with self._state.transaction() as tx:
            if any(given.principal == word.principal for given in store.approvals_of(tx, word.model, word.version)):
                raise Conflict(f"{principal.name} has decided on {word.model}/{word.version} already.")
            store.add_approval(tx, word)
            action = "release approved" if approved else "release refused"
            self._record(tx, release, principal, action, f"word of {principal.name}", reason=reason)
            return self._count(tx, release)

    def roll_back(self, model: str, principal: Principal, reason: str) -> Route:
        """Put the previous champion back, in one transaction.

        Raises:
            Conflict: There is no previous champion.
        """
        champion, previous = self._champion(model), self._previous_champion(model)
        if champion is None or previous is None:
            raise Conflict(f"{model} has no previous champion to go back to.", hint=f"See relevo history {model}.")
        self._load(self._registry.version(model, previous))
        with self._state.transaction() as tx:
            if self._serving_champion(tx, model) != champion:
                raise Conflict(f"The champion of {model} has just changed; look again before rolling back.")
            event_at = self._clock.now(model, tx)
            route = self._serving.set_route(
                tx, model, (Arm(previous, 100),), reason=reason, set_by=principal, effective_event_at=event_at
            )
            self._enthrone(tx, model, previous)
            for live in store.select_releases(tx, model=model, state=ReleaseState.LIVE):
                if live.version == champion:
                    store.update_release(tx, live.id, utc_now(), state=ReleaseState.ROLLED_BACK, outcome=reason)
            self._ledger.append(
                tx,
                actor=principal,
                action="version rolled back",
                subject=f"{model}/{champion}",
                reason=reason,
                facts={"back_to": previous, "route_revision": route.revision},
                event_at=event_at,
            )
        return route

    # -- within -------------------------------------------------------------------------------------------------

    def _contract(self, release: Release) -> Contract:
        return self._contracts.revision(release.model, release.contract_revision).contract

    def _champion(self, model: str) -> int | None:
        route = self._serving.current_route(model)
        return None if route is None else route.champion

    def _serving_champion(self, tx: Transaction, model: str) -> int | None:
        route = self._serving.current_route(model, tx)
        return None if route is None else route.champion

    def _previous_champion(self, model: str) -> int | None:
        """The champion before the present one: the last other version that had all the traffic."""
        routes = self._serving.routes(model)
        champions = [route.champion for route in routes if len(route.arms) == 1]
        return next((version for version in reversed(champions) if version != champions[-1]), None)

    def _count(self, tx: Transaction, release: Release) -> policy.ApprovalCount:
        assert release.version is not None
        assert release.evidence is not None
        needed = self._contract(release).release.approvals
        return policy.count_approvals(store.approvals_of(tx, release.model, release.version), release.evidence, needed)

    def _load(self, version: ModelVersion) -> None:
        with self._state.transaction() as tx:
            self._serving.ensure_endpoint(tx, version.model, self._contracts.current(version.model).contract.log)
            self._serving.place(tx, version.model, version.number, version.bundle)
        self._serving.await_loaded(version.model, version.number, LOAD_WITHIN_SECONDS)

    def _keep_two(self, model: str, champion: int) -> None:
        """Unload what is neither champion nor the one to go back to."""
        keep = {champion, self._previous_champion(model)}
        with self._state.transaction() as tx:
            for placement in self._serving.placements(model):
                if placement.version not in keep:
                    self._serving.unplace(tx, model, placement.version)

    def _enthrone(self, tx: Transaction, model: str, champion: int) -> None:
        """Production is exactly the champion; who was there before is archived."""
        for version in self._registry.versions(model):
            if version.stage is Stage.PRODUCTION and version.number != champion:
                self._registry.set_stage(tx, model, version.number, Stage.ARCHIVED)
        self._registry.set_stage(tx, model, champion, Stage.PRODUCTION)

    def _route(
        self,
        tx: Transaction,
        release: Release,
        arms: tuple[Arm, ...],
        step: str,
        reason: str,
        event_at: datetime,
    ) -> Route:
        return self._serving.set_route(
            tx,
            release.model,
            arms,
            reason=reason,
            set_by=RELEVO,
            effective_event_at=event_at,
            once=(release.id, step),
        )

    def _record(
        self,
        tx: Transaction,
        release: Release,
        actor: Principal,
        action: str,
        step: str,
        *,
        version: int | None = None,
        subject: str | None = None,
        reason: str = "",
        evidence: Evidence | None = None,
        event_at: datetime | None = None,
    ) -> None:
        number = version or release.version
        facts: dict[str, object] = {"release": release.id}
        if evidence is not None:
            facts["gates"] = [gate.message for gate in evidence.gates]
        self._ledger.append(
            tx,
            actor=actor,
            action=action,
            subject=subject or (f"{release.model}/{number}" if number else release.model),
            reason=reason,
            evidence=evidence.digest if evidence else release.evidence,
            facts=facts,
            event_at=event_at or release.event_at,
            once=(release.id, step),
        )


def _found(value: Release | None, name: str) -> Release:
    if value is None:
        raise NotFound(f"There is no {name}.", hint="List them with `relevo releases`.")
    return value
