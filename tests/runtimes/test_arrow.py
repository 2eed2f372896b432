"""Arrow bodies: what is read is what JSON would have said, and no bytes do harm."""

from __future__ import annotations

import io
import json
import random
import re
import struct
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from relevo.contract.model import Task
from relevo.errors import Invalid, RelevoError, TooLarge
from relevo.runtimes import arrow
from relevo.runtimes.arrow import ArrowStream
from relevo.runtimes.exchange import Answer, MlflowJson, Question
from relevo.runtimes.model import Column, ColumnType, Signature

SIGNATURE = Signature(
    Task.CLASSIFICATION,
    (
        Column("distance", ColumnType.FLOAT),
        Column("carrier", ColumnType.TEXT),
        Column("seats", ColumnType.INTEGER),
        Column("is_weekend", ColumnType.BOOLEAN),
        Column("built_at", ColumnType.TIME),
        Column("exact", ColumnType.FLOAT, nullable=False),
    ),
    keys=(Column("tail", ColumnType.TEXT),),
    at="asked",
    classes=("early", "late", "never"),
)
WHEN = datetime(2001, 2, 3, 4, 5, 6, 789012, UTC)
STREAM = arrow.STREAM.encode()


def table(**changes: Any) -> pa.Table:
    columns: dict[str, Any] = {
        "distance": pa.array([1.5, None, float("nan")]),
        "carrier": pa.array(["UA", "Ñandú", None]).dictionary_encode(),
        "seats": pa.array([180, 2**60 + 1, None]),
        "is_weekend": pa.array([True, None, False]),
        "built_at": pa.array([WHEN, None, WHEN], pa.timestamp("us", "Europe/Berlin")),
        "exact": pa.array([0.1, -0.0, 1e300]),
        "tail": pa.array(["N1", "N2", "N3"], pa.large_string()),
        "asked": pa.array([WHEN, WHEN, None], pa.timestamp("ns", "UTC")),
    }
    columns |= changes
    return pa.table({name: column for name, column in columns.items() if column is not None})


