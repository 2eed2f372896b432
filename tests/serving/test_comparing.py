"""How the answers of two versions are compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relevo.contract.model import Task
from relevo.runtimes.model import Column, ColumnType, Signature
from relevo.serving.comparing import ShadowTallies, ShadowTally, are_comparable, decision, difference

REGRESSION = Signature(Task.REGRESSION, (Column("a", ColumnType.FLOAT),))
TWO = replace(REGRESSION, task=Task.CLASSIFICATION, classes=("0", "1"))
THREE = replace(TWO, classes=("a", "b", "c"))


def test_numbers_differ_and_decide_nothing() -> None:
    tally = ShadowTally()
    tally.asked(1.0)
    tally.compared([1.0, -2.0], [3.0, -2.5], REGRESSION)
    counts = tally.frozen()
    assert (counts.compared_rows, counts.difference, counts.agreement) == (2, 1.25, None)


def test_probabilities_decide_from_a_half_on() -> None:
    tally = ShadowTally()
    tally.asked(1.0)
    tally.compared([0.4, 0.5, 0.9, 0.1], [0.5, 0.6, 0.8, 0.2], TWO)
    counts = tally.frozen()
    assert (counts.decided_rows, counts.changed_rows, counts.agreement) == (4, 1, 0.75)
    assert counts.difference == pytest.approx(0.1)


def test_of_several_classes_the_most_probable_is_decided_for() -> None:
    tally = ShadowTally()
    tally.asked(1.0)
    tally.compared([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]], [[0.3, 0.6, 0.1], [0.2, 0.5, 0.3]], THREE)
    counts = tally.frozen()
    assert (counts.agreement, decision([0.3, 0.6, 0.1])) == (0.5, 1)
    assert counts.difference == pytest.approx(difference([0.6, 0.3, 0.1], [0.3, 0.6, 0.1]) / 2)
    assert difference([0.6, 0.3, 0.1], [0.3, 0.6, 0.1]) == pytest.approx(0.2)


def test_other_classes_cannot_be_compared() -> None:
    assert are_comparable(THREE, replace(THREE, inputs=()))
    assert not are_comparable(THREE, replace(THREE, classes=("b", "a", "c")))
    assert not are_comparable(TWO, REGRESSION)


def test_counts_are_frozen_until_something_is_counted() -> None:
    tallies = ShadowTallies()
    tally = tallies.of("delay", 2)
    tally.asked(1.0, failed=True)
    before = tallies.versions()["delay"][2]
    assert tallies.versions()["delay"][2] is before
    tally.dropped += 1
    after = tallies.versions()["delay"][2]
    assert (before.dropped, after.dropped, after.requests, after.failed) == (0, 1, 1, 1)
