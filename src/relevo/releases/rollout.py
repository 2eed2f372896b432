"""Moves an endpoint's traffic, stages and placements for a release, in the caller's transaction."""

from __future__ import annotations

from datetime import datetime

from relevo.contract.model import Contract
from relevo.errors import Conflict
from relevo.identity.model import RELEVO, Principal
from relevo.platform.recorded_errors import Cancelled
from relevo.platform.state import Transaction
from relevo.registry.model import Stage
from relevo.registry.service import Registry
from relevo.releases import policy
from relevo.releases.model import Release, ReleaseState
from relevo.serving.model import Arm, Route, ShadowArm
from relevo.serving.policy import settings_of
from relevo.serving.service import Serving

LOAD_WITHIN_SECONDS = 120.0


class Rollout:
    """The only caller of ``set_route`` and ``set_stage``. Thread-safe."""

    def __init__(self, registry: Registry, serving: Serving) -> None:
        self._registry = registry
        self._serving = serving

    def champion(self, model: str, tx: Transaction | None = None) -> int | None:
        """The version that a canary is measured against; None before the first route."""
        route = self._serving.current_route(model, tx)
        return None if route is None else route.champion

    def check_champion(self, tx: Transaction, release: Release, compared: int | None) -> None:
        """Refuse to go on when the champion is not the one that the version was compared with.

        Raises:
            Conflict: Names both.
        """
        champion = self.champion(release.model, tx)
        if champion != compared:
            raise Conflict(
                f"Version {release.model}/{release.version} was compared with {_champion(compared)}, "
                f"and now there is {_champion(champion)}.",
                hint="Train again.",
            )

    def previous(self, model: str) -> int | None:
        """The version that a roll-back would bring back."""
        return policy.previous_champion(self._champions(model))

    def place(self, tx: Transaction, model: str, version: int, contract: Contract) -> None:
        """Ask the gateway to load a version, and to treat the endpoint's requests as the contract says."""
        self._serving.ensure_endpoint(tx, model, settings_of(contract))
        self._serving.place(tx, model, version, self._registry.version(model, version, tx).bundle)

    def stand_by(self, tx: Transaction, model: str, version: int, contract: Contract) -> None:
        """Ask the gateway to load a candidate beside what is live, whose settings the endpoint keeps."""
        if self._serving.current_route(model, tx) is None:
            self._serving.ensure_endpoint(tx, model, settings_of(contract))
        self._serving.place(tx, model, version, self._registry.version(model, version, tx).bundle)

    def await_loaded(self, model: str, version: int) -> None:
        """Wait until every gateway worker has loaded and probed the version. Blocks; outside of any transaction.

        Raises:
            Unavailable: A worker cannot load it, or the time is over.
        """
        self._serving.await_loaded(model, version, LOAD_WITHIN_SECONDS)

    def stage(self, tx: Transaction, release: Release) -> None:
        """A candidate that is tested under load, or put before people, is in staging."""
        number = required_version(release)
        if self._registry.version(release.model, number, tx).stage is Stage.CANDIDATE:
            self._registry.set_stage(tx, release.model, number, Stage.STAGING)

    def cast_shadow(self, tx: Transaction, release: Release, share: float, reason: str, event_at: datetime) -> Route:
        """All traffic stays with the champion; the release's version gets copies of this share of it."""
        champion = self.champion(release.model, tx)
        assert champion is not None
        shadow = ShadowArm(required_version(release), share)
        return self._route(tx, release, (Arm(champion, 100),), "shadow", reason, event_at, shadow)

    def shift(self, tx: Transaction, release: Release, percent: int, reason: str, event_at: datetime) -> Route:
        """Send ``percent`` of the traffic to the release's version, the rest to the champion."""
        champion = self.champion(release.model, tx)
        assert champion is not None
        arms = (Arm(champion, 100 - percent), Arm(required_version(release), percent))
        return self._route(tx, release, arms, f"canary-{percent}", reason, event_at)

    def promote(self, tx: Transaction, release: Release, reason: str, event_at: datetime) -> Route:
        """All traffic to the release's version, and production is its stage."""
        version = required_version(release)
        champions = [*self._champions(release.model), version]
        route = self._route(tx, release, (Arm(version, 100),), "promote", reason, event_at)
        self._registry.set_stage(tx, release.model, version, Stage.PRODUCTION)
        self._keep(tx, release.model, {version, policy.previous_champion(champions)})
        return route

    def give_back(
        self, tx: Transaction, release: Release, outcome: ReleaseState, reason: str, event_at: datetime
    ) -> Route | None:
        """Undo what a release that ends has moved: traffic, placement, stage. The new route, when traffic was moved."""
        if release.version is None:
            return None
        route = None
        current = self._serving.current_route(release.model, tx)
        if current is not None and release.version in current.versions - {current.champion}:
            route = self._route(tx, release, (Arm(current.champion, 100),), "withdraw", reason, event_at)
        self._serving.unplace(tx, release.model, release.version)
        stage = self._registry.version(release.model, release.version, tx).stage
        self._registry.set_stage(tx, release.model, release.version, policy.stage_after(outcome, stage))
        return route

    def roll_back(
        self,
        tx: Transaction,
        model: str,
        previous: int,
        *,
        seen: Route,
        keep: int | None,
        actor: Principal,
        reason: str,
        event_at: datetime,
    ) -> Route:
        """All traffic to the previous champion; ``keep`` stays loaded too.

        Raises:
            Conflict: The route is not the one that was ``seen``.
        """
        champions = [*self._champions(model), previous]
        route = self._serving.set_route(
            tx, model, (Arm(previous, 100),), reason=reason, set_by=actor, effective_event_at=event_at
        )
        if route.revision != seen.revision + 1:
            raise Conflict(f"The route of {model} has just changed; look again before rolling back.")
        self._registry.set_stage(tx, model, previous, Stage.PRODUCTION)
        self._keep(tx, model, {previous, policy.previous_champion(champions), keep})
        return route

    def _champions(self, model: str) -> list[int]:
        return [route.champion for route in self._serving.routes(model) if len(route.arms) == 1]

    def _keep(self, tx: Transaction, model: str, versions: set[int | None]) -> None:
        """Unload every other version."""
        for placement in self._serving.placements(model):
            if placement.version not in versions:
                self._serving.unplace(tx, model, placement.version)

    def _route(
        self,
        tx: Transaction,
        release: Release,
        arms: tuple[Arm, ...],
        step: str,
        reason: str,
        event_at: datetime,
        shadow: ShadowArm | None = None,
    ) -> Route:
        return self._serving.set_route(
            tx,
            release.model,
            arms,
            reason=reason,
            set_by=RELEVO,
            effective_event_at=event_at,
            once=(release.id, step),
            shadow=shadow,
        )


def _champion(version: int | None) -> str:
    return "no champion" if version is None else f"champion version {version}"


def check_open(release: Release) -> None:
    """A release that has ended takes no further step.

    Raises:
        Cancelled: Says how it ended.
    """
    if not release.state.is_open:
        raise Cancelled(f"Release {release.id} is {words(release.state)}: {release.outcome}")


def words(state: ReleaseState) -> str:
    """The state as people write it."""
    return state.replace("_", " ")


def required_version(release: Release) -> int:
    """The release's version, which is there once its gates were judged."""
    assert release.version is not None, f"release {release.id} has no version yet"
    return release.version
