"""Labels: acknowledged after the commit, never overwritten silently; on SQLite and PostgreSQL."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from relevo.errors import Invalid
from relevo.platform.state import State
from relevo.predictions import store
from relevo.predictions.ids import Issuer
from relevo.predictions.labels import Label, LabelIntake, LabelResult

KNOWN_AT = datetime(2013, 8, 16, tzinfo=UTC)


@pytest.fixture
def intake(state: State, key: bytes) -> Iterator[LabelIntake]:
    intake = LabelIntake(state.url.render_as_string(hide_password=False), key)
    yield intake
    intake.close()


def _labels(ids: list[str], value: float | None = 1.0) -> list[Label]:
    return [Label(prediction_id, value, KNOWN_AT) for prediction_id in ids]


def test_labels_are_stored_when_they_are_acknowledged(intake: LabelIntake, state: State, issuer: Issuer) -> None:
    ids = issuer.issue(0, 1200)
    assert intake.record("e", 1, _labels(ids)) == LabelResult(1200, 0, [], [])
    with state.read() as tx:
        rows = store.after(tx, 0, 5000)
    assert [row.prediction_id for row in rows] == ids
    assert {(row.endpoint, row.revision, row.value, row.known_at) for row in rows} == {("e", 1, 1.0, KNOWN_AT)}


def test_the_same_label_again_is_a_duplicate(intake: LabelIntake, state: State, issuer: Issuer) -> None:
    ids = issuer.issue(0, 2)
    intake.record("e", 1, _labels(ids))
    assert intake.record("e", 1, _labels([ids[0], ids[1], ids[1]])) == LabelResult(0, 3, [], [])
    with state.read() as tx:
        assert store.counted(tx, "e") == {"duplicates": 3, "conflicts": 0, "unknown": 0}
        assert len(store.after(tx, 0, 10)) == 2


def test_another_value_is_a_conflict_that_is_kept_and_changes_nothing(
    intake: LabelIntake, state: State, issuer: Issuer
) -> None:
    ids = issuer.issue(0, 2)
    intake.record("e", 1, _labels(ids, 1.0))
    result = intake.record("e", 1, [*_labels(ids[:1], 0.0), *_labels(ids[1:], None), *_labels(issuer.issue(0, 1))])
    assert result == LabelResult(1, 0, ids, [])
    with state.read() as tx:
        assert [row.value for row in store.after(tx, 0, 10)] == [1.0, 1.0, 1.0]
        assert [row.value for row in tx.execute(store.conflicts.select())] == [0.0, None]


def test_an_explicit_correction_becomes_a_revision(intake: LabelIntake, state: State, issuer: Issuer) -> None:
    ids = issuer.issue(0, 1)
    intake.record("e", 1, _labels(ids, 1.0))
    assert intake.record("e", 1, _labels(ids, 0.0), correct=True) == LabelResult(1, 0, [], [])
    assert intake.record("e", 1, _labels(ids, 0.0), correct=True) == LabelResult(0, 1, [], [])
    assert intake.record("e", 1, _labels(ids, 1.0)).conflicts == ids
    with state.read() as tx:
        assert [(row.revision, row.value) for row in store.after(tx, 0, 10)] == [(1, 1.0), (2, 0.0)]


def test_labels_of_one_call_that_contradict_each_other_are_a_conflict(intake: LabelIntake, issuer: Issuer) -> None:
    [prediction_id] = issuer.issue(0, 1)
    labels = [*_labels([prediction_id], 1.0), *_labels([prediction_id], 0.0), *_labels([prediction_id], 1.0)]
    assert intake.record("e", 1, labels) == LabelResult(1, 1, [prediction_id], [])


def test_forged_and_foreign_ids_are_unknown_and_the_others_are_stored(
    intake: LabelIntake, state: State, issuer: Issuer, key: bytes
) -> None:
    foreign, forged = Issuer(key, 2, 5).issue(0, 1), Issuer(b"f" * 32, 1, 5).issue(0, 1)
    result = intake.record("e", 1, _labels([*foreign, *issuer.issue(0, 1), *forged, "nonsense"]))
    assert result == LabelResult(1, 0, [], [*foreign, *forged, "nonsense"])
    with state.read() as tx:
        assert store.counted(tx, "e")["unknown"] == 3


@pytest.mark.parametrize(
    ("label", "field"),
    [
        (Label("x", math.nan, KNOWN_AT), "labels[1].value"),
        (Label("x", math.inf, KNOWN_AT), "labels[1].value"),
        (Label("x", 1.0, KNOWN_AT.replace(tzinfo=None)), "labels[1].known_at"),
    ],
)
def test_a_wrong_label_is_named_and_nothing_is_stored(
    intake: LabelIntake, state: State, issuer: Issuer, label: Label, field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        intake.record("e", 1, [*_labels(issuer.issue(0, 1)), label])
    assert refused.value.field == field
    with state.read() as tx:
        assert store.last_id(tx) == 0


def test_senders_at_once_agree_on_one_value_and_ids_are_committed_in_order(
    intake: LabelIntake, state: State, issuer: Issuer
) -> None:
    ids = issuer.issue(0, 40)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: intake.record("e", 1, _labels(ids, float(n))), range(8)))
    assert sum(result.accepted for result in results) == 40
    assert sum(len(result.conflicts) for result in results) == 7 * 40
    with state.read() as tx:
        rows = store.after(tx, 0, 100)
    assert len({row.value for row in rows}) == 1
    assert len({row.prediction_id for row in rows}) == 40


def test_a_second_process_may_open_the_same_database(intake: LabelIntake, state: State, key: bytes) -> None:
    LabelIntake(state.url.render_as_string(hide_password=False), key).close()