def stream(rows: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()


def file(rows: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, rows.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()


def decode(body: bytes, signature: Signature = SIGNATURE, **question: Any) -> Any:
    return ArrowStream(signature).decode(Question(body, **{"max_rows": 1_000, "max_bytes": 1_000_000, **question}))


def refused(body: bytes, kind: type[RelevoError] = Invalid, **question: Any) -> RelevoError:
    with pytest.raises(kind) as caught:
        decode(body, **question)
    return caught.value


JSON = {
    "dataframe_records": [
        {"distance": 1.5, "carrier": "UA", "seats": 180, "is_weekend": True, "built_at": "2001-02-03T04:05:06.789012Z",
         "exact": 0.1, "tail": "N1", "asked": "2001-02-03T04:05:06.789012Z"},
        {"distance": None, "carrier": "Ñandú", "seats": 2**60 + 1, "is_weekend": None, "built_at": None,
         "exact": -0.0, "tail": "N2", "asked": "2001-02-03T04:05:06.789012Z"},
        {"distance": None, "carrier": None, "seats": None, "is_weekend": False,
         "built_at": "2001-02-03T05:05:06.789012+01:00", "exact": 1e300, "tail": "N3", "asked": None},
    ]
}  # fmt: skip


def same(one: Any, other: Any) -> None:
    assert [list(row) for row in one.rows] == [list(row) for row in other.rows]
    assert [[type(value) for value in row] for row in one.rows] == [
        [type(value) for value in row] for row in other.rows
    ]
    assert (one.keys, one.asked_at, one.sent) == (other.keys, other.asked_at, other.sent)


@pytest.mark.parametrize("write", [stream, file])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_rows_are_those_that_json_would_have_said(write: Any, compression: str | None) -> None:
    expected = MlflowJson(SIGNATURE).decode(Question(json.dumps(JSON).encode()))

    same(decode(write(table(), compression=compression)), expected)


def test_several_batches_and_any_order_of_columns_are_the_same_rows() -> None:
    rows = table()
    many = pa.concat_tables([rows.slice(i, 1) for i in range(3)]).select(sorted(rows.column_names, reverse=True))

    same(decode(stream(many, unify_dictionaries=True)), decode(stream(rows)))


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
@pytest.mark.parametrize("write", ["write_ipc", "write_ipc_stream"])
def test_a_frame_of_polars_is_read(compression: Any, write: str) -> None:
    frame = pl.from_arrow(table())
    assert isinstance(frame, pl.DataFrame)
    frame = frame.with_columns(pl.col("carrier").cast(pl.Categorical), pl.col("tail").cast(pl.Enum(["N1", "N2", "N3"])))
    sink = io.BytesIO()
    getattr(frame, write)(sink, compression=compression)

    same(decode(sink.getvalue()), decode(stream(table())))


@pytest.mark.filterwarnings("ignore:Series.values")  # pyarrow reads pandas so
def test_a_frame_of_pandas_is_read() -> None:
    frame = pd.DataFrame(
        {
            "distance": [1, 2],
            "exact": np.array([1, 2], np.float16),
            "carrier": pd.Categorical(["a", None]),
            "seats": [1.0, None],
            "is_weekend": [True, False],
            "built_at": pd.to_datetime([WHEN, WHEN]).as_unit("s"),
            "tail": ["x", "y"],
        }
    )
    asked = decode(stream(pa.Table.from_pandas(frame)))
    second = WHEN.replace(microsecond=0)

    assert [list(row) for row in asked.rows] == [
        [1.0, "a", 1, True, second, 1.0],
        [2.0, None, None, False, second, 2.0],
    ]


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("distance", pa.array(["1", "2", "3"]), "Column 'distance': expected an integer or float type, got string."),
        ("distance", pa.array([True, False, True]), "expected an integer or float type, got bool."),
        ("carrier", pa.array([1, 2, 3]), "expected text, plain or dictionary-encoded, got int64."),
        ("carrier", pa.array([1, 2, 3]).dictionary_encode(), "got dictionary<values=int64, indices=int32, ordered=0>."),
        ("carrier", pa.array([["a"], [], None]), "got list<item: string>."),
        ("is_weekend", pa.array([0, 1, 1]), "expected bool, got int64."),
        ("built_at", pa.array([WHEN] * 3, pa.timestamp("us")), "expected a timestamp with a time zone, or text, got"),
        ("built_at", pa.array(["today"] * 3), "row 0: expected an ISO 8601 time with offset, got text 'today'."),
        ("built_at", pa.array([0, 0, 2**62], pa.timestamp("s", "UTC")), "Column 'built_at', row 2: expected an ISO"),
        (
            "built_at",
            pa.array([0, 253402300800000, 0], pa.timestamp("ms", "UTC")),
            "Column 'built_at', row 1: expected",
        ),
        (
            "built_at",
            pa.array([0, -(2**62), 0], pa.timestamp("us", "UTC")),
            "Column 'built_at', row 1: expected an ISO",
        ),
        ("seats", pa.array([1.0, 2.5, 3.0]), "Column 'seats', row 1: expected an integer, got number 2.5."),
        ("seats", pa.array([1, 2, 2**64 - 1], pa.uint64()), "row 2: expected an integer, got integer 1844674407370955"),
        ("distance", pa.array([1.0, 2.0, float("inf")]), "row 2: expected a number, got number inf."),
        ("exact", pa.array([1.0, None, 2.0]), "Column 'exact', row 1: expected a number, got null."),
        ("exact", pa.nulls(3), "Column 'exact', row 0: expected a number, got null."),
        ("exact", None, "Missing column 'exact'."),
        ("carier", pa.array([1, 2, 3]), "Unknown column 'carier'. Did you mean 'carrier'?"),
    ],
)
@pytest.mark.parametrize("write", [stream, file])
def test_a_column_that_does_not_fit_is_named(write: Any, name: str, values: Any, expected: str) -> None:
    error = refused(write(table(**{name: values})))

    assert expected in error.message
    assert error.field == name


@pytest.mark.parametrize(
    ("unit", "count", "expected"),
    [
        ("s", -62135596800, datetime(1, 1, 1, tzinfo=UTC)),
        ("ms", 253402300799999, datetime(9999, 12, 31, 23, 59, 59, 999000, UTC)),
        ("us", -1, datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)),
        ("ns", -1, datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)),
        ("ns", 1_999, datetime(1970, 1, 1, 0, 0, 0, 1, UTC)),
        ("ns", 2**63 - 1, datetime(2262, 4, 11, 23, 47, 16, 854775, UTC)),
    ],
)
def test_times_of_every_unit_are_read_to_the_microsecond(unit: str, count: int, expected: datetime) -> None:
    array = pa.array([count] * 3, pa.timestamp(unit, "America/New_York"))

    assert [row[4] for row in decode(stream(table(built_at=array))).rows] == [expected] * 3


