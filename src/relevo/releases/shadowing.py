"""The shadow step of a release: its version answers copies of live requests before any caller gets an answer of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from relevo.platform.clock import EventClock, utc_now
from relevo.platform.encoding import to_json
from relevo.platform.state import State
from relevo.registry.service import Registry
from relevo.releases import policy, store
from relevo.releases.model import ReleaseState, ShadowFigures
from relevo.releases.policy import Bake
from relevo.releases.rollout import Rollout, check_open, required_version
from relevo.releases.service import Releases
from relevo.serving.model import ShadowCounters
from relevo.serving.policy import since
from relevo.serving.service import Serving


@dataclass(frozen=True, slots=True)
class ShadowLook:
    """What a look at a shadow says, and what it saw."""

    bake: Bake
    message: str
    figures: ShadowFigures


class Shadowing:
    """The steps of a release's shadow. Thread-safe; each may be repeated, and changes something once."""

    def __init__(
        self, state: State, *, releases: Releases, registry: Registry, serving: Serving, clock: EventClock
    ) -> None:
        self._state = state
        self._releases = releases
        self._rollout = Rollout(registry, serving)
        self._serving = serving
        self._clock = clock

    def cast(self, release_id: str) -> dict[str, object]:
        """Let the version get copies; gives what its looks are measured from."""
        with self._state.transaction() as tx:
            release = self._releases.locked(tx, release_id)
            self._releases.check_champion(tx, release)
            shadow = self._releases.contract_of(release).release.shadow
            assert shadow is not None
            event_at = self._clock.now(release.model, tx)
            reason = f"shadow: copies of {shadow.share:.0%} of the requests to version {release.version}"
            route = self._rollout.cast_shadow(tx, release, shadow.share, reason, event_at)
            store.update_release(tx, release_id, utc_now(), state=ReleaseState.SHADOW)
            facts = {"route_revision": route.revision, "share": shadow.share}
            self._releases.record(tx, release, "shadow began", "shadow", reason=reason, event_at=event_at, facts=facts)
        before = self._serving.shadow_counters(release.model).get(required_version(release), ShadowCounters())
        # A repeated step gets the route that it set before, so its minutes are not begun anew.
        return {"began_at": route.effective_event_at, "counters": to_json(before)}

    def look(self, release_id: str, began_at: datetime, before: ShadowCounters) -> ShadowLook:
        """Judge the shadow that began at ``began_at`` (event time) with the counters ``before``."""
        release = self._releases.release(release_id)
        check_open(release)
        declared = self._releases.contract_of(release).release
        assert declared.shadow is not None
        version = required_version(release)
        seen = since(self._serving.shadow_counters(release.model).get(version, ShadowCounters()), before)
        now = self._clock.now(release.model)
        verdict = policy.judge_shadow(
            declared.shadow, declared.slo, version=version, seen=seen, began_at=began_at, now=now
        )
        return ShadowLook(verdict.bake, verdict.message, policy.shadow_figures(seen))

    def conclude(self, release_id: str, look: ShadowLook) -> None:
        """Write into the ledger how it ended, and its figures."""
        with self._state.transaction() as tx:
            release = self._releases.locked(tx, release_id)
            facts = {"passed": look.bake is Bake.PASSED, "figures": to_json(look.figures)}
            event_at = self._clock.now(release.model, tx)
            self._releases.record(
                tx, release, "shadow judged", "judge shadow", reason=look.message, event_at=event_at, facts=facts
            )
