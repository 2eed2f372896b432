from dataclasses import replace
from datetime import UTC, datetime

import pytest

from relevo.datasets.model import LoadedDataset
from relevo.datasets.service import Datasets
from relevo.errors import Conflict, NotFound

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
LOADED = LoadedDataset("flights", 0, "d" * 64, 336_776, {"id": "String"}, AT, is_new=True)


def record(datasets, state, loaded, workflow_id="train-1"):
    with state.transaction() as tx:
        return datasets.record(tx, "delay", loaded, snapshot="s" * 64, workflow_id=workflow_id, created_at=AT)


def test_a_version_is_recorded_once_and_keeps_its_first_record(state):
    datasets = Datasets(state)
    first = record(datasets, state, LOADED)
    assert record(datasets, state, replace(LOADED, is_new=False), workflow_id="train-2") == first
    record(datasets, state, replace(LOADED, version=1, digest="e" * 64, known_through=None))
    record(datasets, state, replace(LOADED, name="weather"))
    assert [(v.source, v.version) for v in datasets.versions("delay")] == [
        ("flights", 1),
        ("flights", 0),
        ("weather", 0),
    ]
    assert datasets.versions("delay", "flights")[1] == first
    assert datasets.version("delay", "flights", 0).known_through == AT
    assert datasets.versions("other") == []


def test_a_version_with_other_content_is_refused(state):
    datasets = Datasets(state)
    record(datasets, state, LOADED)
    with pytest.raises(Conflict, match="another writer has changed the table"):
        record(datasets, state, replace(LOADED, digest="f" * 64))


def test_an_unknown_version_names_what_there_is(state):
    datasets = Datasets(state)
    record(datasets, state, LOADED)
    with pytest.raises(NotFound) as refused:
        datasets.version("delay", "flights", 9)
    assert refused.value.hint == "known versions: 0"
    with pytest.raises(NotFound) as refused:
        datasets.version("delay", "flight", 0)
    assert refused.value.hint == "did you mean 'flights'?"
