"""``relevo score`` beside the endpoint: the same answers for the same rows, features and transforms included."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from running import Relevo
from team import BEGINS, Project

from relevo.errors import NotAllowed

DEPOTS = ["north", "port", "south"]
TRANSFORMS = """
from relevo.features.request import OnRequest, asked_at, value

transforms = OnRequest({"load": value("weight") * value("waiting").fill_null(0), "hour": asked_at.hour})
"""


@pytest.fixture(scope="module")
def scored(relevo: Relevo, make_project: Callable[[str], Project]) -> Project:
    """A live model with looked-up features, one of them of a required view, and transforms."""
    project = make_project("scored")
    features = project.folder / "parcels/features.py"
    features.write_text(features.read_text() + TRANSFORMS)
    project.change("parcels/features.py", '    source="scans",\n', '    source="scans",\n    required=True,\n')
    relevo.replay(project.model, BEGINS)
    relevo.bring_live(relevo.apply(project.folder))
    relevo.advance(project.model, BEGINS + timedelta(hours=1))  # which fills the online store
    return project


def parcels(relevo: Relevo, project: Project, rows: int) -> pl.DataFrame:
    """Rows as a caller would send them, of the last day."""
    now = relevo.event_at(project.model)
    return pl.DataFrame(
        {
            "parcel": [f"p{i}" for i in range(rows)],
            "depot": [DEPOTS[i % 3] for i in range(rows)],
            "weight": [None if i % 17 == 5 else 0.5 + i % 23 for i in range(rows)],
            "asked_at": [now - timedelta(minutes=7 * (i % 200)) for i in range(rows)],
        }
    )


def run(relevo: Relevo, project: Project, source: Path, output: Path, *more: str, check: int = 0) -> dict[str, Any]:
    said = relevo.command(
        *("score", project.model, "--input", str(source), "--output", str(output), "--json", *more), check=check
    )
    found: dict[str, Any] = json.loads(said) if check == 0 else {"said": said}
    return found


def endpoint(relevo: Relevo, project: Project, frame: pl.DataFrame) -> list[float]:
    records = frame.with_columns(pl.col("asked_at").dt.to_string("iso:strict")).drop("parcel").to_dicts()
    answer = relevo.application.gateway_post(f"/endpoints/{project.model}/invocations", {"dataframe_records": records})
    predictions: list[float] = answer["predictions"]
    return predictions


def test_bulk_answers_are_those_of_the_endpoint(relevo: Relevo, scored: Project, tmp_path: Path) -> None:
    frame = parcels(relevo, scored, 400)
    frame.write_parquet(tmp_path / "in.parquet")
    asked = endpoint(relevo, scored, frame)
    outcome = run(relevo, scored, tmp_path / "in.parquet", tmp_path / "out", "--chunk-rows", "150")
    assert (outcome["rows"], outcome["parts"], outcome["failed"]) == (400, 3, 0)
    found = pl.read_parquet(tmp_path / "out" / "*.parquet")
    assert found["parcel"].equals(frame["parcel"])
    assert found["prediction"].to_list() == pytest.approx(asked, abs=1e-9)
    assert found["prediction"].n_unique() > 20
    assert list((relevo.home / "scoring").iterdir()) == []


def test_a_feature_that_the_input_brings_wins_as_a_whole(relevo: Relevo, scored: Project, tmp_path: Path) -> None:
    frame = parcels(relevo, scored, 60).with_columns(waiting=pl.int_range(pl.len()).cast(pl.Float64))
    frame.write_parquet(tmp_path / "in.parquet")
    asked = endpoint(relevo, scored, frame)
    run(relevo, scored, tmp_path / "in.parquet", tmp_path / "out")
    found = pl.read_parquet(tmp_path / "out" / "*.parquet")
    assert found["prediction"].to_list() == pytest.approx(asked, abs=1e-9)


def test_an_entity_that_a_required_view_does_not_know_is_named(relevo: Relevo, scored: Project, tmp_path: Path) -> None:
    frame = parcels(relevo, scored, 50).with_columns(
        depot=pl.when(pl.int_range(pl.len()) == 33)
        .then(pl.lit("moon"))
        .when(pl.int_range(pl.len()) == 41)
        .then(None)
        .otherwise("depot")
    )
    frame.write_parquet(tmp_path / "in.parquet")
    said = run(relevo, scored, tmp_path / "in.parquet", tmp_path / "out", check=2)["said"]
    assert "Row 33, column 'depot': view queue knows no depot with depot moon" in said
    outcome = run(relevo, scored, tmp_path / "in.parquet", tmp_path / "out", "--on-error", "null")
    assert outcome["failed"] == 2
    bad = pl.read_parquet(tmp_path / "out" / "*.parquet").filter(pl.col("prediction").is_null())
    assert bad["input_row"].to_list() == [33, 41]
    assert bad["error"].to_list()[1] == "view queue needs 'depot', got null"


def test_a_row_of_the_time_to_come_is_refused_as_by_the_endpoint(
    relevo: Relevo, scored: Project, tmp_path: Path
) -> None:
    frame = parcels(relevo, scored, 3).with_columns(asked_at=pl.col("asked_at") + pl.duration(days=1))
    frame.write_parquet(tmp_path / "in.parquet")
    said = run(relevo, scored, tmp_path / "in.parquet", tmp_path / "out", check=2)["said"]
    assert "Row 0, column 'asked_at': asked at" in said
    assert "at most 60 s ahead are accepted" in said


def test_another_version_takes_its_own_permission(relevo: Relevo, scored: Project) -> None:
    path = f"/api/models/{scored.model}/scoring"
    champion = relevo.application.post(path, {"version": None})["version"]
    assert relevo.application.post(path, {"version": champion})["version"] == champion
    with pytest.raises(NotAllowed, match="address_version"):
        relevo.application.post(path, {"version": champion + 1})
    with pytest.raises(NotAllowed, match="predict"):
        relevo.reviewer.post(path, {"version": None})
