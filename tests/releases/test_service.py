"""A release's steps over real stores: each is done once, and whatever ends a release leaves no split route."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from release_world import BEGIN, CONTRACT, ERIN, MODEL, OLGA, RAY, RUTH, World, evaluation

from relevo.errors import Conflict, NotAllowed, NotFound, Unavailable
from relevo.identity.model import RELEVO
from relevo.platform.encoding import parse
from relevo.platform.recorded_errors import Cancelled
from relevo.registry.model import Stage
from relevo.releases.model import ReleaseState
from relevo.releases.policy import Bake, BakeVerdict
from relevo.serving.model import Counters

#: What does not depend on the database.
on_sqlite = pytest.mark.parametrize("empty_state", ["sqlite"], indirect=True)

FROM_BEGIN_TO_LIVE = [
    "release began",
    "gates judged",
    "release approved",
    "version promoted",
]


def look(world: World, release_id: str, began: dict[str, object]) -> BakeVerdict:
    counters = began["counters"]
    champion, began_at = began["champion"], began["began_at"]
    assert isinstance(counters, dict)
    before = {int(version): parse(Counters, count) for version, count in counters.items()}
    return world.canary.look(release_id, champion, began_at, before)  # type: ignore[arg-type]


def test_the_first_version_goes_live_without_a_canary(world: World) -> None:
    world.begin(1)
    assert world.releases.prepare("r1") == {
        "revision": 1,
        "as_of": BEGIN,
        "champion": None,
        "has_shadow": False,
        "steps": (),
        "is_imported": False,
    }
    world.live(1)
    assert world.arms() == [(1, 100)]
    assert world.stages() == {1: Stage.PRODUCTION}
    assert world.actions("r1") == FROM_BEGIN_TO_LIVE
    live = world.releases.release("r1")
    assert (live.state, live.outcome) == (ReleaseState.LIVE, "promoted: to see")
    assert world.ledger.verify() > 0
    entry = world.ledger.entries(f"{MODEL}/1")[0]
    assert (entry.action, entry.evidence, entry.event_at) == ("version promoted", live.evidence, BEGIN)


def test_a_challenger_passes_its_canary_step_by_step(world: World) -> None:
    world.live(1)
    world.begin(2)
    assert world.releases.prepare("r2")["steps"] == (10, 50)
    world.load(2)
    for percent in (10, 50):
        began = world.canary.shift("r2", percent)
        assert world.arms() == [(1, 100 - percent), (2, percent)]
        assert world.releases.release("r2").state is ReleaseState.CANARY
        assert look(world, "r2", began).bake is Bake.GOES_ON
        world.traffic(1, 30)
        world.traffic(2, 29)
        assert look(world, "r2", began).message == "10 minutes of event time and 1 requests on version 2"
        world.advance(world.clock.now(MODEL) + timedelta(minutes=10))
        world.traffic(2, 1)
        assert look(world, "r2", began).bake is Bake.PASSED
    world.releases.promote("r2")
    assert world.arms() == [(2, 100)]
    assert world.stages() == {1: Stage.ARCHIVED, 2: Stage.PRODUCTION}
    assert world.actions("r2") == [*FROM_BEGIN_TO_LIVE[:3], "traffic shifted", "traffic shifted", "version promoted"]
    assert [route.effective_event_at - BEGIN for route in world.serving.routes(MODEL)] == [
        timedelta(0),
        timedelta(0),
        timedelta(minutes=10),
        timedelta(minutes=20),
    ]


@on_sqlite
def test_counters_are_of_the_step_and_go_on_over_boots_of_the_gateway(world: World) -> None:
    world.live(1)
    world.load(2)
    world.traffic(2, 500, failed=500)  # of an earlier try
    began = world.canary.shift("r2", 10)
    world.advance(BEGIN + timedelta(minutes=10))
    for boot in ("b2", "b3"):
        world.restart_gateway(boot)
        world.traffic(2, 15)
        world.traffic(1, 14)
    assert look(world, "r2", began).message == "2 requests on version 1"
    world.traffic(1, 2)
    assert look(world, "r2", began).bake is Bake.PASSED


def test_every_step_may_be_repeated_after_a_crash(world: World) -> None:
    """The transaction was committed, and the process died before the step was recorded."""
    world.live(1)
    began = world.begin(2)
    assert world.begin(2) == began
    world.seal(2, "r2")
    first = [world.releases.judge("r2", 2, evaluation(champion=1), {}) for _ in range(2)]
    assert first[0] == first[1]
    for _ in range(2):
        world.releases.await_approval("r2")
    world.releases.decide("r2", RUTH, approved=True, reason="fine")
    assert world.releases.await_approval("r2").is_decided
    with world.state.transaction() as tx:
        world.serving.place(tx, MODEL, 2, world.registry.version(MODEL, 2, tx).bundle)
    world.beat()
    for _ in range(2):
        world.releases.load("r2")
    shifted = world.canary.shift("r2", 10)
    world.advance(BEGIN + timedelta(minutes=3))
    again = world.canary.shift("r2", 10)
    assert again["began_at"] == shifted["began_at"] == BEGIN  # its minutes are not begun anew
    for _ in range(3):
        world.releases.promote("r2")
    assert world.actions("r2") == [*FROM_BEGIN_TO_LIVE[:3], "traffic shifted", "version promoted"]
    assert len(world.serving.routes(MODEL)) == 3
    assert world.placed() == {1, 2}
    # Nothing that comes late ends what is live.
    world.releases.end("r2", ReleaseState.FAILED, "late")
    assert world.releases.release("r2").state is ReleaseState.LIVE
    assert world.arms() == [(2, 100)]


@on_sqlite
def test_promoting_again_after_a_person_rolled_back_changes_nothing(world: World) -> None:
    world.live(1, 2)
    world.releases.roll_back(MODEL, OLGA, "bad")
    world.releases.promote("r2")
    assert world.arms() == [(1, 100)]


@on_sqlite
def test_a_version_that_failed_its_gates_stays_a_candidate_with_the_reason(world: World) -> None:
    evidence = world.judge(1, roc_auc=0.6)
    assert not evidence.passed
    world.releases.end("r1", ReleaseState.REJECTED, evidence.gates[0].message)
    assert world.stages() == {1: Stage.CANDIDATE}
    found = world.releases.release("r1")
    assert (found.state, found.outcome) == (ReleaseState.REJECTED, "roc_auc needs >= 0.7000, got 0.6000")
    assert world.releases.evidence(MODEL, 1) == evidence
    entry = world.ledger.entries(f"{MODEL}/1")[0]
    assert (entry.action, entry.reason, entry.evidence) == ("release rejected", found.outcome, evidence.digest)


def test_an_undefined_metric_is_kept_out_of_the_evidence(world: World) -> None:
    evidence = world.judge(1, roc_auc=float("nan"))
    assert evidence.gates[0].message == "roc_auc needs >= 0.7000, got no value"
    assert world.releases.evidence(MODEL, 1) == evidence


@pytest.mark.parametrize(
    ("outcome", "percents"),
    [(ReleaseState.ROLLED_BACK, (10,)), (ReleaseState.FAILED, ()), (ReleaseState.CANCELLED, (10, 50))],
)
def test_whatever_ends_a_release_gives_the_traffic_back(
    outcome: ReleaseState, percents: tuple[int, ...], world: World
) -> None:
    world.live(1)
    world.load(2)
    for percent in percents:
        world.canary.shift("r2", percent)
    for _ in range(2):
        world.releases.end("r2", outcome, "because", OLGA)
    assert world.arms() == [(1, 100)]
    assert world.placed() == {1}
    assert world.stages()[2] is (Stage.REJECTED if outcome is ReleaseState.ROLLED_BACK else Stage.CANDIDATE)
    assert world.stages()[1] is Stage.PRODUCTION
    assert world.actions("r2").count(f"release {outcome.replace('_', ' ')}") == 1
    assert len(world.serving.routes(MODEL)) == 1 + len(percents) + bool(percents)
    entry = world.ledger.entries(f"{MODEL}/2")[0]
    assert (entry.actor, entry.reason) == ("olga", "because")


def steps(world: World, release_id: str) -> dict[str, Callable[[], object]]:
    releases = world.releases
    return {
        "prepare": lambda: releases.prepare(release_id),
        "judge": lambda: releases.judge(release_id, 2, evaluation(champion=1), {}),
        "await": lambda: releases.await_approval(release_id),
        "load": lambda: releases.load(release_id),
        "shift": lambda: world.canary.shift(release_id, 10),
        "look": lambda: world.canary.look(release_id, 1, BEGIN, {}),
        "promote": lambda: releases.promote(release_id),
    }


@on_sqlite
def test_no_step_goes_on_after_the_release_was_cancelled(world: World) -> None:
    world.live(1)
    world.load(2)
    world.releases.end("r2", ReleaseState.CANCELLED, "superseded", OLGA)
    for step in steps(world, "r2").values():
        with pytest.raises(Cancelled, match="Release r2 is cancelled: superseded"):
            step()
    assert world.arms() == [(1, 100)]
    assert world.placed() == {1}


@on_sqlite
def test_a_release_that_is_not_there_is_named(world: World) -> None:
    for step in (*steps(world, "r9").values(), lambda: world.releases.end("r9", ReleaseState.FAILED, "")):
        with pytest.raises(NotFound, match="There is no release 'r9'"):
            step()


def test_a_model_has_one_release_under_way(world: World) -> None:
    world.begin(1)
    with pytest.raises(Conflict, match="Release r1 of delay is under way"):
        world.begin(2)
    assert [release.id for release in world.releases.under_way(MODEL)] == ["r1"]
    world.releases.end("r1", ReleaseState.CANCELLED, "superseded")
    world.begin(2)
    assert [release.id for release in world.releases.under_way()] == ["r2"]
    assert [release.id for release in world.releases.releases(MODEL)] == ["r2", "r1"]
    assert [release.id for release in world.releases.releases(state=ReleaseState.CANCELLED)] == ["r1"]
    assert world.releases.releases("other") == []


def test_of_two_that_begin_at_once_one_is_refused(world: World) -> None:
    outcomes: list[str] = []
    together = threading.Barrier(4)

    def begin(version: int) -> None:
        together.wait()
        try:
            outcomes.append(world.begin(version).id)
        except Conflict:
            outcomes.append("refused")

    threads = [threading.Thread(target=begin, args=(version,)) for version in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("refused") == 3
    assert len(world.releases.under_way(MODEL)) == 1


def test_a_second_person_decides_once(world: World) -> None:
    two = replace(CONTRACT, release=replace(CONTRACT.release, approvals=2))
    world.apply(two, revision=2)
    world.begin(1, revision=2)
    world.seal(1, "r1")
    with pytest.raises(Conflict, match="Release r1 is training; it does not wait for approval"):
        world.releases.decide("r1", RUTH, approved=True, reason="early")
    world.releases.judge("r1", 1, evaluation(), {})
    world.releases.await_approval("r1")
    assert world.stages() == {1: Stage.STAGING}
    with pytest.raises(NotAllowed, match="erin asked for this release"):
        world.releases.decide("r1", ERIN, approved=True, reason="mine")
    assert not world.releases.decide("r1", RUTH, approved=True, reason="fine").is_decided
    with pytest.raises(Conflict, match="ruth has decided on delay/1 already"):
        world.releases.decide("r1", RUTH, approved=False, reason="on second thoughts")
    assert world.releases.decide("r1", RAY, approved=True, reason="fine too").is_decided
    with pytest.raises(Conflict, match="Release r1 is decided"):
        world.releases.decide("r1", OLGA, approved=False, reason="late")
    assert [(word.principal, word.reason) for word in world.releases.approvals(MODEL, 1)] == [
        ("ruth", "fine"),
        ("ray", "fine too"),
    ]


@on_sqlite
def test_a_refusal_decides_and_rejects_the_version(world: World) -> None:
    world.judge(1)
    world.releases.await_approval("r1")
    assert world.releases.decide("r1", RUTH, approved=False, reason="biased").refused_by == "ruth"
    assert world.releases.await_approval("r1").is_decided
    world.releases.end("r1", ReleaseState.REJECTED, "ruth refused it")
    assert world.stages() == {1: Stage.REJECTED}
    assert world.actions("r1")[-2:] == ["release refused", "release rejected"]


@on_sqlite
def test_who_applied_the_contract_does_not_approve_what_its_rule_asked_for(world: World) -> None:
    world.begin(1, requested_by=RELEVO)
    world.seal(1, "r1")
    world.releases.judge("r1", 1, evaluation(), {})
    world.releases.await_approval("r1")
    with pytest.raises(NotAllowed, match="erin applied the contract that asked"):
        world.releases.decide("r1", ERIN, approved=True, reason="mine")


@on_sqlite
def test_evidence_against_another_champion_says_nothing(world: World) -> None:
    world.live(1, 2)
    world.judge(3)  # compared with 2
    world.releases.roll_back(MODEL, OLGA, "bad")
    world.releases.await_approval("r3")
    world.releases.decide("r3", RUTH, approved=True, reason="fine")
    for step in ("load", "shift", "promote"):
        with pytest.raises(Conflict, match="compared with champion version 2, and now there is champion version 1"):
            steps(world, "r3")[step]()
    assert world.arms() == [(1, 100)]


@on_sqlite
def test_a_version_that_a_worker_cannot_load_does_not_go_on(world: World) -> None:
    world.judge(1)
    world.releases.await_approval("r1")
    with world.state.transaction() as tx:
        world.serving.ensure_endpoint(tx, MODEL)
        world.serving.place(tx, MODEL, 1, world.registry.version(MODEL, 1, tx).bundle)
    world.loaded[1] = "failed: the probe differs"
    world.beat()
    with pytest.raises(Unavailable, match="the probe differs"):
        world.releases.load("r1")
    world.releases.end("r1", ReleaseState.FAILED, "not loaded")
    assert world.placed() == set()
    assert world.arms() == []


def test_rolling_back_is_one_transaction(world: World) -> None:
    world.live(1, 2)
    world.beat()
    route = world.releases.roll_back(MODEL, OLGA, "complaints")
    assert (world.arms(), route.set_by, route.reason) == ([(1, 100)], "olga", "complaints")
    assert world.stages() == {1: Stage.PRODUCTION, 2: Stage.ARCHIVED}
    found = world.releases.release("r2")
    assert (found.state, found.outcome) == (ReleaseState.ROLLED_BACK, "complaints")
    entry = world.ledger.entries(f"{MODEL}/2")[0]
    assert (entry.action, entry.actor, entry.facts["back_to"]) == ("version rolled back", "olga", 1)
    with pytest.raises(Conflict, match="no previous champion"):
        world.releases.roll_back(MODEL, OLGA, "more")


@on_sqlite
def test_rolling_back_twice_does_not_bring_the_bad_one_back(world: World) -> None:
    world.live(1, 2, 3)
    assert world.placed() == {2, 3}
    world.beat()
    world.releases.roll_back(MODEL, OLGA, "bad")
    assert world.arms() == [(2, 100)]
    with world.state.transaction() as tx:  # version 1 is loaded again when it is needed
        world.serving.place(tx, MODEL, 1, world.registry.version(MODEL, 1, tx).bundle)
    world.beat()
    world.releases.roll_back(MODEL, OLGA, "worse")
    assert world.arms() == [(1, 100)]


@on_sqlite
def test_rolling_back_leaves_a_release_under_way_loaded_and_a_canary_alone(world: World) -> None:
    world.live(1, 2)
    world.load(3)
    world.canary.shift("r3", 10)
    world.beat()
    with pytest.raises(Conflict, match="Release r3 is in its canary"):
        world.releases.roll_back(MODEL, OLGA, "bad")
    assert world.arms() == [(2, 90), (3, 10)]
    world.releases.end("r3", ReleaseState.CANCELLED, "making room", OLGA)
    world.load(4)
    world.releases.roll_back(MODEL, OLGA, "bad")
    assert world.placed() == {1, 4}


@on_sqlite
def test_without_a_champion_there_is_nothing_to_roll_back(world: World) -> None:
    with pytest.raises(Conflict, match="no previous champion"):
        world.releases.roll_back(MODEL, OLGA, "bad")
    world.live(1)
    with pytest.raises(Conflict, match="no previous champion"):
        world.releases.roll_back(MODEL, OLGA, "bad")
