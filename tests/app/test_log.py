"""Nothing that was acknowledged is lost, and nothing is counted twice, whichever process is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import polars as pl
import pytest
from deltalake import DeltaTable
from running import Load, Relevo
from team import Project

from relevo.predictions.tables import table_path


def logged(relevo: Relevo, model: str) -> pl.DataFrame:
    """The prediction table, after everything acknowledged was moved there."""
    relevo.admin.get(f"/api/models/{model}/log")
    return pl.DataFrame(DeltaTable(str(table_path(relevo.home, "predictions", model))).to_pyarrow_table())


@pytest.fixture
def load(relevo: Relevo, live: Project) -> Iterator[Load]:
    """Callers whose features are looked up: the store is filled when event time goes on."""
    relevo.advance(live.model, relevo.event_at(live.model) + timedelta(hours=1))
    with Load(relevo, live.model, rows=3, is_patient=True, pause_seconds=0).running(callers=4) as running:
        running.await_more(60)
        yield running


def check_counted_once(relevo: Relevo, load: Load) -> None:
    """Every acknowledged prediction is in the log once, by the table and by the count that people see.

    It is there with what it was made of: what was sent, and the features that were looked up, as the sources give them.
    """
    assert len(set(load.acknowledged)) == len(load.acknowledged)
    table = logged(relevo, load.model).filter(status="ok")
    assert table["prediction_id"].n_unique() == table.height
    assert set(load.acknowledged) <= set(table["prediction_id"])
    assert relevo.admin.get(f"/api/models/{load.model}/log")["predictions_logged"] == table.height
    used = table.filter(pl.col("prediction_id").is_in(load.acknowledged))
    assert used.select("x_depot", "x_weight").unique().rows() == [("port", 2.0)]
    assert used["looked_up"].to_list() == [["waiting", "waiting_6h"]] * used.height
    assert used.select("x_waiting", "x_waiting_6h").null_count().row(0) == (0, 0)
    parity = json.loads(relevo.command("features", "parity", load.model, "--json"))
    assert parity["compared"] > 0 and parity["different"] == parity["unlogged"] == 0, parity


def test_predictions_acknowledged_before_kills_of_the_gateway_are_counted_once(relevo: Relevo, load: Load) -> None:
    for _ in range(3):
        relevo.kill_and_await("gateway")
        load.await_more(60)
    load.stop()
    assert load.failures, "no caller noticed the kill"
    check_counted_once(relevo, load)


def test_predictions_acknowledged_before_kills_of_the_collector_are_counted_once(relevo: Relevo, load: Load) -> None:
    for _ in range(2):
        relevo.kill_and_await("collector")
        load.await_more(200)
    load.stop()
    assert load.failures == []
    check_counted_once(relevo, load)


def test_labels_acknowledged_before_a_kill_of_the_gateway_are_joined(relevo: Relevo, live: Project) -> None:
    with Load(relevo, live.model, rows=20).running(callers=1) as load:
        load.await_more(100)
    asked = load.acknowledged[:100]
    known_at = (relevo.event_at(live.model) - timedelta(minutes=1)).isoformat()
    before = relevo.admin.get(f"/api/models/{live.model}/log")
    labels = [{"prediction_id": one, "value": n % 2, "known_at": known_at} for n, one in enumerate(asked)]
    answer = relevo.application.gateway_post(f"/endpoints/{live.model}/labels", {"labels": labels})
    relevo.kill("gateway")
    assert answer["accepted"] == len(asked)
    relevo.await_restart("gateway", 0)
    after = relevo.admin.get(f"/api/models/{live.model}/log")
    assert after["labels"] - before["labels"] == len(asked)
    assert after["labels_joined"] - before["labels_joined"] == len(asked)
    assert after["orphans"] == before["orphans"]
