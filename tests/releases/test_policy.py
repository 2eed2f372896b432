"""Gates, votes and canaries judged on known evidence."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from release_world import CONTRACT, ERIN, RUTH, counted, evaluation

from relevo.contract.model import Canary, Gate, ServiceLevel, Shadow, Task
from relevo.errors import NotAllowed
from relevo.identity.model import RELEVO
from relevo.registry.model import Stage
from relevo.releases.model import Approval, ReleaseState
from relevo.releases.policy import (
    ApprovalCount,
    Bake,
    BakeVerdict,
    check_approver,
    count_approvals,
    defined_only,
    judge_bake,
    judge_gates,
    judge_shadow,
    previous_champion,
    stage_after,
)
from relevo.serving.model import Counters, ShadowCounters

BEGAN = datetime(2013, 4, 1, tzinfo=UTC)
AUC, LOSS = CONTRACT.gates


def judged(gate: Gate, **changes: Any) -> tuple[bool, str]:
    (result,) = judge_gates((gate,), Task.CLASSIFICATION, evaluation(**changes))
    return result.passed, result.message


def test_a_bound_is_judged_in_words() -> None:
    assert judged(AUC, roc_auc=0.7) == (True, "roc_auc needs >= 0.7000, got 0.7000")
    assert judged(AUC, roc_auc=0.6999) == (False, "roc_auc needs >= 0.7000, got 0.6999")
    at_most = Gate(metric="log_loss", at_most=0.4)
    assert judged(at_most, log_loss=0.4) == (True, "log_loss needs <= 0.4000, got 0.4000")
    assert judged(at_most, log_loss=0.41)[0] is False


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_without_a_finite_value_never_passes(value: float) -> None:
    for gate in (AUC, Gate(metric="roc_auc", at_most=2.0), Gate(metric="roc_auc", better_than_champion_by=-9.0)):
        found = defined_only(evaluation(roc_auc=value, champion=1))
        (result,) = judge_gates((gate,), Task.CLASSIFICATION, found)
        assert not result.passed
        assert result.message.startswith("roc_auc needs") and "got no value" in result.message
    assert defined_only(evaluation(slices={"a=b": {"roc_auc": value, "rows": 9.0}})).slices == {"a=b": {"rows": 9.0}}


def test_a_challenger_is_compared_the_way_its_metric_is_better() -> None:
    assert judged(LOSS, log_loss=0.49, champion=3) == (
        True,
        "log_loss needs <= 0.4900, got 0.4900 (champion version 3: 0.5000)",
    )
    assert judged(LOSS, log_loss=0.4901, champion=3)[0] is False
    by_auc = Gate(metric="roc_auc", better_than_champion_by=0.05)
    assert judged(by_auc, roc_auc=0.8, champion=3)[0] is True
    assert judged(by_auc, roc_auc=0.79, champion=3)[0] is False


def test_without_a_champion_there_is_nothing_to_beat() -> None:
    assert judged(LOSS, log_loss=9) == (True, "log_loss: there is no champion to compare with yet")


def test_a_champion_that_could_not_be_measured_is_not_beaten() -> None:
    passed, message = judged(LOSS, champion=3, champion_metrics={}, champion_note="it was trained on these rows")
    assert (passed, message) == (False, "log_loss of champion version 3 is not known: it was trained on these rows")


def test_rules_see_the_evidence_and_only_true_passes() -> None:
    rule = Gate(rule="slices.all(s, s.roc_auc > 0.55)")
    slices = {"origin=JFK": {"roc_auc": 0.6, "rows": 90.0}}
    assert judged(rule, slices=slices)[0] is True
    assert judged(rule, slices={**slices, "origin=LGA": {"roc_auc": 0.5, "rows": 90.0}})[0] is False
    passed, message = judged(Gate(rule="champion.roc_auc < metrics.roc_auc"))
    assert not passed
    assert "roc_auc" in message


def test_every_gate_is_judged_in_the_order_of_the_contract() -> None:
    results = judge_gates(CONTRACT.gates, Task.CLASSIFICATION, evaluation(roc_auc=0.1, log_loss=0.1, champion=1))
    assert [(result.gate, result.passed) for result in results] == [("roc_auc", False), ("log_loss", True)]


def test_whoever_asked_does_not_decide() -> None:
    check_approver(RUTH, requested_by=ERIN.name, applied_by=ERIN.name)
    check_approver(ERIN, requested_by=RUTH.name, applied_by=ERIN.name)
    with pytest.raises(NotAllowed, match="erin asked for this release, so a second person"):
        check_approver(ERIN, requested_by=ERIN.name, applied_by=RUTH.name)
    with pytest.raises(NotAllowed, match="erin applied the contract that asked"):
        check_approver(ERIN, requested_by=RELEVO.name, applied_by=ERIN.name)


def word(principal: str, approved: bool = True, evidence: str = "e") -> Approval:
    return Approval("delay", 1, principal, approved, "", evidence, BEGAN)


def test_words_count_on_the_evidence_that_they_were_given_on() -> None:
    words = [word("ruth"), word("ray", evidence="other")]
    assert count_approvals(words, "e", 2) == ApprovalCount(1, 2, None)
    assert not count_approvals(words, "e", 2).is_decided
    assert count_approvals([*words, word("rob")], "e", 2).is_decided
    assert count_approvals([*words, word("rob", False)], "e", 2).refused_by == "rob"
    assert count_approvals([], "e", 0).is_decided


def test_a_version_that_people_or_traffic_refused_is_rejected_and_no_other() -> None:
    assert stage_after(ReleaseState.REJECTED, Stage.STAGING) is Stage.REJECTED
    assert stage_after(ReleaseState.ROLLED_BACK, Stage.STAGING) is Stage.REJECTED
    assert stage_after(ReleaseState.CANCELLED, Stage.STAGING) is Stage.CANDIDATE
    assert stage_after(ReleaseState.FAILED, Stage.STAGING) is Stage.CANDIDATE
    assert stage_after(ReleaseState.REJECTED, Stage.CANDIDATE) is Stage.CANDIDATE  # gates failed


@pytest.mark.parametrize(
    ("champions", "previous"),
    [([], None), ([1], None), ([1, 1], None), ([1, 2], 1), ([1, 2, 1], None), ([1, 2, 3, 2], 1), ([1, 2, 1, 3], 1)],
)
def test_going_back_forgets_what_came_after(champions: list[int], previous: int | None) -> None:
    assert previous_champion(champions) == previous


CANARY = Canary((10, 50), minutes=10, requests=500)
LEVEL = ServiceLevel(p99_ms=50, error_rate=0.001)


def look(challenger: Counters, champion: Counters, minutes: float = 10, canary: Canary = CANARY) -> BakeVerdict:
    return judge_bake(
        canary,
        LEVEL,
        challenger=2,
        champion=1,
        counters={1: champion, 2: challenger},
        began_at=BEGAN,
        now=BEGAN + timedelta(minutes=minutes),
    )


def test_a_step_passes_after_its_minutes_and_its_requests_on_both_arms() -> None:
    assert look(counted(500), counted(500)).bake is Bake.PASSED
    waits = look(counted(480), counted(100), minutes=2.5)
    assert waits == BakeVerdict(
        Bake.GOES_ON, "8 minutes of event time and 20 requests on version 2 and 400 requests on version 1"
    )
    assert look(counted(500), counted(500), minutes=9.99).message == "1 minutes of event time"
    assert look(counted(500), counted(499)).bake is Bake.GOES_ON
    assert look(counted(499), counted(500)).bake is Bake.GOES_ON


def test_no_traffic_never_passes_however_long() -> None:
    assert look(Counters(), Counters(), minutes=1e6).bake is Bake.GOES_ON
    verdict = judge_bake(
        CANARY, LEVEL, challenger=2, champion=1, counters={}, began_at=BEGAN, now=BEGAN + timedelta(days=99)
    )
    assert verdict.bake is Bake.GOES_ON


def test_a_broken_error_rate_fails_the_step() -> None:
    assert look(counted(500, failed=1), counted(500)) == BakeVerdict(
        Bake.FAILED, "version 2 failed 0.20% of 500 requests, allowed are 0.10%"
    )
    assert look(counted(1000, failed=1), counted(500)).bake is Bake.PASSED
    assert look(counted(500), counted(500, failed=500)).bake is Bake.PASSED  # the champion is not on trial


def test_a_broken_latency_fails_the_step() -> None:
    verdict = look(counted(500, slow=6, slow_ms=80), counted(500))
    assert verdict.bake is Bake.FAILED
    assert "p99 of" in verdict.message and "allowed are 50 ms" in verdict.message
    assert look(counted(500, slow=4, slow_ms=80), counted(500)).bake is Bake.PASSED
    assert look(counted(500, slow=500, slow_ms=99999), counted(500)).message.startswith("version 2 answers with a p99")


def test_an_early_breach_counts_when_it_is_beyond_chance() -> None:
    """Of 20 requests one failure comes by chance with p = 0.02 at a rate of 0.001, two with p = 0.0002."""
    early = {"minutes": 0.1}
    assert look(counted(20, failed=1), counted(20), **early).bake is Bake.GOES_ON
    assert look(counted(20, failed=2), counted(20), **early).bake is Bake.FAILED
    assert look(counted(2, failed=2), counted(0), **early).bake is Bake.FAILED
    # Slower than the 99th percentile is 1 in 100: of 20 two come with p = 0.017, four with p = 0.00004.
    assert look(counted(20, slow=2), counted(20), **early).bake is Bake.GOES_ON
    assert look(counted(20, slow=4), counted(20), **early).bake is Bake.FAILED


def test_enough_requests_are_judged_before_the_minutes_are_over() -> None:
    assert look(counted(500, failed=1), counted(10), minutes=1).bake is Bake.FAILED
    zero = replace(LEVEL, error_rate=0.0)
    verdict = judge_bake(
        CANARY,
        zero,
        challenger=2,
        champion=1,
        counters={2: counted(5, failed=1)},
        began_at=BEGAN,
        now=BEGAN,
    )
    assert verdict.bake is Bake.FAILED


SHADOW = Shadow(minutes=10, requests=100, max_difference=0.1, min_agreement=0.9)


def see(seen: ShadowCounters, minutes: float = 10, shadow: Shadow = SHADOW) -> BakeVerdict:
    now = BEGAN + timedelta(minutes=minutes)
    return judge_shadow(shadow, LEVEL, version=2, seen=seen, began_at=BEGAN, now=now)


def copies(requests: int, *, failed: int = 0, difference: float = 0.0, changed: int = 0) -> ShadowCounters:
    rows = requests - failed
    return ShadowCounters(
        requests=requests,
        failed=failed,
        compared_rows=rows,
        decided_rows=rows,
        changed_rows=changed,
        difference_total=rows * difference,
    )


def test_a_shadow_passes_after_its_minutes_and_its_requests() -> None:
    assert see(copies(100)).bake is Bake.PASSED
    waits = "2 minutes of event time and 20 copies of requests for version 2"
    assert see(copies(80), minutes=8.5) == BakeVerdict(Bake.GOES_ON, waits)
    assert see(ShadowCounters(dropped=500), minutes=1e6).bake is Bake.GOES_ON  # no traffic never passes
    assert see(copies(100, difference=0.02, changed=1)).message == (
        "version 2 answered 100 copies; predictions differ from the champion's by 0.02 on average "
        "and decide alike in 99.00% of the rows"
    )


def test_errors_end_a_shadow_early_when_they_are_beyond_chance() -> None:
    assert see(copies(20, failed=1), minutes=1).bake is Bake.GOES_ON
    broken = "version 2 failed 10.00% of 20 requests, allowed are 0.10%"
    assert see(copies(20, failed=2), minutes=1) == BakeVerdict(Bake.FAILED, broken)
    assert see(copies(100, failed=1)).bake is Bake.FAILED


def test_bounds_on_differences_hold_once_there_are_enough_requests() -> None:
    assert see(copies(99, difference=0.3, changed=99), minutes=1).bake is Bake.GOES_ON
    assert see(copies(100, difference=0.3), minutes=1) == BakeVerdict(
        Bake.FAILED, "predictions of version 2 may differ from the champion's by 0.1 on average, they differ by 0.3"
    )
    assert see(copies(100, changed=11)) == BakeVerdict(
        Bake.FAILED, "version 2 needs to decide as the champion in 90.00% of the rows, it does in 89.00%"
    )
    assert see(copies(100, changed=10)).bake is Bake.PASSED
    assert see(copies(100, difference=0.3, changed=99), shadow=Shadow(requests=100)).bake is Bake.PASSED


def test_a_bound_that_cannot_be_looked_at_does_not_pass() -> None:
    verdict = see(ShadowCounters(requests=100))
    assert (verdict.bake, verdict.message.endswith("nothing could be compared")) == (Bake.FAILED, True)