def test_the_row_of_a_refusal_counts_over_all_batches() -> None:
    rows = pa.concat_tables([table(), table(exact=pa.array([1.0, 2.0, float("inf")]))])

    assert "Column 'exact', row 5" in refused(stream(rows, unify_dictionaries=True)).message


def test_a_column_given_twice_and_no_rows_are_refused() -> None:
    assert "given twice" in refused(stream(pa.table([[1.0], [2.0]], names=["exact", "exact"]))).message
    assert "at least one row" in refused(stream(table().slice(0, 0))).message


def test_the_request_id_is_in_the_metadata_of_the_schema() -> None:
    assert decode(stream(table().replace_schema_metadata({"request_id": "a-17"}))).request_id == "a-17"
    assert decode(stream(table())).request_id is None
    for wrong in ("x" * 129, b"\xff"):
        assert refused(stream(table().replace_schema_metadata({"request_id": wrong}))).field == "request_id"


@pytest.mark.parametrize("write", [stream, file])
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_bytes_that_were_cut_off_anywhere_are_refused(write: Any, compression: str | None) -> None:
    body = write(table(), compression=compression)

    for size in range(len(body)):
        refused(body[:size])
    refused(body + b"\0")


def test_a_stream_that_ends_between_two_batches_is_refused() -> None:
    body = stream(table())

    assert "may have been cut off" in refused(body[:-8]).message
    assert "goes on for 8 bytes after its end" in refused(body + bytes(8)).message


def test_a_file_whose_blocks_are_ends_of_streams_is_refused() -> None:
    body = file(table())
    ended = re.sub(rb"\xff{4}[^\0]..\0", b"\xff\xff\xff\xff" + bytes(4), body, flags=re.DOTALL)
    assert ended != body

    refused(ended)


@pytest.mark.parametrize("write", [stream, file])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_flipped_bytes_are_refused_or_read_and_harm_nothing(write: Any, compression: str | None) -> None:
    body = write(table(), compression=compression)
    seeded = random.Random(7)
    refusals = 0
    for _ in range(1_500):
        broken = bytearray(body)
        for _ in range(seeded.choice([1, 1, 2, 8])):
            broken[seeded.randrange(len(body))] = seeded.choice([0, 1, 0x7F, 0x80, 0xFF, seeded.randrange(256)])
        try:
            decode(bytes(broken))
        except (Invalid, TooLarge):
            refusals += 1

    assert refusals > 300


def test_rows_are_counted_before_they_are_read() -> None:
    assert "at most 2 rows, got at least 3" in refused(stream(table()), TooLarge, max_rows=2).message
    assert "at most 2 rows" in refused(file(table()), TooLarge, max_rows=2).message
    nothing = pa.table({"carrier": pa.nulls(2**22)})  # four million rows in 300 bytes
    only = Signature(Task.REGRESSION, (Column("carrier", ColumnType.TEXT),))
    for write in (stream, file):
        refused(write(nothing), TooLarge, signature=only)


@pytest.mark.parametrize("write", [stream, file])
def test_a_compressed_body_is_not_expanded_past_the_limit(write: Any) -> None:
    only = Signature(Task.REGRESSION, (Column("carrier", ColumnType.TEXT),))
    body = write(pa.table({"carrier": ["x" * 3_000_000]}), compression="zstd")
    assert len(body) < 3_000
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    peak = pool.max_memory()

    assert "after its decompression" in refused(body, TooLarge, signature=only).message
    assert pool.max_memory() <= max(peak, before + 100_000)


def test_a_buffer_that_lies_about_its_size_takes_no_memory() -> None:
    only = Signature(Task.REGRESSION, (Column("carrier", ColumnType.TEXT),))
    body = stream(pa.table({"carrier": ["x" * 3_000]}), compression="zstd")
    start, size, rest = body.rpartition(struct.pack("<q", 3_000))
    assert size

    refused(start + struct.pack("<q", 2**50) + rest, TooLarge, signature=only)
    refused(start + struct.pack("<q", -7) + rest, signature=only)
    refused(start + struct.pack("<q", 2_999) + rest, signature=only)


def test_text_that_many_rows_share_counts_once_a_row() -> None:
    only = Signature(Task.REGRESSION, (Column("carrier", ColumnType.TEXT),))
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * 100, pa.int8()), pa.array(["x" * 20_000]))
    long = pa.array(["x" * 20_000], pa.string_view())
    view = pa.py_buffer(bytes(long.buffers()[1])[:16] * 100)
    views = pa.Array.from_buffers(pa.string_view(), 100, [None, view, long.buffers()[2]])
    for array in (shared, views):
        body = stream(pa.table({"carrier": array}))
        assert len(body) < 30_000
        assert "once each row has its text" in refused(body, TooLarge, signature=only).message
        assert len(decode(body, only, max_bytes=2_000_000).rows) == 100


