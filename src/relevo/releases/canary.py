"""The canary steps of a release: a share of the callers gets the challenger's answers, judged beside the champion."""

from __future__ import annotations

from datetime import datetime

from relevo.platform.clock import EventClock, utc_now
from relevo.platform.encoding import to_json
from relevo.platform.state import State
from relevo.registry.service import Registry
from relevo.releases import policy, store
from relevo.releases.model import ReleaseState
from relevo.releases.rollout import Rollout, check_open, required_version
from relevo.releases.service import Releases
from relevo.serving.model import Counters
from relevo.serving.policy import since
from relevo.serving.service import Serving


class CanarySteps:
    """The steps of a release's canary. Thread-safe; each may be repeated, and changes something once."""

    def __init__(
        self, state: State, *, releases: Releases, registry: Registry, serving: Serving, clock: EventClock
    ) -> None:
        self._state = state
        self._releases = releases
        self._rollout = Rollout(registry, serving)
        self._serving = serving
        self._clock = clock

    def shift(self, release_id: str, percent: int) -> dict[str, object]:
        """Send ``percent`` of the traffic to the challenger; gives what its looks are measured from."""
        with self._state.transaction() as tx:
            release = self._releases.locked(tx, release_id)
            self._releases.check_champion(tx, release)
            event_at = self._clock.now(release.model, tx)
            reason = f"canary step: {percent} % to version {release.version}"
            route = self._rollout.shift(tx, release, percent, reason, event_at)
            store.update_release(tx, release_id, utc_now(), state=ReleaseState.CANARY)
            facts = {"route_revision": route.revision, "percent": percent}
            step = f"canary-{percent}"
            self._releases.record(tx, release, "traffic shifted", step, reason=reason, event_at=event_at, facts=facts)
        counters = {str(version): to_json(count) for version, count in self._serving.counters(release.model).items()}
        # A repeated step gets the route that it set before, so its minutes are not begun anew.
        return {"began_at": route.effective_event_at, "champion": route.champion, "counters": counters}

    def look(
        self, release_id: str, champion: int, began_at: datetime, before: dict[int, Counters]
    ) -> policy.BakeVerdict:
        """Judge the canary step that began at ``began_at`` (event time) with the counters ``before``."""
        release = self._releases.release(release_id)
        check_open(release)
        declared = self._releases.contract_of(release).release
        counted = self._serving.counters(release.model)
        return policy.judge_bake(
            declared.canary,
            declared.slo,
            challenger=required_version(release),
            counters={version: since(count, before.get(version)) for version, count in counted.items()},
            champion=champion,
            began_at=began_at,
            now=self._clock.now(release.model),
        )
