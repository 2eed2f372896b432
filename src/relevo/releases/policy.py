"""Pure decisions of a release: gates on evidence, who may approve, and whether a canary keeps its service level."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from scipy import special

from relevo.contract.model import Canary, Gate, ServiceLevel, Shadow, Task
from relevo.contract.rules import judge_rule, rule_variables
from relevo.errors import NotAllowed
from relevo.identity.model import RELEVO, Principal
from relevo.platform.encoding import digest
from relevo.registry.model import Stage
from relevo.releases.model import Approval, Evaluation, Evidence, GateResult, LoadFigures, ReleaseState, ShadowFigures
from relevo.serving.model import Counters, ShadowCounters
from relevo.serving.policy import Asked, error_rate, p99_ms, slower_than
from relevo.statistics.metrics import METRICS


def defined_only(evaluation: Evaluation) -> Evaluation:
    """The evaluation without metrics that are not finite: a database's JSON holds no NaN, and none passes a gate."""

    def finite(metrics: Mapping[str, float]) -> dict[str, float]:
        return {name: value for name, value in metrics.items() if math.isfinite(value)}

    return dataclasses.replace(
        evaluation,
        metrics=finite(evaluation.metrics),
        champion_metrics=finite(evaluation.champion_metrics),
        baseline_metrics=finite(evaluation.baseline_metrics),
        slices={name: finite(metrics) for name, metrics in evaluation.slices.items()},
    )


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
    champion = evaluation.champion_metrics.get(metric)
    if champion is None:
        why = evaluation.champion_note or "it has no value there"
        return GateResult(metric, False, f"{metric} of champion version {evaluation.champion} is not known: {why}")
    needed = champion + margin if greater_is_better else champion - margin
    passed = got >= needed if greater_is_better else got <= needed
    result = _bound(metric, got, ">=" if greater_is_better else "<=", needed, passed)
    return GateResult(metric, passed, f"{result.message} (champion version {evaluation.champion}: {champion:.4f})")


def _bound(metric: str, got: float, sign: str, bound: float, passed: bool) -> GateResult:
    value = "no value" if math.isnan(got) else f"{got:.4f}"
    return GateResult(metric, passed, f"{metric} needs {sign} {bound:.4f}, got {value}")


def evidence_of(
    model: str, version: int, evaluation: Evaluation, gates: tuple[GateResult, ...], facts: dict[str, object]
) -> Evidence:
    """Evidence under the digest of what it says."""
    body = {"version": version, "model": model, "evaluation": evaluation, "gates": gates, "facts": facts}
    return Evidence(digest(body), model, version, evaluation, gates, facts)


def judge_load(slo: ServiceLevel, found: LoadFigures) -> tuple[GateResult, ...]:
    """Whether a load test kept the contract's service level: one verdict on the latency, one on the errors."""
    how = f"{found.requests} requests, {found.concurrency} at once"
    latency = f"p99 needs <= {slo.p99_ms:g} ms, got {found.p99_ms:.1f} ms ({how})"
    share = found.failed / found.requests if found.requests else 1.0
    errors = f"error rate needs <= {slo.error_rate:.2%}, got {share:.2%} ({found.failed} of {how})"
    if found.failure is not None:
        errors += f"; the first: {found.failure}"
    return (
        GateResult("load test: p99", found.p99_ms <= slo.p99_ms, latency),
        GateResult("load test: error rate", share <= slo.error_rate, errors),
    )


