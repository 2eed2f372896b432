"""The durable workflow of one release: train, judge, approve, canary, promote. Each step is recorded once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from relevo.contract.service import ContractService
from relevo.errors import RelevoError
from relevo.platform.encoding import parse, to_json
from relevo.platform.recorded_errors import Cancelled
from relevo.platform.workflows import Workflows
from relevo.releases.model import Evaluation, Evidence, ReleaseState
from relevo.releases.policy import ApprovalCount, Bake, BakeVerdict
from relevo.releases.service import Releases
from relevo.serving.model import Counters
from relevo.training.service import Training

NAME = "deliver"
APPROVAL = "approval"
APPROVE_WITHIN_SECONDS = 30 * 24 * 3600.0
# A bad canary is seen within a second or so, a long bake does not fill the workflow's record.
LOOK_EVERY_SECONDS, LOOK_LATER_EVERY_SECONDS, FIRST_LOOKS = 1.0, 10.0, 120


class Deliver:
    """Registers and starts the workflow ``deliver``.

    Args:
        on_withdrawn: Called with the model and the reason when a canary was given up, to alert people.
    """

    def __init__(
        self,
        workflows: Workflows,
        *,
        releases: Releases,
        training: Training,
        contracts: ContractService,
        on_withdrawn: Callable[[str, str], None],
    ) -> None:
        self._workflows = workflows
        self._releases = releases
        self._training = training
        self._contracts = contracts
        self._on_withdrawn = on_withdrawn
        workflows.register(NAME)(self.run)

    def start(self, model: str, *, release_id: str, as_of: datetime, reason: str, requested_by: str) -> str:
        """Start a release; the same id again changes nothing. Gives the id."""
        revision = self._contracts.current(model).revision
        self._workflows.start(
            NAME,
            release_id,
            model=model,
            revision=revision,
            as_of=as_of.isoformat(),
            reason=reason,
            requested_by=requested_by,
        )
        return release_id

    def cancel(self, release_id: str, reason: str) -> None:
        """Stop a release that is under way at its next wait; a canary gives its traffic back."""
        self._workflows.cancel(release_id, reason)

    def tell(self, release_id: str) -> None:
        """Wake the release that waits for approval: somebody has spoken."""
        self._workflows.send(release_id, APPROVAL, True)

    def tell_all(self) -> None:
        """Wake every waiting release on which enough people have spoken, in case the process died before telling."""
        for release in self._releases.releases(state=ReleaseState.WAITING_FOR_APPROVAL):
            if release.version is not None and self._releases.approvals(release.model, release.version):
                self.tell(release.id)

    async def run(self, model: str, revision: int, as_of: str, reason: str, requested_by: str) -> dict[str, Any]:
        """Bring one challenger from training to production, or say why not."""
        release_id, flow = self._workflows.workflow_id, self._workflows
        event_at = datetime.fromisoformat(as_of)
        opened = await flow.step(
            self._releases.open, release_id, model, revision, event_at, reason, requested_by, name="open"
        )
        try:
            facts = await self._training.train(release_id, model, revision, event_at, opened["champion"])
            evidence = await self._judge(release_id, facts)
            if not evidence.passed:
                failed = "; ".join(gate.message for gate in evidence.gates if not gate.passed)
                return await self._end(release_id, ReleaseState.REJECTED, failed)
            refusal = await self._approve(release_id, f"{model}/{evidence.version}")
            if refusal is not None:
                return await self._end(release_id, ReleaseState.REJECTED, refusal)
            await flow.report(f"waiting until the gateway has loaded {model}/{evidence.version}")
            await flow.step(self._releases.load, release_id, name="load", retries=3)
            if opened["champion"] is not None:
                broken = await self._canary(release_id, model, revision)
                if broken is not None:
                    return await self._withdraw(release_id, model, broken)
            await flow.step(self._releases.promote, release_id, name="promote")
        except Cancelled as error:
            await flow.step(self._releases.withdraw, release_id, str(error), ReleaseState.CANCELLED, name="cancel")
            raise
        except RelevoError as error:
            await flow.step(self._releases.withdraw, release_id, str(error), ReleaseState.FAILED, name="fail")
            await flow.step(self._on_withdrawn, model, f"Release {release_id} failed: {error}", name="alert")
            raise
        return {"release": release_id, "version": evidence.version, "state": ReleaseState.LIVE}

    async def _judge(self, release_id: str, facts: dict[str, Any]) -> Evidence:
        evaluation = parse(Evaluation, facts["evaluation"])
        recorded = await self._workflows.step(
            self._releases.judge, release_id, facts["version"], evaluation, facts["facts"], name="judge"
        )
        return parse(Evidence, recorded)

    async def _approve(self, release_id: str, subject: str) -> str | None:
        """Wait until enough people have approved; gives the refusal, if there is one."""
        while True:
            vote = parse(
                ApprovalCount,
                await self._workflows.step(self._releases.await_approval, release_id, name="await approval"),
            )
            if vote.refused_by is not None:
                return f"{vote.refused_by} refused it"
            if vote.is_decided:
                return None
            waits_for = f"approval of {subject} by a second person ({vote.given} of {vote.needed})"
            if await self._workflows.recv(APPROVAL, APPROVE_WITHIN_SECONDS, waits_for=waits_for) is None:
                return "nobody approved it within 30 days"

    async def _canary(self, release_id: str, model: str, revision: int) -> str | None:
        """Raise the challenger's share step by step; gives what broke, if anything did."""
        for percent in self._contracts.revision(model, revision).contract.release.canary.steps:
            broken = await self._bake(release_id, percent)
            if broken is not None:
                return broken
        return None

    async def _bake(self, release_id: str, percent: int) -> str | None:
        flow = self._workflows
        began = await flow.step(self._releases.shift, release_id, percent, name=f"canary {percent} %")
        before = {int(version): parse(Counters, count) for version, count in began["counters"].items()}
        looks = 0
        while True:
            look = await flow.step(
                self._releases.look,
                release_id,
                began["champion"],
                datetime.fromisoformat(began["began_at"]),
                before,
                name=f"look at {percent} %",
            )
            verdict = parse(BakeVerdict, to_json(look))
            if verdict.bake is Bake.FAILED:
                return verdict.message
            if verdict.bake is Bake.PASSED:
                return None
            looks += 1
            pause = LOOK_EVERY_SECONDS if looks <= FIRST_LOOKS else LOOK_LATER_EVERY_SECONDS
            await flow.sleep(pause, waits_for=f"canary at {percent} %: {verdict.message}")

    async def _withdraw(self, release_id: str, model: str, reason: str) -> dict[str, Any]:
        await self._workflows.step(self._releases.withdraw, release_id, reason, name="withdraw")
        await self._workflows.step(self._on_withdrawn, model, f"Canary rolled back: {reason}", name="alert")
        return {"release": release_id, "state": ReleaseState.ROLLED_BACK, "reason": reason}

    async def _end(self, release_id: str, outcome: ReleaseState, reason: str) -> dict[str, Any]:
        await self._workflows.step(self._releases.close, release_id, outcome, reason, name="close")
        return {"release": release_id, "state": outcome, "reason": reason}
