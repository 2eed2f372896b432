"""Releases in a real process over real durable workflows, killed at the bad moments."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from release_world import BEGIN, CONTRACT, MODEL, OLGA, RUTH, World

from relevo.contract.model import Shadow
from relevo.platform.settings import Settings
from relevo.platform.state import State, metadata
from relevo.platform.workflows import Workflows
from relevo.registry.model import Stage
from relevo.releases.model import ReleaseState
from relevo.serving.model import ShadowArm

PROGRAM = Path(__file__).with_name("release_program.py")


class Scene:
    """The program, and beside it the people, the callers and the gateway."""

    def __init__(self, home: Path) -> None:
        self.home = home
        settings = Settings(home=home)
        self.state = State(settings.state_database)
        with self.state.transaction() as tx:
            metadata.create_all(tx)
        self.world = World(self.state, settings)
        self.world.apply()
        self.workflows = Workflows(settings, self.state)  # never launched: it only sends
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, *releases: str) -> None:
        with (self.home / "log").open("ab") as log:
            command = [sys.executable, str(PROGRAM), str(self.home), *releases]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        self.kill()
        self.workflows.close()
        self.state.close()

    def until(self, condition: Callable[[], object], *, meanwhile: Callable[[], object] = lambda: None) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            log = (self.home / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, f"{self.outcome('r2')} {self.waits()}\n{log}"
            meanwhile()
            self.world.beat()
            time.sleep(0.05)

    def approve(self, release_id: str) -> None:
        """A reviewer's word, and the wake-up that the API sends."""
        self.until(lambda: self.is_in(release_id, ReleaseState.WAITING_FOR_APPROVAL))
        self.world.releases.decide(release_id, RUTH, approved=True, reason="fine")
        self.workflows.send(release_id, "approval", True)

    def finish_canary(self, release_id: str) -> None:
        """Requests on both arms, and minutes of event time, until it is live."""
        version = int(release_id.removeprefix("r"))

        def pass_by() -> None:
            for arm in {arm for arm, _ in self.world.arms()} | {version}:
                self.world.traffic(arm, 10)
            self.world.advance(self.world.clock.now(MODEL) + timedelta(minutes=2))

        self.until(lambda: self.is_in(release_id, ReleaseState.LIVE), meanwhile=pass_by)

    def outcome(self, release_id: str) -> tuple[str, str | None] | None:
        found = [one for one in self.world.releases.releases() if one.id == release_id]
        return (found[0].state, found[0].outcome) if found else None

    def is_in(self, release_id: str, state: ReleaseState) -> bool:
        return (self.outcome(release_id) or ("",))[0] == state

    def waits(self) -> list[str]:
        return [activity.text for activity in self.workflows.activities.open() if activity.state == "waiting"]

    def journal(self) -> list[str]:
        path = self.home / "journal"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


def test_kill_9_in_the_approval_wait_and_in_the_canary_repeats_nothing(scene: Scene) -> None:
    world = scene.world
    world.live(1)

    scene.run("r2")
    waiting = ["approval of delay/2 by a second person (0 of 1)"]
    scene.until(lambda: scene.waits() == waiting)
    scene.kill()
    # The word is given while nothing runs, and the process that should have told died: the start mends it.
    world.releases.decide("r2", RUTH, approved=True, reason="fine")
    scene.run()
    scene.until(lambda: world.arms() == [(1, 90), (2, 10)])
    scene.until(lambda: any(text.startswith("canary at 10 %: 10 minutes of event time") for text in scene.waits()))
    scene.kill()
    world.traffic(1, 30)
    world.traffic(2, 30)
    scene.run()
    scene.until(lambda: scene.waits() == ["canary at 10 %: 10 minutes of event time"])  # what was counted still counts
    world.advance(BEGIN + timedelta(minutes=10))
    scene.until(lambda: world.arms() == [(1, 50), (2, 50)])
    scene.kill()
    scene.run()
    scene.finish_canary("r2")

    assert world.arms() == [(2, 100)]
    assert world.stages() == {1: Stage.ARCHIVED, 2: Stage.PRODUCTION}
    assert world.actions("r2") == [
        "release began",
        "gates judged",
        "release approved",
        "traffic shifted",
        "traffic shifted",
        "version promoted",
    ]
    assert [route.reason for route in world.serving.routes(MODEL)] == [
        "promoted: to see",
        "canary step: 10 % to version 2",
        "canary step: 50 % to version 2",
        "promoted: to see",
    ]
    scene.until(lambda: scene.journal() == ["train r2", "live delay: r2"])
    assert world.ledger.verify() > 0
    scene.until(lambda: scene.workflows.status("r2").state == "succeeded")


def test_a_bad_canary_is_rolled_back_and_people_are_alerted(scene: Scene) -> None:
    world = scene.world
    world.live(1)
    scene.run("r2")
    scene.approve("r2")
    scene.until(lambda: world.arms() == [(1, 90), (2, 10)])
    world.traffic(2, 20, failed=20)
    scene.until(lambda: scene.is_in("r2", ReleaseState.ROLLED_BACK))
    reason = "version 2 failed 100.00% of 20 requests, allowed are 1.00%"
    assert (world.arms(), world.releases.release("r2").outcome) == ([(1, 100)], reason)
    assert world.stages()[2] is Stage.REJECTED
    scene.until(lambda: f"alert delay: Canary rolled back: {reason}" in scene.journal())


