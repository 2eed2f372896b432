"""Pure decisions of a release: gates on evidence, who may approve, and whether a canary keeps its service level."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from relevo.contract.model import Canary, Gate, ServiceLevel, Task
from relevo.contract.rules import judge_rule, rule_variables
from relevo.errors import NotAllowed
from relevo.identity.model import Principal
from relevo.releases.model import Approval, Evaluation, GateResult
from relevo.serving.model import Counters
from relevo.serving.policy import error_rate, p99_ms
from relevo.statistics.metrics import METRICS


def judge_gates(gates: Sequence[Gate], task: Task, evaluation: Evaluation) -> tuple[GateResult, ...]:
    """One verdict a gate, in the contract's order. Without a champion a comparison with it passes, and says so."""
    return tuple(_judge_gate(gate, task, evaluation) for gate in gates)


def _judge_gate(gate: Gate, task: Task, evaluation: Evaluation) -> GateResult:
    if gate.rule is not None:
        variables = rule_variables(
            evaluation.metrics,
            champion=evaluation.champion_metrics,
            baseline=evaluation.baseline_metrics,
            slices=evaluation.slices,
            rows=evaluation.rows,
        )
        verdict = judge_rule(gate.rule, variables)
        return GateResult("rule", verdict.passed, verdict.message)
    assert gate.metric is not None
    got = evaluation.metrics.get(gate.metric, math.nan)
    if gate.better_than_champion_by is not None:
        return _judge_against_champion(gate.metric, gate.better_than_champion_by, task, evaluation)
    if gate.at_least is not None:
        return _bound(gate.metric, got, ">=", gate.at_least, got >= gate.at_least)
    assert gate.at_most is not None
    return _bound(gate.metric, got, "<=", gate.at_most, got <= gate.at_most)


def _judge_against_champion(metric: str, margin: float, task: Task, evaluation: Evaluation) -> GateResult:
    if evaluation.champion is None:
        return GateResult(metric, True, f"{metric}: there is no champion to compare with yet")
    greater_is_better = METRICS[task][metric].greater_is_better
    got = evaluation.metrics.get(metric, math.nan)
    champion = evaluation.champion_metrics.get(metric, math.nan)
    needed = champion + margin if greater_is_better else champion - margin
    passed = got >= needed if greater_is_better else got <= needed
    result = _bound(metric, got, ">=" if greater_is_better else "<=", needed, passed)
    return GateResult(metric, passed, f"{result.message} (champion version {evaluation.champion}: {champion:.4f})")


def _bound(metric: str, got: float, sign: str, bound: float, passed: bool) -> GateResult:
    return GateResult(metric, passed, f"{metric} needs {sign} {bound:.4f}, got {got:.4f}")


def check_approver(principal: Principal, requested_by: str) -> None:
    """Two pairs of eyes: whoever asked for a release does not approve it.

    Raises:
        NotAllowed: The principal asked for this release.
    """
    if principal.name == requested_by:
        raise NotAllowed(
            f"{principal.name} asked for this release, so a second person must decide on it.",
            hint="Ask a principal with the role reviewer or admin.",
        )


@dataclass(frozen=True, slots=True)
class ApprovalCount:
    """How the vote on a release stands."""

    given: int
    needed: int
    refused_by: str | None

    @property
    def is_decided(self) -> bool:
        """Whether nobody needs to be waited for."""
        return self.refused_by is not None or self.given >= self.needed


def count_approvals(approvals: Sequence[Approval], evidence: str, needed: int) -> ApprovalCount:
    """Count the words that were given on exactly this evidence. One refusal decides."""
    on_this = [approval for approval in approvals if approval.evidence == evidence]
    refused = next((approval.principal for approval in on_this if not approval.approved), None)
    return ApprovalCount(sum(approval.approved for approval in on_this), needed, refused)


class Bake(StrEnum):
    """What a look at a canary step says."""

    GOES_ON = "goes_on"
    PASSED = "passed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class BakeVerdict:
    """The state of a canary step, and in words what it still waits for or what broke."""

    bake: Bake
    message: str


# With fewer requests one slow or failed one decides; the judge would roll back on noise.
FEWEST_REQUESTS_TO_JUDGE = 20


def judge_bake(
    canary: Canary,
    slo: ServiceLevel,
    *,
    challenger: int,
    counters: Mapping[int, Counters],
    champion: int,
    began_at: datetime,
    now: datetime,
) -> BakeVerdict:
    """Look at a canary step: ``counters`` since it began, ``began_at`` and ``now`` in event time.

    A step passes when its minutes of event time *and* its requests on both arms are reached, so no traffic never
    passes. It fails as soon as the challenger breaks the contract's service level.
    """
    seen = counters.get(challenger, Counters())
    broken = _broken_level(seen, slo, challenger)
    if broken is not None:
        return BakeVerdict(Bake.FAILED, broken)
    missing = []
    remaining = began_at + timedelta(minutes=canary.minutes) - now
    if remaining > timedelta(0):
        missing.append(f"{math.ceil(remaining.total_seconds() / 60)} minutes of event time")
    for version in (challenger, champion):
        requests = counters.get(version, Counters()).requests
        if requests < canary.requests:
            missing.append(f"{canary.requests - requests} requests on version {version}")
    if missing:
        return BakeVerdict(Bake.GOES_ON, " and ".join(missing))
    return BakeVerdict(Bake.PASSED, f"{seen.requests} requests on version {challenger} kept the service level")


def _broken_level(seen: Counters, slo: ServiceLevel, version: int) -> str | None:
    if seen.requests < FEWEST_REQUESTS_TO_JUDGE:
        return None
    errors, latency = error_rate(seen) or 0.0, p99_ms(seen) or 0.0
    if errors > slo.error_rate:
        return f"version {version} failed {errors:.2%} of {seen.requests} requests, allowed are {slo.error_rate:.2%}"
    if latency > slo.p99_ms:
        return f"version {version} answers with a p99 of {latency:.0f} ms, allowed are {slo.p99_ms:g} ms"
    return None
