"""Requests for predictions in Arrow and CSV over real HTTP: chosen by Content-Type, logged as JSON would be."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pyarrow as pa
import pytest
from gateway_home import ENDPOINT, Home, body

from relevo.identity.model import RELEVO, Role

PATH = f"/endpoints/{ENDPOINT}/invocations"
STREAM = "application/vnd.apache.arrow.stream"
FILE = "application/vnd.apache.arrow.file"
TIMES = ["2013-03-01T10:00:00+00:00", None]


def table(request_id: str | None = None) -> pa.Table:
    times = pl.Series(TIMES).str.to_datetime(time_zone="UTC").to_arrow()
    carriers = pa.array(["UA", None]).dictionary_encode()
    rows = pa.table({"scheduled_at": times, "carrier": carriers, "distance": pa.array([100, 250], pa.int32())})
    return rows.replace_schema_metadata({"request_id": request_id}) if request_id else rows


def arrow(rows: pa.Table, *, file: bool = False) -> bytes:
    sink = pa.BufferOutputStream()
    with (pa.ipc.new_file if file else pa.ipc.new_stream)(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()


def logged(home: Home, ids: list[str]) -> list[Any]:
    found: list[Any] = []

    def are_there() -> bool:
        found[:] = [record for record in home.records() if record.ids == ids]
        return bool(found)

    home.eventually(are_there)
    (record,) = found
    inputs = [list(row) for row in record.inputs]
    return [inputs, list(record.predictions), record.layout, record.status, record.version, record.asked_at_us[0]]


def test_the_log_holds_the_same_rows_whatever_the_language(shared: Home, client: httpx.Client) -> None:
    records = [
        {"scheduled_at": at, "carrier": carrier, "distance": distance}
        for at, carrier, distance in zip(TIMES, ["UA", None], [100, 250], strict=True)
    ]
    csv = f"scheduled_at,carrier,distance\n{TIMES[0]},UA,100\n,,250\n"
    plain = client.post(PATH, json={"dataframe_records": records}).json()
    expected = logged(shared, plain["prediction_ids"])
    for kind, content in (
        (STREAM, arrow(table())),
        (FILE, arrow(table(), file=True)),
        ("text/csv; charset=utf-8", csv.encode()),
    ):
        answer = client.post(PATH, content=content, headers={"content-type": kind})
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"] == plain["predictions"]
        assert logged(shared, answer.json()["prediction_ids"]) == expected


def test_the_answer_is_a_stream_when_the_caller_takes_one(shared: Home, client: httpx.Client) -> None:
    headers = {"content-type": STREAM, "accept": STREAM, "content-encoding": "gzip"}
    answer = client.post(PATH, content=gzip.compress(arrow(table("a-17"))), headers=headers)

    assert answer.headers["content-type"] == STREAM
    frame = pl.read_ipc_stream(io.BytesIO(answer.content))
    assert frame["predictions"].to_list() == [1.0, 1.0]
    assert frame["version"].to_list() == [1, 1]
    shared.eventually(
        lambda: any(
            one.request_id == "a-17" and one.ids == frame["prediction_ids"].to_list() for one in shared.records()
        )
    )


JSON = [None, "", "application/json; charset=utf-8", "APPLICATION/JSON", "application/octet-stream"]


@pytest.mark.parametrize("kind", [*JSON, "application/x-www-form-urlencoded"])
def test_what_clients_send_that_do_not_say_what_it_is_stays_json(client: httpx.Client, kind: str | None) -> None:
    content = json.dumps(body(1.0)).encode()
    answer = client.post(PATH, content=content, headers={} if kind is None else {"content-type": kind})

    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("kind", ["application/xml", "text/html", "multipart/form-data; boundary=x", "nonsense"])
def test_an_unknown_type_is_refused_with_those_that_are_known(client: httpx.Client, kind: str) -> None:
    answer = client.post(PATH, json=body(1.0), headers={"content-type": kind})

    assert answer.status_code == 415
    error = answer.json()["error"]
    assert error["field"] == "content-type"
    assert all(known in error["message"] for known in ("application/json", "text/csv", STREAM, FILE))


def test_bad_bytes_are_refused_counted_and_logged(shared: Home, client: httpx.Client) -> None:
    before = shared.count(1).refused
    content = arrow(table())[:-8]
    answer = client.post(PATH, content=content, headers={"content-type": STREAM})
    assert answer.status_code == 400
    assert "no valid Arrow stream" in answer.json()["error"]["message"]
    shared.eventually(lambda: any(one.body == content for one in shared.records()))
    shared.eventually(lambda: shared.count(1).refused == before + 1)


def test_limits_hold_in_every_language(home: Home) -> None:
    home.endpoint("buffered", limits={"rows": 2, "body_bytes": 4_000})
    home.place(1)
    home.route((1, 100))
    home.start()
    home.serving.await_loaded(ENDPOINT, 1, 20)
    three = pa.concat_tables([table(), table().slice(0, 1)])
    sink = pa.BufferOutputStream()
    wide = pa.table({"carrier": ["x" * 20_000], "distance": [1.0]})
    with pa.ipc.new_stream(sink, wide.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(wide)
    csv = b"carrier,distance\n" + b"UA,1\n" * 3
    with home.client() as client:
        for kind, content in ((STREAM, arrow(three)), ("text/csv", csv), (STREAM, sink.getvalue().to_pybytes())):
            assert len(content) < 4_000
            assert client.post(PATH, content=content, headers={"content-type": kind}).status_code == 413
        good = client.post(PATH, content=arrow(table()), headers={"content-type": STREAM})
        assert good.status_code == 200, good.text


def test_a_load_test_asks_in_arrow_too(shared: Home) -> None:
    with shared.state.transaction() as tx:
        token = shared.identity.create_token(tx, RELEVO.name, Role.LOAD_TEST, note="load test")
    headers = {"content-type": STREAM, "accept": STREAM, "x-relevo-version": "2"}
    with shared.client(token) as client:
        answer = client.post(PATH, content=arrow(table()), headers=headers)

    assert pl.read_ipc_stream(io.BytesIO(answer.content)).rows() == [(2.0, None, 2), (2.0, None, 2)]


def test_a_worker_that_gets_no_arrow_body_has_no_pyarrow(home: Home) -> None:
    home.endpoint("buffered")
    home.place(1)
    home.route((1, 100))
    worker = home.start()
    home.serving.await_loaded(ENDPOINT, 1, 20)

    def has_pyarrow() -> bool:
        return "libarrow" in Path(f"/proc/{worker.pid}/maps").read_text()

    with home.client() as client:
        assert home.predict(client).status_code == 200
        assert not has_pyarrow()
        assert client.post(PATH, content=arrow(table()), headers={"content-type": STREAM}).status_code == 200
        assert has_pyarrow()
