"""The blocks of a contract that say how a model is released and kept healthy: gates, release, monitor, retrain."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Literal

from relevo.contract.durations import parse_duration
from relevo.contract.model import (
    Ask,
    Canary,
    Condition,
    Gate,
    Guards,
    LoadTest,
    Monitor,
    Release,
    Retrain,
    ServiceLevel,
    Shadow,
    Task,
)
from relevo.contract.reading import Block, one_of
from relevo.contract.rules import rule_problems

BOUNDS = ("at_least", "at_most", "better_than_champion_by")
_K_OF_N = re.compile(r"(\d{1,4})\s+of\s+(\d{1,4})")
_N_PER = re.compile(r"(\d{1,6})\s+per\s+(\S+)")
_LONGEST_RULE = 2_000
#: Most requests at once, and most rows a request, of a load test.
MAX_CALLERS, MAX_ROWS = 64, 1_000


def read_gate(block: Block, task: Task) -> Gate:
    """One item of ``gates``."""
    from relevo.statistics.metrics import METRICS  # NumPy: only when a contract is read

    metrics = METRICS[task.value]
    gate = Gate(
        metric=block.optional_text("metric", what=f"one of {', '.join(metrics)}"),
        at_least=block.optional_number("at_least"),
        at_most=block.optional_number("at_most"),
        better_than_champion_by=block.optional_number("better_than_champion_by"),
        rule=block.optional_text("rule", what="a CEL rule such as 'slices.all(s, s.roc_auc > 0.55)'"),
    )
    block.close()
    bounds = [bound for bound in BOUNDS if bound in block]
    if ("metric" in block) == ("rule" in block):
        got = "both" if "rule" in block else "neither"
        block.problems.add(block.path, f"expected a metric with a bound, or a rule, got {got}")
    elif gate.rule is not None and bounds:
        block.problems.add(block.path, f"a rule takes no bound, got {' and '.join(bounds)}")
    elif "metric" in block and len(bounds) != 1:
        got = " and ".join(bounds) or "none"
        block.problems.add(block.path, f"expected exactly one of {', '.join(BOUNDS)}, got {got}")
    if gate.metric and gate.metric not in metrics:
        block.wrong("metric", one_of(gate.metric, tuple(metrics)))
    if gate.rule and len(gate.rule) > _LONGEST_RULE:
        block.wrong("rule", f"expected at most {_LONGEST_RULE} characters, got {len(gate.rule)}")
    elif gate.rule:
        for problem in rule_problems(gate.rule, tuple(metrics)):
            block.wrong("rule", problem)
    return gate


def read_release(root: Block, task: Task) -> Release:
    """The block ``release``, or its defaults."""
    block = root.optional_block("release")
    if block is None:
        return Release()
    release = Release(
        approvals=block.whole("approvals", Release().approvals, at_least=0),
        shadow=_shadow(block.optional_block("shadow"), task),
        canary=_canary(block.optional_block("canary")),
        slo=_service_level(block.optional_block("slo")),
        load_test=_load_test(block.optional_block("load_test")),
    )
    block.close()
    return release


def _shadow(block: Block | None, task: Task) -> Shadow | None:
    if block is None:
        return None
    shadow = Shadow(
        minutes=block.whole("minutes", Shadow().minutes, at_least=0),
        requests=block.whole("requests", Shadow().requests, at_least=1),
        share=block.bounded("share", Shadow().share, lambda value: 0 < value <= 1, "a share above 0, up to 1"),
        max_difference=_bound(block, "max_difference", lambda value: value >= 0, "a number, 0 or more"),
        min_agreement=_bound(block, "min_agreement", lambda value: 0 <= value <= 1, "a share from 0 to 1"),
    )
    if task is Task.REGRESSION and "min_agreement" in block:
        block.wrong("min_agreement", "a regression decides nothing; expected max_difference")
    block.close()
    return shadow


def _bound(block: Block, key: str, is_valid: Callable[[float], bool], what: str) -> float | None:
    if key not in block:
        block.keys_known(key)
        return None
    return block.bounded(key, 0.0, is_valid, what)


def _canary(block: Block | None) -> Canary:
    if block is None:
        return Canary()
    steps = block.wholes("steps", "a list of rising percents from 1 to 99 such as [5, 25, 50]", Canary().steps)
    if list(steps) != sorted(set(steps)) or not all(1 <= step <= 99 for step in steps):
        block.wrong("steps", f"expected rising percents from 1 to 99, got {list(steps)}")
    canary = Canary(
        steps=steps,
        minutes=block.whole("minutes", Canary().minutes, at_least=0),
        requests=block.whole("requests", Canary().requests, at_least=1),
        sticky=block.optional_text("sticky", what="the name of a column of the request"),
    )
    block.close()
    return canary


def _service_level(block: Block | None) -> ServiceLevel:
    if block is None:
        return ServiceLevel()
    default = ServiceLevel()
    level = ServiceLevel(
        p99_ms=block.bounded("p99_ms", default.p99_ms, lambda value: value > 0, "milliseconds above zero"),
        error_rate=block.bounded(
            "error_rate", default.error_rate, lambda value: 0 <= value <= 1, "a share from 0 to 1"
        ),
    )
    block.close()
    return level


def _load_test(block: Block | None) -> LoadTest:
    if block is None:
        return LoadTest()
    test = LoadTest(
        requests=block.whole("requests", LoadTest().requests, at_least=0),
        concurrency=block.whole("concurrency", LoadTest().concurrency, at_least=1),
        rows=block.whole("rows", LoadTest().rows, at_least=1),
    )
    if test.concurrency > MAX_CALLERS:
        block.wrong("concurrency", f"expected at most {MAX_CALLERS} requests at once, got {test.concurrency}")
    if test.rows > MAX_ROWS:
        block.wrong("rows", f"expected at most {MAX_ROWS} rows a request, got {test.rows}")
    block.close()
    return test


def read_monitor(root: Block, ask: Ask) -> Monitor:
    """The block ``monitor``, or its defaults."""
    block = root.optional_block("monitor")
    if block is None:
        return Monitor()
    monitor = Monitor(
        window=block.duration("window", Monitor().window, positive=True),
        slices=block.texts("slices", "[origin, carrier]", required=False),
    )
    block.close()
    for index, name in enumerate(monitor.slices):
        if ask.inputs and name not in ask.inputs:
            block.wrong(f"slices[{index}]", f"slices are inputs; {one_of(name, ask.inputs)}")
    return monitor


def read_retrain(root: Block) -> Retrain | None:
    """The block ``retrain``; None when the contract has none, and nothing retrains by itself."""
    block = root.optional_block("retrain")
    if block is None:
        return None
    when = block.block("when")
    items = when.blocks("any_of")
    conditions = tuple(condition for item in items if (condition := _condition(item)))
    if not when.is_missing and not items:
        when.problems.add(when.path, "expected any_of with at least one condition, such as [{age: 28d}]")
    windows = _windows(when)
    when.close()
    guards = _guards(block.optional_block("guards"))
    block.close()
    return Retrain(any_of=conditions, windows=windows, guards=guards)


def _condition(block: Block) -> Condition | None:
    kinds: tuple[Literal["performance_drop", "age", "drift"], ...] = ("performance_drop", "age", "drift")
    given = [kind for kind in kinds if kind in block]
    conditions: list[Condition] = []
    for kind in kinds:
        if kind not in block:
            block.keys_known(kind)
        elif kind == "age":
            conditions.append(Condition(kind, block.duration(kind, positive=True)))
        else:
            conditions.append(Condition(kind, block.bounded(kind, 0.0, lambda value: value > 0, "a number above zero")))
    unknown = block.close()
    if len(given) != 1 and not unknown:
        got = " and ".join(given) or "none"
        block.problems.add(block.path, f"expected exactly one of {', '.join(kinds)}, got {got}")
    return conditions[0] if conditions else None


def _windows(block: Block) -> tuple[int, int]:
    what = "text such as '2 of 3'"
    value = block.optional_text("windows", what=what)
    if not value:
        return (1, 1)
    match = _K_OF_N.fullmatch(value)
    needed, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= needed <= last:
        block.wrong("windows", f"expected {what}, the first number at least 1 and not above the second, got {value!r}")
    return (needed, last)


def _guards(block: Block | None) -> Guards:
    if block is None:
        return Guards()
    guards = Guards(
        cool_down=block.duration("cool_down", timedelta(0)),
        at_most=_at_most(block),
        freeze_without_labels=block.boolean("freeze_without_labels", True),
    )
    block.close()
    return guards


def _at_most(block: Block) -> tuple[int, timedelta] | None:
    what = "text such as '14 per 365d'"
    value = block.optional_text("at_most", what=what)
    if not value:
        return None
    match = _N_PER.fullmatch(value)
    period = parse_duration(match[2]) if match else None
    if match is None or not period:
        block.wrong("at_most", f"expected {what}, got {value!r}")
        return None
    return int(match[1]), period
