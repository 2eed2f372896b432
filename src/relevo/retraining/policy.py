"""Pure decision: does the retraining rule fire on these windows, and if not, why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from relevo.contract.durations import format_duration
from relevo.contract.model import Condition, Gate, Retrain, Task
from relevo.monitoring.model import Window
from relevo.statistics.metrics import METRICS

DEFAULT_METRIC = {Task.CLASSIFICATION: "log_loss", Task.REGRESSION: "rmse"}
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


def primary_metric(task: Task, gates: Sequence[Gate]) -> str:
    """The metric that performance is followed by: that of the first metric gate, else the task's default."""
    return next((gate.metric for gate in gates if gate.metric is not None), DEFAULT_METRIC[task])


def judge_rule(
    rule: Retrain,
    *,
    task: Task,
    metric: str,
    windows: Sequence[Window],
    champion: Champion,
    trainings: Sequence[datetime],
    is_release_open: bool,
) -> Verdict:
    """Judge the rule after the last of ``windows`` became final.

    Args:
        rule: The contract's rule and guards.
        task: Says, with ``metric``, which direction is worse.
        metric: What ``performance_drop`` is measured in.
        windows: Final windows, the oldest first; the last one has just become final.
        champion: The live version.
        trainings: Event times of all trainings so far.
        is_release_open: Whether a release is under way.
    """
    needed, of = rule.windows
    recent = windows[-of:]
    now = recent[-1].end
    hits = [[condition for condition in rule.any_of if _holds(condition, task, metric, w, champion)] for w in recent]
    count = sum(bool(found) for found in hits)
    if count < needed:
        return Verdict(False, f"the rule held in {count} of the last {len(recent)} windows, it needs {needed}")
    why = _in_words(next(found for found in reversed(hits) if found)[0], metric, recent[-1], champion)
    guard = _guard(rule, recent[-1], now, trainings, is_release_open)
    if guard is not None:
        return Verdict(False, f"{why}; held back: {guard}")
    return Verdict(True, why)


def _holds(condition: Condition, task: Task, metric: str, window: Window, champion: Champion) -> bool:
    threshold = condition.threshold
    if isinstance(threshold, timedelta):
        return window.end - champion.trained_as_of >= threshold
    if condition.kind == "drift":
        return window.drift_share >= threshold
    estimate = window.by_version.get(champion.version, {}).get(metric)
    reference = champion.metrics.get(metric)
    if estimate is None or estimate.value is None or estimate.low is None or estimate.high is None or reference is None:
        return False
    # The drop must be as large as declared, and the whole interval must lie on the worse side.
    if METRICS[task][metric].greater_is_better:
        return reference - estimate.value >= threshold and estimate.high < reference
    return estimate.value - reference >= threshold and estimate.low > reference


def _in_words(condition: Condition, metric: str, window: Window, champion: Champion) -> str:
    if condition.kind == "age":
        return f"version {champion.version} is {(window.end - champion.trained_as_of).days} days old"
    if condition.kind == "drift":
        return f"{window.drift_share:.0%} of the inputs drifted"
    estimate = window.by_version.get(champion.version, {}).get(metric)
    value = "unknown" if estimate is None or estimate.value is None else f"{estimate.value:.3f}"
    return f"{metric} of version {champion.version} is {value}, {champion.metrics[metric]:.3f} on its holdout"


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
