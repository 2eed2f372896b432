"""The decoders: what is accepted, what is refused and how, and that both readers speak one language."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.contract.model import Task
from relevo.errors import Invalid
from relevo.runtimes import requests
from relevo.runtimes.decoders import build_decoder
from relevo.runtimes.model import Column, ColumnType, Signature

SIGNATURE = Signature(
    Task.CLASSIFICATION,
    inputs=(
        Column("carrier", ColumnType.TEXT),
        Column("distance", ColumnType.FLOAT, nullable=False),
        Column("seats", ColumnType.INTEGER),
        Column("is weekend", ColumnType.BOOLEAN),
        Column("built_at", ColumnType.TIME),
        Column("wind", ColumnType.FLOAT, view="weather"),
    ),
    keys=(Column("station", ColumnType.TEXT),),
    at="scheduled_at",
    classes=("0", "1"),
)
DECODE = build_decoder(SIGNATURE)
ROW: dict[str, Any] = {
    "carrier": "UA",
    "distance": 2475,
    "seats": 180,
    "is weekend": False,
    "built_at": "2001-02-03T04:05:06Z",
    "station": "KJFK",
    "scheduled_at": "2013-04-01T06:00:00-04:00",
}


def split(*rows: dict[str, Any], **more: Any) -> bytes:
    columns = list(rows[0])
    body = {"columns": columns, "data": [[row[name] for name in columns] for row in rows]}
    return json.dumps({"dataframe_split": body, **more}).encode()


def records(*rows: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"dataframe_records": list(rows), **more}).encode()


@pytest.mark.parametrize("form", [split, records])
def test_a_request_becomes_a_row_in_the_order_of_the_signature(form: Any) -> None:
    decoded = DECODE(form(ROW, request_id="r-1"))
    assert decoded.rows == [["UA", 2475.0, 180, False, datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC), None]]
    assert isinstance(decoded.rows[0][1], float)
    assert decoded.sent == {"carrier", "distance", "seats", "is weekend", "built_at"}
    assert decoded.keys == [{"station": "KJFK"}]
    assert decoded.asked_at == [datetime(2013, 4, 1, 10, tzinfo=UTC)]
    assert decoded.asked_at[0].tzinfo is UTC
    assert decoded.request_id == "r-1"


@pytest.mark.parametrize("form", [split, records])
def test_columns_come_in_any_order(form: Any) -> None:
    assert DECODE(form(dict(reversed(ROW.items())))) == DECODE(form(ROW))


@pytest.mark.parametrize("form", [split, records])
def test_keys_and_time_may_be_absent_when_every_input_is_sent(form: Any) -> None:
    row = {**ROW, "wind": 3.5}
    del row["station"], row["scheduled_at"]
    decoded = DECODE(form(row))
    assert "wind" in decoded.sent
    assert decoded.rows[0][-1] == 3.5
    assert decoded.keys == [{"station": None}]
    assert decoded.asked_at is None


def test_an_index_written_by_pandas_is_ignored() -> None:
    body = json.loads(split(ROW))
    body["dataframe_split"]["index"] = [0]
    assert DECODE(json.dumps(body).encode()) == DECODE(split(ROW))


def test_what_the_fast_reader_does_not_take_is_read_all_the_same() -> None:
    row = {**ROW, "seats": 180.0, "built_at": "2001-02-03T04:05:06Z", "scheduled_at": "2013-04-01T10:00Z"}
    assert DECODE(split(row)) == DECODE(split(ROW))


LISTED = ["UA", 2475, 180, False, "2001-02-03T04:05:06Z", 3.5]
NAMES = [column.name for column in SIGNATURE.inputs]


@pytest.mark.parametrize(
    "form",
    [
        {"instances": [LISTED, LISTED]},
        {"instances": [dict(zip(NAMES, LISTED, strict=True))] * 2},
        {"inputs": [LISTED, LISTED]},
        {"inputs": {name: [value, value] for name, value in reversed(list(zip(NAMES, LISTED, strict=True)))}},
        {"inputs": {name: [[value], [value]] for name, value in zip(NAMES, LISTED, strict=True)}},
    ],
)
def test_instances_and_inputs_are_read_as_the_other_forms_are(form: dict[str, Any]) -> None:
    row = {name: value for name, value in ROW.items() if name in NAMES} | {"wind": 3.5}
    assert DECODE(json.dumps({**form, "request_id": "r"}).encode()) == DECODE(split(row, row, request_id="r"))


def test_values_of_the_only_input_may_stand_alone() -> None:
    decode = build_decoder(Signature(Task.REGRESSION, inputs=(Column("distance", ColumnType.FLOAT),)))
    for body in (b'{"instances": [1, null]}', b'{"inputs": [[1], [null]]}', b'{"inputs": {"distance": [1, null]}}'):
        assert list(map(list, decode(body).rows)) == [[1.0], [None]]


def test_nan_is_missing_as_pandas_means_it() -> None:
    read = DECODE(records(changed(carrier=float("nan"), seats=float("nan"))))
    assert read == DECODE(records(changed(carrier=None, seats=None)))


def changed(**values: Any) -> dict[str, Any]:
    return {**ROW, **values}


REFUSED: dict[str, tuple[bytes, str | None, str]] = {
    "broken JSON": (b'{"dataframe_split": ', None, "not valid JSON"),
    "no JSON": (b"", None, "not valid JSON"),
    "not UTF-8": (split(ROW).replace(b"UA", b"\xff\xfe"), None, "not UTF-8"),
    "deep": (b"[" * 100_000, None, "nested too deeply"),
    "thousands of digits": (split(ROW).replace(b"2475", b"9" * 5000), None, "thousands of digits"),
    "a list": (b"[1]", None, "Expected a JSON object, got list"),
    "neither": (b"{}", None, "exactly one of dataframe_split, dataframe_records, instances, inputs; none was sent"),
    "both": (split(ROW)[:-1] + b"," + records(ROW)[1:], None, "exactly one of"),
    "unknown form": (b'{"dataframe_splt": {}}', "dataframe_splt", "Did you mean 'dataframe_split'?"),
    "unknown part": (b'{"dataframe_split": {"colums": []}}', "dataframe_split.colums", "Did you mean 'columns'?"),
    "no data": (b'{"dataframe_split": {"columns": []}}', "dataframe_split.data", "got nothing"),
    "no rows": (b'{"dataframe_records": []}', "dataframe_records", "at least one row"),
    "no rows in split": (b'{"dataframe_split": {"columns": [], "data": []}}', "dataframe_split", "at least one row"),
    "column of a number": (b'{"dataframe_split": {"columns": [1], "data": []}}', "dataframe_split.columns[0]", "name"),
    "row of a number": (b'{"dataframe_split": {"columns": [], "data": [1]}}', "dataframe_split.data[0]", "a list"),
    "record of a number": (b'{"dataframe_records": [1]}', "dataframe_records[0]", "expected an object"),
    "ragged": (split(ROW).replace(b"]]", b"], [1]]"), "dataframe_split.data[1]", "expected 7 values, got 1"),
    "ragged records": (records(ROW, {**ROW, "wind": 1.0}), "wind", "in row 1 and not in row 0"),
    "null for a required value": (split(ROW, changed(distance=None)), "distance", "row 1: expected a number, got null"),
    "text for a number": (split(changed(distance="far")), "distance", "row 0: expected a number, got text 'far'"),
    "boolean for a number": (split(changed(distance=True)), "distance", "expected a number, got boolean"),
    "boolean for an integer": (records(changed(seats=True)), "seats", "expected an integer, got boolean"),
    "number for text": (records(changed(carrier=7)), "carrier", "expected text, got integer 7"),
    "integer for boolean": (records(changed(**{"is weekend": 1})), "is weekend", "expected true or false, got integer"),
    "fraction": (records(changed(seats=1.5)), "seats", "expected an integer, got number 1.5"),
    "long integer": (records(changed(seats=2**63)), "seats", "64 bits"),
    "NaN text": (records(changed(distance="NaN")), "distance", "got text 'NaN'"),
    "NaN for a required value": (records(changed(distance=float("nan"))), "distance", "expected a number, got null"),
    "infinity": (records(changed(distance=float("-inf"))), "distance", "not finite"),
    "overflow": (split(ROW).replace(b"2475", b"1e999"), "distance", "not finite"),
    "integer overflow": (split(ROW).replace(b"2475", b"9" * 400), "distance", "not finite"),
    "half a surrogate": (records(changed(carrier="\ud800")), "carrier", "surrogate"),
    "no offset": (split(changed(scheduled_at="2013-04-01T10:00:00")), "scheduled_at", "no offset"),
    "not a time": (split(changed(scheduled_at="noon")), "scheduled_at", "ISO 8601 time with offset, got text 'noon'"),
    "epoch": (split(changed(scheduled_at=1364810400)), "scheduled_at", "ISO 8601 time with offset, got integer"),
    "before the first year": (split(changed(built_at="0001-01-01T00:00:00+05:00")), "built_at", "ISO 8601"),
    "unknown column": (split(changed(carier="UA")), "carier", "Did you mean 'carrier'?"),
    "unknown in record": (records(changed(zzz="UA")), "zzz", "Expected: carrier, distance"),
    "empty request id": (split(ROW, request_id=""), "request_id", "1 to 128 characters"),
    "long request id": (split(ROW, request_id="x" * 129), "request_id", "1 to 128 characters"),
    "number as request id": (records(ROW, request_id=5), "request_id", "1 to 128 characters"),
    "instances of a number": (b'{"instances": 1}', "instances", "a list of rows, got integer"),
    "inputs of a number": (b'{"inputs": 1}', "inputs", "an object of columns, or a list of rows, got integer"),
    "instance of a number": (b'{"instances": [1]}', "instances[0]", "expected a list of 6 values, got integer"),
    "short instance": (b'{"instances": [["UA"]]}', "instances[0]", "expected 6 values (carrier, distance"),
    "no instances": (b'{"instances": []}', "instances", "at least one row"),
    "ragged instances": (b'{"instances": [{"wind": 1}, {}]}', "wind", "in row 0 and not in row 1"),
    "column of inputs is a number": (b'{"inputs": {"wind": 1}}', "wind", "expected a list of values, got integer"),
    "ragged inputs": (b'{"inputs": {"wind": [1], "seats": [1, 2]}}', "seats", "has 2 rows, and column 'wind' has 1"),
    "unknown in inputs": (b'{"inputs": {"windd": [1]}}', "windd", "Did you mean 'wind'?"),
    "no columns of inputs": (b'{"inputs": {}}', "inputs", "at least one row"),
    "column twice": (split(ROW).replace(b'"seats"', b'"carrier"'), "carrier", "given twice"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_request_is_refused_with_its_field(case: str) -> None:
    body, field, words = REFUSED[case]
    with pytest.raises(Invalid) as refusal:
        DECODE(body)
    assert refusal.value.field == field
    assert words in refusal.value.message
    json.dumps(refusal.value.as_json()).encode()


@pytest.mark.parametrize("form", [split, records])
@pytest.mark.parametrize("missing", ["carrier", "station"])
def test_a_missing_column_is_named(form: Any, missing: str) -> None:
    with pytest.raises(Invalid, match=f"Missing column '{missing}'") as refusal:
        DECODE(form({name: value for name, value in ROW.items() if name != missing}))
    assert refusal.value.field == missing


def test_many_orders_of_columns_do_not_grow_without_bound() -> None:
    names = list(ROW)
    for turn in range(200):
        order = names[turn % len(names) :] + names[: turn % len(names)]
        order[turn % 3], order[(turn // 7) % 5] = order[(turn // 7) % 5], order[turn % 3]
        assert DECODE(split({name: ROW[name] for name in order})).rows == DECODE(split(ROW)).rows


times = st.datetimes(
    min_value=datetime(1, 1, 3),  # noqa: DTZ001
    max_value=datetime(9999, 12, 29),  # noqa: DTZ001
    timezones=st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
good_rows = st.fixed_dictionaries(
    {
        "carrier": st.none() | texts,
        "distance": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70),
        "seats": st.none() | st.integers(-(2**63), 2**63 - 1),
        "is weekend": st.none() | st.booleans(),
        "built_at": st.none() | times,
        "wind": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "station": st.none() | texts,
        "scheduled_at": st.none() | times,
    }
)


@given(st.lists(good_rows, min_size=1, max_size=4), st.permutations([*ROW, "wind"]))
def test_what_is_written_is_read_back(rows: list[dict[str, Any]], order: list[str]) -> None:
    written = [
        {name: row[name].isoformat() if isinstance(row[name], datetime) else row[name] for name in order}
        for row in rows
    ]
    expected = [
        [row["carrier"], float(row["distance"]), row["seats"], row["is weekend"], row["built_at"], row["wind"]]
        for row in rows
    ]
    for form in (split, records):
        decoded = DECODE(form(*written))
        assert list(map(list, decoded.rows)) == expected
        assert decoded.keys == [{"station": row["station"]} for row in rows]
        assert decoded.asked_at == [row["scheduled_at"] for row in rows]


cells = st.none() | st.booleans() | st.integers() | st.floats() | texts | times.map(datetime.isoformat)


@given(st.lists(st.dictionaries(st.sampled_from([*ROW, "wind", "other"]), cells), max_size=3))
def test_both_readers_accept_and_refuse_the_same(rows: list[dict[str, Any]]) -> None:
    layout = requests.Layout.of(SIGNATURE)
    body = records(*rows)
    fast, plain = outcome(DECODE, body), outcome(partial(requests.read, layout), body)
    if isinstance(fast, dict) or isinstance(plain, dict):
        assert fast == plain
    else:
        columns, values, _ = plain
        named = [dict(zip(columns, row, strict=True)) for row in values]
        assert fast.rows == [[row.get(column.name) for column in SIGNATURE.inputs] for row in named]


def outcome(reader: Callable[[bytes], Any], body: bytes) -> Any:
    try:
        return reader(body)
    except Invalid as refusal:
        return refusal.as_json()


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_and_never_crash(body: bytes) -> None:
    with pytest.raises(Invalid):
        DECODE(body)