def test_too_many_batches_are_refused() -> None:
    rows = pa.concat_tables([table(carrier=pa.array(["a", "b", "c"]))] * 300)

    assert "combine them" in refused(stream(rows), TooLarge).message


def test_an_index_beyond_its_dictionary_is_refused() -> None:
    body = stream(
        table(carrier=pa.DictionaryArray.from_arrays(pa.array([0, 1, 119], pa.int32()), pa.array(["a"] * 120)))
    )
    place = struct.pack("<iii", 0, 1, 119)
    assert body.count(place) == 1

    refused(body.replace(place, struct.pack("<iii", 0, 1, 120)))
    refused(body.replace(place, struct.pack("<iii", 0, 1, -1)))


def test_an_index_beyond_a_dictionary_that_was_looked_at_before_is_refused() -> None:
    values = pa.array(["a", "b"] * 60)
    columns = [pa.DictionaryArray.from_arrays(pa.array([0, 1, last], pa.int32()), values) for last in (118, 119)]
    body = stream(pa.concat_tables([table(carrier=column) for column in columns]))
    place = struct.pack("<iii", 0, 1, 119)
    assert body.count(place) == 1
    assert [row[1] for row in decode(body).rows] == ["a", "b", "a", "a", "b", "b"]

    for wrong in (120, -1, 2**31 - 1):
        refused(body.replace(place, struct.pack("<iii", 0, 1, wrong)))


def test_a_dictionary_that_is_replaced_between_batches_is_the_one_of_its_batch() -> None:
    rows = pa.concat_tables([table(carrier=pa.array([a, b, a]).dictionary_encode()) for a, b in ("xy", "zw")])

    assert [row[1] for row in decode(stream(rows)).rows] == ["x", "y", "x", "z", "w", "z"]


def test_a_dictionary_that_grows_by_deltas_is_read_and_its_copies_are_bounded() -> None:
    only = Signature(Task.REGRESSION, (Column("carrier", ColumnType.TEXT),))
    values = [f"{number}" * 1_000 for number in range(60)]
    sink = pa.BufferOutputStream()
    schema = pa.schema([("carrier", pa.dictionary(pa.int32(), pa.string()))])
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)) as writer:
        for last in range(60):
            grown = pa.DictionaryArray.from_arrays(pa.array([last], pa.int32()), pa.array(values[: last + 1]))
            writer.write_batch(pa.record_batch([grown], schema=schema))
    body = sink.getvalue().to_pybytes()
    assert len(body) < 200_000

    assert [row[0] for row in decode(body, only, max_bytes=10_000_000).rows] == values
    assert "copies for deltas" in refused(body, TooLarge, signature=only, max_bytes=1_000_000).message


def test_the_answer_is_json_or_a_stream() -> None:
    language = ArrowStream(SIGNATURE)
    answer = Answer([[0.1, 0.2, 0.7]] * 3, 4, ["a", "b", "c"])
    plain = language.encode(decode(stream(table())), answer)
    assert json.loads(plain.body)["prediction_ids"] == ["a", "b", "c"]
    assert plain.content_type == b"application/json"

    reply = language.encode(decode(stream(table()), accept=b"application/json;q=0.1, " + STREAM), answer)
    assert reply.content_type == STREAM
    assert pa.ipc.open_stream(reply.body).read_all().to_pydict() == {
        "predictions": [[0.1, 0.2, 0.7]] * 3,
        "prediction_ids": ["a", "b", "c"],
        "version": [4, 4, 4],
    }


def test_a_regression_answers_a_plain_column_and_no_ids_of_what_is_not_logged() -> None:
    only = Signature(Task.REGRESSION, (Column("carrier", ColumnType.TEXT),))
    request = decode(stream(pa.table({"carrier": ["a", "b"]})), only, accept=STREAM)
    reply = ArrowStream(only).encode(request, Answer([1.0, 2.0], 4, []))

    frame = pl.read_ipc_stream(io.BytesIO(reply.body))
    assert frame.to_dict(as_series=False) == {
        "predictions": [1.0, 2.0],
        "prediction_ids": [None, None],
        "version": [4, 4],
    }
