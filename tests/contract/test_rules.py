"""Rules are checked when they are applied; only ``true`` passes when they are judged."""

from __future__ import annotations

import pytest

from relevo.contract.rules import evaluate_rule, judge_rule, rule_problems, rule_variables

METRICS = ("roc_auc", "log_loss")
EVIDENCE = rule_variables(
    {"roc_auc": 0.7, "log_loss": 0.4},
    champion={},
    baseline={"roc_auc": 0.5, "log_loss": 0.5},
    slices={"origin=JFK": {"roc_auc": 0.6, "log_loss": 0.4, "rows": 20}, "origin=EWR": {"roc_auc": 0.58, "rows": 9}},
    rows=1000,
)


@pytest.mark.parametrize(
    "rule",
    [
        "slices.all(s, s.roc_auc > 0.55)",
        "metrics.log_loss < baseline.log_loss",
        "size(champion) == 0 || metrics.log_loss < champion.log_loss - 0.001",
        "!has(champion.log_loss)",
        "rows >= 100 && rows > 1.5",
        "slices.exists(s, s.name == 'origin=JFK' && s.rows > 10)",
        'metrics["roc_auc"] > .5 // a remark',
        "[metrics, baseline].all(m, m.roc_auc >= 0.5)",
        "slices.filter(s, s.roc_auc < 0.5).size() == 0",
        "double(rows) > 1e2 ? true : false",
        "slices.exists(s, s.name.startsWith('origin'))",
        "slices.map(s, s.roc_auc).all(v, v > 0.5)",
    ],
)
def test_a_good_rule_is_accepted_and_holds(rule: str) -> None:
    assert rule_problems(rule, METRICS) == []
    assert evaluate_rule(rule, EVIDENCE)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            "metrics.roc_acu > 0.5",
            "unknown metric; expected one of roc_auc, log_loss, got 'roc_acu'; did you mean 'roc_",
        ),
        ("slices.all(s, s.roc_acu > 0.5)", "unknown metric or field; expected one of roc_auc, log_loss, name, rows"),
        ("metrics['roc_acu'] > 0.5", "unknown metric; expected one of roc_auc, log_loss, got 'roc_acu'"),
        (
            "champoin.roc_auc > 0.5",
            "unknown name; expected one of metrics, champion, baseline, slices, rows, got 'cham",
        ),
        ("false && ghost", "unknown name; expected one of metrics, champion, baseline, slices, rows, got 'ghost'"),
        ("slices.all(s, s.roc_auc > 0.5) && s.roc_auc > 0.5", "unknown name; expected one of"),
        ("median(rows) > 3", "unknown function; expected one of size, has"),
        ("slices.every(s, s.roc_auc > 0.5)", "unknown function"),
        ("slices.roc_auc > 0.5", "slices has no field 'roc_auc'; slices is a list: use slices.all(s, ...)"),
        ("metrics.roc_auc > 'high'", "expected a rule that can be judged, got"),
        ("rows", "expected a rule that gives true or false, got the int 9"),
        ("metrics.roc_auc >", "expected a CEL expression, got 'metrics.roc_auc >'"),
        ("metrics.roc_auc > 0.5 and rows > 3", "expected a CEL expression"),
        ("(" * 900 + "true" + ")" * 900, "expected a CEL expression"),
    ],
)
def test_a_bad_rule_is_refused_before_there_is_evidence(rule: str, expected: str) -> None:
    problems = rule_problems(rule, METRICS)
    assert any(problem.startswith(expected) for problem in problems), problems


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("metrics.roc_auc > 0.9", "rule 'metrics.roc_auc > 0.9' needs true, got false"),
        ("1", "rule '1' needs true, got the int 1"),
        ("'true'", "needs true, got the str 'true'"),
        ("champion.log_loss > 0.1", "needs 'log_loss', which the evidence does not hold"),
        ("1/0 > 1", "cannot be judged: division by zero"),
        ("slices[7].roc_auc > 0.1", "cannot be judged: index out of bounds"),
        ("ghost", "cannot be judged"),
        ("((", "cannot be judged"),
    ],
)
def test_only_true_passes(rule: str, message: str) -> None:
    verdict = judge_rule(rule, EVIDENCE)
    assert not verdict.passed
    assert message in verdict.message


def test_a_metric_that_is_not_defined_does_not_pass() -> None:
    for missing in (None, float("nan")):
        assert not evaluate_rule("metrics.roc_auc > 0.1", {**EVIDENCE, "metrics": {"roc_auc": missing}})