def check_approver(principal: Principal, *, requested_by: str, applied_by: str) -> None:
    """Two pairs of eyes: whoever asked for a release does not decide on it.

    A release that a rule asked for counts as asked for by whoever applied the contract with that rule.

    Raises:
        NotAllowed: The principal is the first person.
    """
    first = applied_by if requested_by == RELEVO.name else requested_by
    if principal.name == first:
        what = "applied the contract that asked" if requested_by == RELEVO.name else "asked"
        raise NotAllowed(
            f"{principal.name} {what} for this release, so a second person must decide on it.",
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


def stage_after(outcome: ReleaseState, stage: Stage) -> Stage:
    """Where a version stands once its release has ended without going live.

    Refused by people or by live traffic, it is rejected. Whatever else ended the release was not its fault.
    """
    if stage is not Stage.STAGING:
        return stage
    is_refused = outcome in {ReleaseState.REJECTED, ReleaseState.ROLLED_BACK}
    return Stage.REJECTED if is_refused else Stage.CANDIDATE


def previous_champion(champions: Sequence[int]) -> int | None:
    """The version to go back to, from every version that had all the traffic, in order; None when there is none.

    Going back to a version forgets what came after it, so that a second roll-back does not bring back what the first
    one took out.

    >>> previous_champion([3, 4, 5]), previous_champion([3, 4, 5, 4]), previous_champion([3])
    (4, 3, None)
    """
    line: list[int] = []
    for version in champions:
        if version in line:
            del line[line.index(version) :]
        line.append(version)
    return line[-2] if len(line) > 1 else None


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


#: A breach ends a step early when it would come by chance once in so many looks, or less: there are many looks.
BY_CHANCE = 0.001


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
    passes, and the challenger has kept the contract's service level. It fails earlier, within seconds, when the level
    is broken beyond chance: one slow first request among twenty does not decide.
    """
    seen = counters.get(challenger, Counters())
    missing = []
    remaining = began_at + timedelta(minutes=canary.minutes) - now
    if remaining > timedelta(0):
        missing.append(f"{math.ceil(remaining.total_seconds() / 60)} minutes of event time")
    for version in (challenger, champion):
        requests = counters.get(version, Counters()).requests
        if requests < canary.requests:
            missing.append(f"{canary.requests - requests} requests on version {version}")
    broken = _broken_level(seen, slo, challenger, is_early=seen.requests < canary.requests)
    if broken is not None:
        return BakeVerdict(Bake.FAILED, broken)
    if missing:
        return BakeVerdict(Bake.GOES_ON, " and ".join(missing))
    return BakeVerdict(Bake.PASSED, f"{seen.requests} requests on version {challenger} kept the service level")


def judge_shadow(
    shadow: Shadow, slo: ServiceLevel, *, version: int, seen: ShadowCounters, began_at: datetime, now: datetime
) -> BakeVerdict:
    """Look at a shadow: ``seen`` since it began, ``began_at`` and ``now`` in event time.

    It passes when its minutes of event time *and* its requests are reached, and nothing is broken. Errors beyond chance
    end it early; the bounds on the differences hold as soon as its requests are reached. Its latency is not judged: it
    waits for its turn.
    """
    is_early = seen.requests < shadow.requests
    broken = _broken_error_rate(seen, slo, version, is_early=is_early)
    if broken is None and not is_early:
        broken = _broken_difference(shadow, version, seen)
    if broken is not None:
        return BakeVerdict(Bake.FAILED, broken)
    missing = []
    remaining = began_at + timedelta(minutes=shadow.minutes) - now
    if remaining > timedelta(0):
        missing.append(f"{math.ceil(remaining.total_seconds() / 60)} minutes of event time")
    if is_early:
        missing.append(f"{shadow.requests - seen.requests} copies of requests for version {version}")
    if missing:
        return BakeVerdict(Bake.GOES_ON, " and ".join(missing))
    return BakeVerdict(Bake.PASSED, f"version {version} answered {seen.requests} copies{_compared(seen)}")


def _broken_difference(shadow: Shadow, version: int, seen: ShadowCounters) -> str | None:
    difference, agreement = seen.difference, seen.agreement
    if shadow.max_difference is not None and (difference is None or difference > shadow.max_difference):
        got = "nothing could be compared" if difference is None else f"they differ by {difference:.4g}"
        return (
            f"predictions of version {version} may differ from the champion's by {shadow.max_difference:g} on average, "
            f"{got}"
        )
    if shadow.min_agreement is not None and (agreement is None or agreement < shadow.min_agreement):
        got = "nothing could be compared" if agreement is None else f"it does in {agreement:.2%}"
        return f"version {version} needs to decide as the champion in {shadow.min_agreement:.2%} of the rows, {got}"
    return None


def _compared(seen: ShadowCounters) -> str:
    if seen.difference is None:
        return ", which could not be compared with the champion's answers"
    decided = "" if seen.agreement is None else f" and decide alike in {seen.agreement:.2%} of the rows"
    return f"; predictions differ from the champion's by {seen.difference:.4g} on average{decided}"


def shadow_figures(seen: ShadowCounters) -> ShadowFigures:
    """The counters of a shadow as people read them."""
    p99 = p99_ms(seen)
    return ShadowFigures(
        requests=seen.requests,
        failed=seen.failed,
        dropped=seen.dropped,
        compared_rows=seen.compared_rows,
        difference=seen.difference,
        agreement=seen.agreement,
        p99_ms=p99 if p99 is not None and math.isfinite(p99) else None,
    )


def _broken_level(seen: Counters, slo: ServiceLevel, version: int, *, is_early: bool) -> str | None:
    latency = p99_ms(seen) or 0.0
    errors = _broken_error_rate(seen, slo, version, is_early=is_early)
    if errors is not None:
        return errors
    if latency > slo.p99_ms and (not is_early or _is_beyond_chance(slower_than(seen, slo.p99_ms), seen.requests, 0.01)):
        return f"version {version} answers with a p99 of {latency:.0f} ms, allowed are {slo.p99_ms:g} ms"
    return None


def _broken_error_rate(seen: Asked, slo: ServiceLevel, version: int, *, is_early: bool) -> str | None:
    errors = error_rate(seen) or 0.0
    if errors > slo.error_rate and (not is_early or _is_beyond_chance(seen.failed, seen.requests, slo.error_rate)):
        return f"version {version} failed {errors:.2%} of {seen.requests} requests, allowed are {slo.error_rate:.2%}"
    return None


def _is_beyond_chance(count: int, requests: int, rate: float) -> bool:
    """Whether so many of the requests are too many for the rate: the upper tail of the binomial distribution.

    >>> _is_beyond_chance(1, 20, 0.001), _is_beyond_chance(2, 20, 0.001)  # 0.0198 and 0.00019
    (False, True)
    """
    return count > 0 and float(special.bdtrc(count - 1, requests, rate)) < BY_CHANCE
