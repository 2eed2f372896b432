"""The retraining rule on known windows: k of n, significance, and every guard."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from final_windows import final_window
from release_world import BEGIN, CONTRACT

from relevo.contract.model import Condition, Guards, Retrain
from relevo.monitoring.model import Estimate, Window
from relevo.retraining.policy import Champion, Verdict, judge_rule

DAY = timedelta(days=1)
CHAMPION = Champion(3, BEGIN, {"roc_auc": 0.80})
DROP = Condition("performance_drop", 0.02)


def window(number: int, value: float | None = 0.80, *, half: float = 0.01, **changes: Any) -> Window:
    """Week ``number`` (from 1): the champion's AUC with its interval, on 1,000 labelled rows."""
    ci = (None, None) if value is None else (value - half, value + half)
    estimate = Estimate(value, *ci, changes.pop("n", 1000))
    found = final_window("delay", number, estimate, version=changes.pop("version", 3))
    return replace(found, **changes)


def judge(windows: list[Window], *conditions: Condition, k_of_n: tuple[int, int] = (1, 1), **how: Any) -> Verdict:
    guards = how.pop("guards", Guards())
    arguments = {
        "champion": CHAMPION,
        "trainings": [BEGIN],
        "now": windows[-1].end + timedelta(hours=30),
        "is_release_open": False,
    }
    rule = Retrain(conditions or (DROP,), k_of_n, guards)
    return judge_rule(CONTRACT, rule, windows=windows, **{**arguments, **how})


def test_a_significant_drop_of_the_declared_size_fires() -> None:
    assert judge([window(1, 0.77)]) == Verdict(
        True, "roc_auc of version 3 was 0.770 in the window to 2013-04-08, 0.800 on its holdout"
    )
    assert not judge([window(1, 0.785)]).fires  # too small
    assert not judge([window(1, 0.77, half=0.05)]).fires  # not significant
    assert not judge([window(1, 0.83)]).fires  # better
    assert not judge([window(1, None)]).fires  # not measured
    assert not judge([window(1, 0.5, n=100)]).fires  # too few rows
    assert not judge([window(1, 0.5, label_coverage=0.5)], guards=Guards(freeze_without_labels=False)).fires


def test_where_less_is_better_a_rise_fires() -> None:
    loss = replace(CONTRACT, gates=CONTRACT.gates[1:])
    champion = replace(CHAMPION, metrics={"log_loss": 0.40})
    for value, fires in {0.43: True, 0.37: False}.items():
        estimate = Estimate(value, value - 0.01, value + 0.01, 1000)
        one = replace(window(1), by_version={3: {"log_loss": estimate}})
        verdict = judge_rule(
            loss,
            Retrain((DROP,)),
            windows=[one],
            champion=champion,
            trainings=[],
            now=one.end,
            is_release_open=False,
        )
        assert verdict.fires is fires


@pytest.mark.parametrize(
    ("values", "fires"),
    [([0.7, 0.8, 0.7], True), ([0.7, 0.7, 0.8], True), ([0.8, 0.8, 0.7], False), ([0.7, 0.7, 0.8, 0.8], False)],
)
def test_the_rule_holds_on_k_of_the_last_n_windows(values: list[float], fires: bool) -> None:
    verdict = judge([window(n, value) for n, value in enumerate(values, 1)], k_of_n=(2, 3))
    assert verdict.fires is fires
    if not fires:
        assert verdict.reason == "the rule held in 1 of the last 3 windows, it needs 2"


def test_fewer_windows_than_n_still_need_k() -> None:
    assert judge([window(1, 0.7)], k_of_n=(2, 3)).reason == "the rule held in 1 of the last 1 windows, it needs 2"
    assert judge([window(1, 0.7), window(2, 0.7)], k_of_n=(2, 3)).fires


def test_the_words_are_of_the_window_in_which_it_held() -> None:
    verdict = judge([window(1, 0.70), window(2, 0.71), window(3, None)], k_of_n=(2, 3))
    assert verdict == Verdict(True, "roc_auc of version 3 was 0.710 in the window to 2013-04-15, 0.800 on its holdout")


def test_what_another_version_did_is_no_reason() -> None:
    drift = Condition("drift", 0.3)
    assert not judge([window(1, 0.5, version=2)]).fires
    assert not judge([window(1, version=2, drift_share=0.9)], drift).fires
    assert judge([window(1, drift_share=0.4)], drift).reason == "40% of the inputs drifted in the window to 2013-04-08"
    assert not judge([window(1, drift_share=0.29)], drift).fires


def test_age_fires_by_itself() -> None:
    age = Condition("age", 28 * DAY)
    assert not judge([window(3)], age).fires
    assert judge([window(4)], age) == Verdict(True, "version 3 was 28 days old")
    assert judge([window(1, 0.7)], age, DROP).fires  # any of them


def test_a_champion_without_metrics_gives_no_verdict_on_performance() -> None:
    assert not judge([window(1, 0.5)], champion=replace(CHAMPION, metrics={})).fires


def held_back(reason: str, **how: Any) -> None:
    verdict = judge([window(4, 0.7)], **how)
    assert not verdict.fires
    assert verdict.reason.startswith("roc_auc of version 3 was 0.700")
    assert verdict.reason.endswith(f"; held back: {reason}")


def test_guards_hold_it_back_and_say_so() -> None:
    now = window(4).end + timedelta(hours=30)
    held_back("a release is under way", is_release_open=True)
    held_back(
        "the last training was 13 days ago, the cool-down is 14d",
        guards=Guards(cool_down=14 * DAY),
        trainings=[BEGIN, now - 14 * DAY + timedelta(seconds=1)],
    )
    assert judge([window(4, 0.7)], guards=Guards(cool_down=14 * DAY), trainings=[now - 14 * DAY]).fires
    budget = Guards(at_most=(2, 365 * DAY))
    held_back("2 trainings in 365d are used up", guards=budget, trainings=[now - 364 * DAY, now - DAY])
    assert judge([window(4, 0.7)], guards=budget, trainings=[now - 365 * DAY, now - DAY]).fires
    assert judge([window(4, 0.7)], guards=budget, trainings=[]).fires


def test_without_labels_it_freezes() -> None:
    age = Condition("age", DAY)
    blind = window(4, label_coverage=0.79)
    assert judge([blind], age).reason.endswith("held back: only 79% of the predictions have labels")
    assert judge([blind], age, guards=Guards(freeze_without_labels=False)).fires
    assert judge([window(4, label_coverage=0.8)], age).fires
