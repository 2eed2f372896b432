"""Pure decision: does the retraining rule fire on these windows, and if not, why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from relevo.contract.durations import format_duration
from relevo.contract.model import Condition, Contract, Retrain
from relevo.monitoring.model import Window
from relevo.monitoring.policy import performance_drop, primary_metric

FEWEST_LABELLED = 0.8  # share of a window's predictions; below it the window says nothing of performance


@dataclass(frozen=True, slots=True)
class Champion:
    """What the rule needs to know of the live version: its number, event time of training, holdout metrics."""

    version: int
    trained_as_of: datetime
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to train again, and why or why not."""

    fires: bool
    reason: str


def judge_rule(
    contract: Contract,
    rule: Retrain,
    *,
    windows: Sequence[Window],
    champion: Champion,
    trainings: Sequence[datetime],
    now: datetime,
    is_release_open: bool,
) -> Verdict:
    """Judge the rule after the last of ``windows`` became final.

    Args:
        contract: Says what performance is measured in, and which direction is worse.
        rule: The contract's rule and guards.
        windows: Final windows, the oldest first; the last one has just become final.
        champion: The live version.
        trainings: Event times of all trainings so far.
        now: Event time of the decision, which cool-down and budget are counted from; later than the window's end.
        is_release_open: Whether a release is under way.
    """
    needed, of = rule.windows
    recent = windows[-of:]
    hits = [
        (condition, window)
        for window in recent
        for condition in rule.any_of
        if _holds(condition, contract, window, champion)
    ]
    count = len({window.end for _, window in hits})
    if count < needed:
        return Verdict(False, f"the rule held in {count} of the last {len(recent)} windows, it needs {needed}")
    why = _in_words(*hits[-1], primary_metric(contract), champion)
    guard = _guard(rule, recent[-1], now, trainings, is_release_open)
    if guard is not None:
        return Verdict(False, f"{why}; held back: {guard}")
    return Verdict(True, why)


def _holds(condition: Condition, contract: Contract, window: Window, champion: Champion) -> bool:
    """Only what a window says of the live version counts: the one before it has been replaced already."""
    threshold = condition.threshold
    if isinstance(threshold, timedelta):
        return window.end - champion.trained_as_of >= threshold
    if condition.kind == "drift":
        return window.version == champion.version and window.drift_share >= threshold
    estimates = window.by_version.get(champion.version, {})
    drop, is_significant = performance_drop(contract, estimates, champion.metrics, window.label_coverage)
    return drop is not None and is_significant and drop >= threshold


def _in_words(condition: Condition, window: Window, metric: str, champion: Champion) -> str:
    if condition.kind == "age":
        return f"version {champion.version} was {(window.end - champion.trained_as_of).days} days old"
    until = f"in the window to {window.end:%Y-%m-%d}"
    if condition.kind == "drift":
        return f"{window.drift_share:.0%} of the inputs drifted {until}"
    value = window.by_version[champion.version][metric].value
    return (
        f"{metric} of version {champion.version} was {value:.3f} {until}, {champion.metrics[metric]:.3f} on its holdout"
    )


def _guard(
    rule: Retrain, window: Window, now: datetime, trainings: Sequence[datetime], is_release_open: bool
) -> str | None:
    guards = rule.guards
    if is_release_open:
        return "a release is under way"
    if guards.freeze_without_labels and window.label_coverage < FEWEST_LABELLED:
        return f"only {window.label_coverage:.0%} of the predictions have labels"
    last = max(trainings, default=None)
    if last is not None and now - last < guards.cool_down:
        return (
            f"the last training was {(now - last).days} days ago, the cool-down is {format_duration(guards.cool_down)}"
        )
    if guards.at_most is not None:
        number, period = guards.at_most
        if sum(now - trained < period for trained in trainings) >= number:
            return f"{number} trainings in {format_duration(period)} are used up"
    return None
