"""Records become typed rows; versions with other inputs, or other types, share a table."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import polars as pl
import pytest

from relevo.predictions import frames
from relevo.predictions.columns import PREDICTIONS, TIME, fits, label_rows, merged, prediction_rows
from relevo.predictions.frames import Record
from relevo.predictions.store import LabelRow

RecordMaker = Callable[..., Record]


def test_a_request_becomes_a_row_for_each_of_its_rows(record: RecordMaker, asked_at: datetime) -> None:
    one = record(2, predictions=[0.25, 0.75], request_id="r")
    rows = prediction_rows([one], {})
    assert rows.columns == [*PREDICTIONS, "x_distance", "x_carrier", "k_origin"]
    assert rows["prediction_id"].to_list() == one.ids
    assert rows["prediction"].to_list() == [0.25, 0.75]
    assert rows.row(0, named=True) | {"prediction_id": None} == {
        "prediction_id": None,
        "version": 3,
        "request_id": "r",
        "asked_at": asked_at,
        "logged_at": asked_at,
        "materialised_through": asked_at,
        "status": "ok",
        "error": None,
        "prediction": 0.25,
        "probabilities": None,
        "request_body": None,
        "looked_up": None,
        "sample": None,
        "shadow_of": None,
        "x_distance": 1400.0,
        "x_carrier": "UA",
        "k_origin": "JFK",
    }


def test_each_declared_type_keeps_its_values(record: RecordMaker) -> None:
    time = datetime(2013, 8, 15, 1, 2, 3, 4, UTC)
    types = ["float", "integer", "text", "boolean", "time"]
    layout = frames.layout([(kind, kind) for kind in types])
    values = [1, 2**53 + 1, "é", True, time]
    rows = prediction_rows([record(2, layout=layout, inputs=[values, [None] * 5], keys=[])], {})
    assert [rows[f"x_{kind}"].dtype for kind in types] == [pl.Float64, pl.Int64, pl.String, pl.Boolean, TIME]
    assert [rows[f"x_{kind}"].to_list() for kind in types] == [[value, None] for value in values]


def test_the_names_of_the_inputs_that_were_looked_up_stand_in_each_row(record: RecordMaker) -> None:
    every, one, none = (record(2, looked_up=frames.marks(places)) for places in ([0, 1], [1], []))
    rows = prediction_rows([every, one, none, record()], {})
    both = ["distance", "carrier"]
    assert rows["looked_up"].to_list() == [both, both, ["carrier"], ["carrier"], [], [], None]
    assert rows["looked_up"].dtype == pl.List(pl.String)


def test_a_record_that_marks_an_input_which_is_not_there_does_not_fit(record: RecordMaker) -> None:
    assert fits(record(looked_up=frames.marks([1])))
    assert not fits(record(looked_up=frames.marks([2])))


def test_probabilities_of_several_classes_are_kept_beside_the_most_probable(record: RecordMaker) -> None:
    rows = prediction_rows([record(predictions=[[0.2, 0.5, 0.3]])], {})
    assert rows["prediction"].to_list() == [1.0]
    assert rows["probabilities"].to_list() == [[0.2, 0.5, 0.3]]


def test_a_request_that_failed_before_its_rows_were_read_is_one_row(record: RecordMaker, asked_at: datetime) -> None:
    failed = record(
        status="failed",
        error="dep_delay: expected a number",
        ids=[],
        inputs=[],
        keys=[],
        predictions=[],
        body=b"{",
        layout=frames.NO_LAYOUT,
        version=None,
    )
    [row] = prediction_rows([failed], {}).rows(named=True)
    assert (row["status"], row["asked_at"], row["prediction_id"], row["request_body"]) == (
        "failed",
        asked_at,
        None,
        b"{",
    )


def test_versions_with_other_inputs_share_a_table(record: RecordMaker) -> None:
    other = record(layout=frames.layout([("tailnum", "text")]), inputs=[["N1"]], keys=[])
    rows = prediction_rows([record(), other], {})
    assert rows["x_carrier"].to_list() == ["UA", None]
    assert rows["x_tailnum"].to_list() == [None, "N1"]


@pytest.mark.parametrize(
    ("kind", "value", "folded"), [("integer", 7, [1400.0, 7.0]), ("text", "far", ["1400.0", "far"])]
)
def test_an_input_that_changes_its_type_is_read_as_one_column(
    record: RecordMaker, kind: str, value: object, folded: list[object]
) -> None:
    changed = record(layout=frames.layout([("distance", kind)]), inputs=[[value]], keys=[])
    rows = prediction_rows([record(), changed], {})
    assert rows[f"x_distance:{kind}"].to_list() == [None, value]
    assert prediction_rows([changed], dict(record_types(rows))).columns[-1] == f"x_distance:{kind}"
    together = merged(rows.lazy()).collect()
    assert together["x_distance"].to_list() == folded
    assert f"x_distance:{kind}" not in together.columns


def record_types(rows: pl.DataFrame) -> dict[str, pl.DataType]:
    return dict(rows.schema)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ids": []} | {"predictions": [0.1, 0.2]},
        {"inputs": [[1.0]]},
        {"keys": [["JFK", "EWR"]]},
        {"layout": frames.layout([("distance", "length"), ("carrier", "text")], [("origin", "text")])},
        {"inputs": [[1.0, "UA"]] * 2},
    ],
)
def test_a_record_that_contradicts_itself_does_not_fit(record: RecordMaker, wrong: dict[str, object]) -> None:
    assert fits(record())
    assert not fits(record(**wrong))


def test_a_label_without_an_outcome_says_so(asked_at: datetime) -> None:
    rows = label_rows(LabelRow(n, "e", f"p{n}", 1, value, asked_at, asked_at) for n, value in ((1, 1.0), (2, None)))
    assert rows["outcome"].to_list() == ["known", "none"]
    assert rows["value"].to_list() == [1.0, None]


def test_rows_of_a_shadow_have_no_id_and_name_what_was_given(record: RecordMaker) -> None:
    given = record(2)
    shadow = msgspec.structs.replace(given, ids=[], shadow_of=given.ids)
    assert fits(shadow)
    rows = prediction_rows([shadow], {})
    assert rows["prediction_id"].to_list() == [None, None]
    assert rows["shadow_of"].to_list() == given.ids
    assert not fits(msgspec.structs.replace(shadow, shadow_of=given.ids[:1]))
