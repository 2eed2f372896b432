"""The durable workflow of one release: train or import, judge, test under load, approve, shadow, canary, promote.

Each step is recorded once. What a person does (cancelling, approving, rolling back) takes effect in the state store at
once; the workflow is woken up, and its next step finds what was done. So nothing is lost when the process dies in
between.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from relevo.contract.service import ContractService
from relevo.errors import NotFound, RelevoError
from relevo.identity.model import RELEVO, Principal
from relevo.imports.service import Imports
from relevo.platform.encoding import parse
from relevo.platform.recorded_errors import Cancelled
from relevo.platform.workflows import Workflows
from relevo.releases.canary import CanarySteps
from relevo.releases.load_testing import LoadTesting
from relevo.releases.model import Evaluation, Evidence, LoadFigures, Release, ReleaseState
from relevo.releases.policy import ApprovalCount, Bake, BakeVerdict
from relevo.releases.service import Releases
from relevo.releases.shadowing import Shadowing, ShadowLook
from relevo.serving.model import Counters, ShadowCounters
from relevo.training.service import Training

logger = logging.getLogger(__name__)

NAME = "deliver"
APPROVAL = "approval"
APPROVE_WITHIN_SECONDS = 30 * 24 * 3600.0
# A bad canary is seen within a second or so, a long bake does not fill the workflow's record.
LOOK_EVERY_SECONDS, LOOK_LATER_EVERY_SECONDS, FIRST_LOOKS = 1.0, 10.0, 120


class Deliver:
    """Registers and starts the workflow ``deliver``.

    Args:
        on_withdrawn: Called with the model and the reason when a release failed or its canary was given up.
        on_live: Called with the model and the release's id when its version went live.
    """

    def __init__(
        self,
        workflows: Workflows,
        *,
        releases: Releases,
        load_testing: LoadTesting,
        shadowing: Shadowing,
        canary: CanarySteps,
        training: Training,
        imports: Imports,
        contracts: ContractService,
        on_withdrawn: Callable[[str, str], None],
        on_live: Callable[[str, str], None],
    ) -> None:
        self._workflows = workflows
        self._releases = releases
        self._load_testing = load_testing
        self._shadowing = shadowing
        self._canary = canary
        self._training = training
        self._imports = imports
        self._contracts = contracts
        self._on_withdrawn = on_withdrawn
        self._on_live = on_live
        workflows.register(NAME)(self.run)

    def start(self, model: str, *, release_id: str, as_of: datetime, reason: str, requested_by: str) -> str:
        """Start a release; the same id again changes nothing. Gives the id.

        Raises:
            Conflict: Another release of the model is under way.
        """
        self._releases.begin(
            release_id,
            model=model,
            revision=self._contracts.current(model).revision,
            as_of=as_of,
            reason=reason,
            requested_by=requested_by,
        )
        # A crash here leaves a release without a workflow; ``settle`` starts it.
        self._workflows.start(NAME, release_id, model=model)
        return release_id

    def cancel(self, release_id: str, reason: str, actor: Principal = RELEVO) -> Release:
        """Stop a release: a canary gives its traffic back at once. One that has ended stays as it is."""
        ended = self._releases.end(release_id, ReleaseState.CANCELLED, reason, actor)
        with contextlib.suppress(NotFound):
            self._workflows.cancel(release_id, reason)
        return ended

    def tell(self, release_id: str) -> None:
        """Wake the release that waits for approval: somebody has spoken."""
        self._workflows.send(release_id, APPROVAL, True)

    def settle(self) -> None:
        """Mend what a crash left between the state store and the workflows. Call it after the launch."""
        for release in self._releases.under_way():
            self._settle(release)
        for activity in self._workflows.activities.open():
            if activity.kind == NAME and not self._releases.release(activity.workflow_id).state.is_open:
                self._workflows.cancel(activity.workflow_id, "the release has ended")

    def _settle(self, release: Release) -> None:
        try:
            status = self._workflows.status(release.id)
        except NotFound:
            self._workflows.start(NAME, release.id, model=release.model)
            return
        if status.state != "running":
            self._releases.end(release.id, ReleaseState.FAILED, f"its workflow ended before it: {status.error}")
        elif release.version is not None and self._releases.approvals(release.model, release.version):
            self.tell(release.id)

    async def run(self, model: str) -> dict[str, Any]:
        """Bring one challenger from training to production, or say why not."""
        release_id, flow = self._workflows.workflow_id, self._workflows
        try:
            return await self._deliver(release_id, model)
        except Cancelled as error:
            return await self._end(release_id, ReleaseState.CANCELLED, error.message)
        except Exception as error:  # whatever it is, no traffic stays split
            if flow.is_closing:
                raise
            if not isinstance(error, RelevoError):
                logger.exception("release %s failed", release_id)
            await self._end(release_id, ReleaseState.FAILED, str(error))
            await flow.step(self._on_withdrawn, model, f"Release {release_id} failed: {error}", name="alert")
            raise

    async def _deliver(self, release_id: str, model: str) -> dict[str, Any]:
        flow = self._workflows
        began = await flow.step(self._releases.prepare, release_id, name="prepare")
        as_of = datetime.fromisoformat(began["as_of"])
        revision, champion = began["revision"], began["champion"]
        if began.get("is_imported"):
            facts = await self._imports.candidate(release_id, model, revision, champion)
        else:
            facts = await self._training.train(release_id, model, revision, as_of, champion)
        evidence = await self._judge(release_id, facts)
        if evidence.passed:
            evidence = await self._test_load(release_id, evidence)
        if not evidence.passed:
            failed = "; ".join(gate.message for gate in evidence.gates if not gate.passed)
            return await self._end(release_id, ReleaseState.REJECTED, failed)
        refusal = await self._approve(release_id, f"{model}/{evidence.version}")
        if refusal is not None:
            return await self._end(release_id, *refusal)
        await flow.report(f"waiting until the gateway has loaded {model}/{evidence.version}")
        await flow.step(self._releases.load, release_id, name="load", retries=3)
        if began.get("has_shadow"):
            broken = await self._shadow(release_id)
            if broken is not None:
                return await self._withdraw(release_id, model, broken, "Shadow stopped")
        for percent in began["steps"]:
            broken = await self._bake(release_id, percent)
            if broken is not None:
                return await self._withdraw(release_id, model, broken)
        await flow.step(self._releases.promote, release_id, name="promote")
        await flow.step(self._on_live, model, release_id, name="live")
        return {"release": release_id, "version": evidence.version, "state": ReleaseState.LIVE}

    async def _judge(self, release_id: str, facts: dict[str, Any]) -> Evidence:
        evaluation = parse(Evaluation, facts["evaluation"])
        recorded = await self._workflows.step(
            self._releases.judge, release_id, facts["version"], evaluation, facts["facts"], name="judge"
        )
        return parse(Evidence, recorded)

    async def _test_load(self, release_id: str, evidence: Evidence) -> Evidence:
        """The evidence with the verdicts of a load test; as it was when the contract asks for none."""
        flow = self._workflows
        await flow.report(f"load test of {evidence.model}/{evidence.version}, once the gateway has loaded it")
        measured = await flow.step(self._load_testing.measure, release_id, name="load test", retries=3)
        if measured is None:
            return evidence
        judge = self._load_testing.judge
        recorded = await flow.step(judge, release_id, parse(LoadFigures, measured), name="judge load test")
        return parse(Evidence, recorded)

    async def _approve(self, release_id: str, subject: str) -> tuple[ReleaseState, str] | None:
        """Wait until enough people have approved; gives how the release ends when they do not."""
        while True:
            vote = parse(
                ApprovalCount,
                await self._workflows.step(self._releases.await_approval, release_id, name="await approval"),
            )
            if vote.refused_by is not None:
                return ReleaseState.REJECTED, f"{vote.refused_by} refused it"
            if vote.is_decided:
                return None
            waits_for = f"approval of {subject} by a second person ({vote.given} of {vote.needed})"
            if await self._workflows.recv(APPROVAL, APPROVE_WITHIN_SECONDS, waits_for=waits_for) is None:
                return ReleaseState.CANCELLED, "nobody decided on it within 30 days"

    async def _bake(self, release_id: str, percent: int) -> str | None:
        """One canary step; gives what broke, if anything did."""
        flow = self._workflows
        began = await flow.step(self._canary.shift, release_id, percent, name=f"canary {percent} %")
        began_at = datetime.fromisoformat(began["began_at"])
        before = {int(version): parse(Counters, count) for version, count in began["counters"].items()}
        look = partial(self._canary.look, release_id, began["champion"], began_at, before)
        verdict = parse(BakeVerdict, await self._judged(look, f"look at {percent} %", f"canary at {percent} %"))
        return verdict.message if verdict.bake is Bake.FAILED else None

    async def _shadow(self, release_id: str) -> str | None:
        """The version as a shadow; gives what broke, if anything did."""
        flow = self._workflows
        began = await flow.step(self._shadowing.cast, release_id, name="shadow")
        began_at, before = datetime.fromisoformat(began["began_at"]), parse(ShadowCounters, began["counters"])
        look = partial(self._shadowing.look, release_id, began_at, before)
        last = parse(ShadowLook, await self._judged(look, "look at the shadow", "shadow"))
        await flow.step(self._shadowing.conclude, release_id, last, name="judge shadow")
        return last.message if last.bake is Bake.FAILED else None

    async def _judged(self, look: Callable[[], object], name: str, what: str) -> dict[str, Any]:
        """The first look that says how it ends."""
        looks = 0
        while True:
            found: dict[str, Any] = await self._workflows.step(look, name=name)
            if found["bake"] != Bake.GOES_ON:
                return found
            looks += 1
            pause = LOOK_EVERY_SECONDS if looks <= FIRST_LOOKS else LOOK_LATER_EVERY_SECONDS
            await self._workflows.sleep(pause, waits_for=f"{what}: {found['message']}")

    async def _withdraw(
        self, release_id: str, model: str, reason: str, what: str = "Canary rolled back"
    ) -> dict[str, Any]:
        ended = await self._end(release_id, ReleaseState.ROLLED_BACK, reason)
        await self._workflows.step(self._on_withdrawn, model, f"{what}: {reason}", name="alert")
        return ended

    async def _end(self, release_id: str, outcome: ReleaseState, reason: str) -> dict[str, Any]:
        await self._workflows.step(self._releases.end, release_id, outcome, reason, name="end", retries=3)
        return {"release": release_id, "state": outcome, "reason": reason}
