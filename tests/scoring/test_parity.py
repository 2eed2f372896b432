"""Bulk answers beside those of a real gateway: looked-up features, transforms, the types of a request."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from bulk import Bulk
from gateway_home import ENDPOINT, NOW, SIGNATURE, Home

from relevo.contract.model import Source
from relevo.features.declare import latest
from relevo.features.merging import merged
from relevo.features.model import Entity, FeatureView, view_id
from relevo.features.online import OnlineStore
from relevo.features.progress import Filled, microseconds, new_generation
from relevo.features.request import OnRequest, asked_at, value
from relevo.features.rows import read_rows
from relevo.platform.encoding import to_json
from relevo.runtimes.model import Column, ColumnType
from relevo.scoring.model import OnError

VIEW = FeatureView(
    "at_origin",
    entity=Entity("airport", "origin"),
    source="flights",
    features={"delay": latest("delay", default=-4.0)},
    required=True,
)
SOURCE = Source("flights", "p:flights", ("origin",), event_time="at", known_time="known_at")
TRANSFORMS = OnRequest({"hours": asked_at.in_zone("America/New_York").hour + value("delay").fill_null(0)}).transforms
ROWS = 300


@pytest.fixture
def served(home: Home, tmp_path: Path) -> Bulk:
    """A version that adds up a sent number, a looked-up delay and a transform, in a gateway and in bulk."""
    signature = replace(
        SIGNATURE,
        inputs=(
            SIGNATURE.inputs[0],
            SIGNATURE.inputs[1],
            Column("hours", ColumnType.FLOAT, is_computed=True),
            Column("delay", ColumnType.FLOAT, view="at_origin"),
        ),
        keys=(Column("origin", ColumnType.TEXT),),
    )
    options: dict[str, Any] = {"views": (VIEW,), "transforms": TRANSFORMS, "signature": signature}
    home.endpoint("buffered")
    bundle = home.place(1, weight=0.5, delay_weight=3.0, **options)
    home.route((1, 100))
    table = pl.DataFrame(
        {
            "origin": [f"A{i % 7}" for i in range(140)],
            "at": [NOW - timedelta(hours=20) + timedelta(minutes=8 * i) for i in range(140)],
            "delay": [None if i % 11 == 3 else float(i) for i in range(140)],
        }
    ).with_columns(known_at=pl.col("at") + pl.duration(minutes=30))
    through_us = microseconds(NOW)
    filled = Filled(new_generation(), through_us, "test", through_us, through_us)
    entries = merged({0: (VIEW, read_rows(VIEW, SOURCE, table.lazy()).collect())}, through_us, filled.generation)
    with closing(OnlineStore(home.settings.online_store)) as store:
        store.update(ENDPOINT, lambda record: record.replaced({view_id(ENDPOINT, VIEW): filled}), entries)
    bulk = Bulk(home.settings.root, {1: bundle}, tmp_path / "work")
    bulk.control.tables = {"flights": table}
    bulk.control.declared = (to_json(SOURCE),)
    bulk.control.left = tmp_path / "left"
    return bulk


def asked(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "distance": [float(i) for i in range(ROWS)],
            "carrier": ["UA" if i % 3 else None for i in range(ROWS)],
            "origin": [f"A{i % 7}" for i in range(ROWS)],
            "scheduled_at": [NOW - timedelta(minutes=4 * (i * 37 % 250)) for i in range(ROWS)],
        }
        | columns
    )


def answered(home: Home, frame: pl.DataFrame) -> list[float]:
    records = frame.with_columns(pl.col("scheduled_at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_dicts()
    with home.client() as client:
        answer = client.post(f"/endpoints/{ENDPOINT}/invocations", json={"dataframe_records": records})
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]  # type: ignore[no-any-return]


def test_bulk_answers_are_those_of_the_gateway(served: Bulk, home: Home) -> None:
    frame, path = asked(), served.work / "in.parquet"
    frame.write_parquet(path)
    brought = asked(delay=[None if i % 4 else float(i) for i in range(ROWS)])
    brought.write_parquet(served.work / "brought.parquet")
    home.start()
    home.serving.await_loaded(ENDPOINT, 1, 60)
    assert served.score(path).rows == ROWS
    found = served.rows()["prediction"].to_list()
    assert found == pytest.approx(answered(home, frame), abs=1e-12)
    assert len(set(found)) > 50
    assert not (served.control.left or path).exists()
    other = served.work / "other"
    served.score(served.work / "brought.parquet", output=other)
    found = pl.read_parquet(other / "*.parquet")["prediction"].to_list()
    assert found == pytest.approx(answered(home, brought), abs=1e-12)


def test_an_entity_that_a_required_view_does_not_know_is_a_bad_row(served: Bulk) -> None:
    origins = ["nowhere" if i == 210 else None if i == 220 else f"A{i % 7}" for i in range(ROWS)]
    early = [NOW - timedelta(days=9) if i == 230 else NOW for i in range(ROWS)]
    asked(origin=origins, scheduled_at=early).write_parquet(served.work / "in.parquet")
    outcome = served.score(served.work / "in.parquet", on_error=OnError.NULL)
    assert outcome.failed == 3
    bad = served.rows().filter(pl.col("prediction").is_null())
    assert bad["input_row"].to_list() == [210, 220, 230]
    errors = bad["error"].to_list()
    assert errors[0].startswith("view at_origin knows no airport with origin nowhere at 2013-04-01")
    assert errors[1] == "view at_origin needs 'origin', got null"
    assert errors[2].startswith("view at_origin knows no airport with origin A6 at 2013-03-23")


def test_a_missing_key_is_named(served: Bulk) -> None:
    asked().drop("origin").write_parquet(served.work / "in.parquet")
    with pytest.raises(Exception, match="Missing column 'origin'"):
        served.score(served.work / "in.parquet")
