"""A final window starts one training at most, whatever dies in between."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from final_windows import final_window
from release_world import CONTRACT, MODEL, World

from relevo.contract.model import Condition, Guards, Retrain
from relevo.errors import JobFailed
from relevo.monitoring.model import Estimate, Window
from relevo.monitoring.references import References
from relevo.monitoring.service import Monitoring
from relevo.platform.settings import Settings
from relevo.platform.state import State
from relevo.platform.workflows import Workflows
from relevo.predictions.log import PredictionLog
from relevo.releases.model import ReleaseState
from relevo.releases.workflow import Deliver
from relevo.retraining.service import Retraining

RULE = Retrain((Condition("performance_drop", 0.02),), (1, 1), Guards(cool_down=timedelta(days=14)))


class NeverTrains:
    """Stands in for the training: the team's code is at fault."""

    async def train(self, *_: object) -> dict[str, Any]:
        raise JobFailed("the loader gave no rows")


class Dies:
    """Stands in for the process's end right before the workflow is started."""

    def start(self, *_: object, **__: object) -> str:
        raise SystemExit


@dataclass
class Scene:
    world: World
    workflows: Workflows
    monitoring: Monitoring
    deliver: Deliver

    @property
    def retraining(self) -> Retraining:
        return self.started_by(self.deliver)

    def started_by(self, deliver: Deliver | Dies) -> Retraining:
        return Retraining(
            self.world.state,
            contracts=self.world.contracts,
            registry=self.world.registry,
            monitoring=self.monitoring,
            releases=self.world.releases,
            deliver=deliver,  # type: ignore[arg-type]
            ledger=self.world.ledger,
        )

    def final(self, number: int, auc: float = 0.5, revision: int = 1) -> Window:
        """Week ``number`` became final: the champion's AUC was that."""
        estimate = Estimate(auc, auc - 0.01, auc + 0.01, 1000)
        window = final_window(MODEL, number, estimate, version=1, revision=revision)
        with self.world.state.transaction() as tx:
            self.monitoring.record(tx, window)
        self.world.advance(window.end + timedelta(hours=30))
        return window

    def until_ended(self, release_id: str) -> None:
        deadline = time.monotonic() + 60
        while self.world.releases.release(release_id).state.is_open:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def starts(self) -> list[datetime | None]:
        entries = self.world.ledger.entries(MODEL, limit=1000)
        return [entry.event_at for entry in entries if entry.action == "retraining started"]


@pytest.fixture
def scene(state: State, tmp_path: Path) -> Iterator[Scene]:
    url = None if state.is_sqlite else state.url.render_as_string(hide_password=False)
    settings = Settings(home=tmp_path / "home", state_url=url)
    world = World(state, settings)
    world.apply(replace(CONTRACT, retrain=RULE))
    world.live(1)
    log = PredictionLog(settings)
    workflows = Workflows(settings, state, poll_seconds=0.02)
    monitoring = Monitoring(
        state,
        contracts=world.contracts,
        references=References(world.registry),
        serving=world.serving,
        log=log,
        clock=world.clock,
        ledger=world.ledger,
    )
    deliver = Deliver(
        workflows,
        releases=world.releases,
        training=NeverTrains(),  # type: ignore[arg-type]
        imports=None,  # type: ignore[arg-type]  # nothing is imported here
        load_testing=None,  # type: ignore[arg-type]  # nor gets as far as that
        shadowing=None,  # type: ignore[arg-type]
        canary=None,  # type: ignore[arg-type]
        contracts=world.contracts,
        on_withdrawn=lambda model, reason: None,
        on_live=lambda model, release_id: None,
    )
    yield Scene(world, workflows, monitoring, deliver)
    workflows.close()
    log.close()


def test_a_window_starts_one_release_on_what_was_known_by_then(scene: Scene) -> None:
    scene.workflows.launch()
    assert scene.retraining.on_final(scene.final(1, auc=0.8)) is not None
    assert scene.starts() == []

    window = scene.final(2)
    known = window.end + timedelta(hours=30)
    decision = scene.retraining.on_final(window)
    assert decision is not None and decision.fired
    assert (decision.release, decision.event_at) == ("deliver-delay-20130415T000000", known)
    assert decision.reason == "roc_auc of version 1 was 0.500 in the window to 2013-04-15, 0.800 on its holdout"
    release = scene.world.releases.release("deliver-delay-20130415T000000")
    assert (release.requested_by, release.reason, release.event_at) == ("relevo", decision.reason, known)
    scene.until_ended(release.id)
    assert scene.world.releases.release(release.id).state is ReleaseState.FAILED

    # Again, and with labels that came later: the decision stands, on the revision that it was made on.
    assert scene.retraining.on_final(window) == decision
    assert scene.retraining.on_final(scene.final(2, auc=0.9, revision=2)) == decision
    assert scene.starts() == [known]
    assert [one.fired for one in scene.retraining.decisions(MODEL)] == [True, False]

    third = scene.retraining.on_final(scene.final(3))
    assert third is not None and not third.fired
    assert third.reason.endswith("held back: the last training was 7 days ago, the cool-down is 14d")


def test_a_crash_after_the_decision_is_mended_by_asking_again(scene: Scene) -> None:
    scene.final(1, auc=0.8)
    window = scene.final(2)
    with pytest.raises(SystemExit):
        scene.started_by(Dies()).on_final(window)
    assert [one.id for one in scene.world.releases.under_way()] == ["deliver-delay-20130415T000000"]
    scene.workflows.launch()
    decision = scene.retraining.on_final(window)
    assert decision is not None and decision.fired
    scene.until_ended("deliver-delay-20130415T000000")
    assert len(scene.starts()) == 1


@pytest.mark.parametrize("empty_state", ["sqlite"], indirect=True)
def test_a_release_under_way_holds_it_back(scene: Scene) -> None:
    scene.workflows.launch()
    scene.final(1, auc=0.8)
    scene.world.begin(2)
    decision = scene.retraining.on_final(scene.final(2))
    assert decision is not None
    assert (decision.fired, decision.release) == (False, None)
    assert decision.reason.endswith("held back: a release is under way")
    assert scene.starts() == []


@pytest.mark.parametrize("empty_state", ["sqlite"], indirect=True)
def test_without_a_rule_nothing_is_decided(scene: Scene) -> None:
    scene.world.apply(CONTRACT, revision=2)
    assert scene.retraining.on_final(scene.final(1)) is None
    assert scene.retraining.decisions(MODEL) == []