def test_cancelling_takes_effect_at_once_even_when_nothing_runs(scene: Scene) -> None:
    world = scene.world
    world.live(1)
    scene.run("r2", "r3")
    scene.approve("r2")
    scene.until(lambda: world.arms() == [(1, 90), (2, 10)])
    assert "refused r3: Release r2 of delay is under way." in scene.journal()
    scene.kill()
    world.releases.end("r2", ReleaseState.CANCELLED, "wrong data", OLGA)
    assert world.arms() == [(1, 100)]
    scene.run("r3")
    scene.until(lambda: scene.workflows.status("r2").state == "succeeded")
    scene.until(lambda: scene.is_in("r3", ReleaseState.WAITING_FOR_APPROVAL))
    assert scene.outcome("r2") == ("cancelled", "wrong data")
    assert world.actions("r2")[-1] == "release cancelled"
    assert not [line for line in scene.journal() if line.startswith("alert")]


def test_whatever_breaks_in_a_workflow_ends_its_release(scene: Scene) -> None:
    (scene.home / "broken").touch()
    scene.run("r1")
    scene.until(lambda: scene.is_in("r1", ReleaseState.FAILED))
    scene.until(lambda: any(line.startswith("alert delay: Release r1 failed") for line in scene.journal()))
    assert scene.world.stages() == {1: Stage.CANDIDATE}
    scene.until(lambda: scene.workflows.status("r1").state == "failed")


def test_a_release_that_was_recorded_right_before_a_crash_is_started(scene: Scene) -> None:
    scene.world.begin(1)
    scene.run()
    scene.approve("r1")
    scene.until(lambda: scene.is_in("r1", ReleaseState.LIVE))
    scene.until(lambda: scene.journal() == ["train r1", "live delay: r1"])


WITH_SHADOW = replace(
    CONTRACT, release=replace(CONTRACT.release, shadow=Shadow(minutes=10, requests=30, share=0.5, max_difference=0.1))
)


def cast(scene: Scene) -> None:
    """Bring release r2 as far as the shadow, and kill it there."""
    world = scene.world
    world.live(1)
    world.apply(WITH_SHADOW, revision=2)
    scene.run("r2")
    scene.approve("r2")
    scene.until(lambda: any("30 copies of requests for version 2" in text for text in scene.waits()))
    assert scene.is_in("r2", ReleaseState.SHADOW)
    assert world.arms() == [(1, 100)]
    route = world.serving.current_route(MODEL)
    assert route is not None
    assert route.shadow == ShadowArm(2, 0.5)
    scene.kill()


def test_a_shadow_comes_before_the_canary_and_kill_9_in_it_repeats_nothing(scene: Scene) -> None:
    world = scene.world
    cast(scene)
    world.copies(2, 29, difference=0.05)
    scene.run()
    waiting = ["shadow: 10 minutes of event time and 1 copies of requests for version 2"]
    scene.until(lambda: scene.waits() == waiting)  # what was counted still counts
    world.advance(BEGIN + timedelta(minutes=11))
    scene.until(lambda: scene.waits() == ["shadow: 1 copies of requests for version 2"])  # no traffic never passes
    world.copies(2, 1, difference=0.05)
    scene.until(lambda: world.arms() == [(1, 90), (2, 10)])
    route = world.serving.current_route(MODEL)
    assert route is not None
    assert route.shadow is None
    scene.finish_canary("r2")
    assert world.actions("r2") == [
        "release began",
        "gates judged",
        "release approved",
        "shadow began",
        "shadow judged",
        "traffic shifted",
        "traffic shifted",
        "version promoted",
    ]
    judged = next(entry for entry in world.ledger.entries(limit=1000) if entry.action == "shadow judged")
    assert judged.facts["passed"] is True
    figures = judged.facts["figures"]
    assert isinstance(figures, dict)
    assert (figures["requests"], round(figures["difference"], 6), figures["agreement"]) == (30, 0.05, 1.0)
    scene.until(lambda: scene.journal() == ["train r2", "live delay: r2"])


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"failed": 20}, "version 2 failed 100.00% of 20 requests, allowed are 1.00%"),
        (
            {"requests": 30, "difference": 0.2},
            "predictions of version 2 may differ from the champion's by 0.1 on average, they differ by 0.2",
        ),
    ],
)
def test_a_bad_shadow_ends_the_release_and_people_are_alerted(scene: Scene, how: dict[str, Any], reason: str) -> None:
    world = scene.world
    cast(scene)
    world.copies(2, **{"requests": 20, **how})
    scene.run()
    scene.until(lambda: scene.is_in("r2", ReleaseState.ROLLED_BACK))
    route = world.serving.current_route(MODEL)
    assert route is not None
    assert (world.arms(), route.shadow, world.placed()) == ([(1, 100)], None, {1})
    assert world.releases.release("r2").outcome == reason
    assert world.stages()[2] is Stage.REJECTED
    scene.until(lambda: f"alert delay: Shadow stopped: {reason}" in scene.journal())


def test_a_first_version_has_nobody_to_shadow(scene: Scene) -> None:
    scene.world.apply(WITH_SHADOW, revision=2)
    scene.run("r1")
    scene.approve("r1")
    scene.until(lambda: scene.is_in("r1", ReleaseState.LIVE))
    assert "shadow began" not in scene.world.actions("r1")


def test_a_cancelled_shadow_gets_no_more_copies(scene: Scene) -> None:
    cast(scene)
    scene.world.releases.end("r2", ReleaseState.CANCELLED, "wrong data", OLGA)
    route = scene.world.serving.current_route(MODEL)
    assert route is not None
    assert (route.shadow, scene.world.placed()) == (None, {1})
