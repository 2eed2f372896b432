"""What the contract says of the log: a sample of it, and what happens when it is full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from gateway_home import ENDPOINT, Home

from namespaces import IN_A_NAMESPACE
from relevo.predictions.ids import is_unsampled
from relevo.serving.model import LogLosses, LogMode

LOG_BYTES = 1 << 20
#: More in one request than what is free in the last page of a file.
ROWS = [float(one) for one in range(200)]


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Nothing more fits into the file system of the folder."""
    filler = folder / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(8 << 20))
    yield
    filler.unlink()


@pytest.fixture
def small_log(tmp_path: Path) -> int:
    """The size of the log's file system, where one can be mounted."""
    if subprocess.run([*IN_A_NAMESPACE, "4096", str(tmp_path), "true"], capture_output=True).returncode != 0:
        pytest.skip("no user namespace with a tmpfs can be made here")
    return LOG_BYTES


def serve(home: Home, mode: LogMode, **settings: object) -> httpx.Client:
    home.endpoint(mode, **settings)
    home.place(1)
    home.route((1, 100))
    return home.client()


@pytest.mark.parametrize("mode", ["durable", "buffered"])
def test_a_sample_of_the_answers_is_logged_and_the_rest_counted(home: Home, mode: LogMode) -> None:
    with serve(home, mode, log_sample=0.25) as client:
        home.start()
        home.serving.await_loaded(ENDPOINT, 1, 20)
        answered = [one for _ in range(200) for one in home.predict(client, 1.0, 2.0, 3.0).json()["prediction_ids"]]
        assert client.post(f"/endpoints/{ENDPOINT}/invocations", json={"dataframe_records": [{}]}).status_code == 400
        kept = [one for one in answered if not is_unsampled(one)]
        assert 75 < len(kept) < 225
        home.eventually(lambda: home.count(1).unsampled_rows == len(answered) - len(kept))
        text = client.get("/metrics").text
    assert f'relevo_unsampled_rows_total{{endpoint="{ENDPOINT}",version="1"}} {len(answered) - len(kept)}.0' in text
    home.stop_workers()
    records = home.records()
    ok = [record for record in records if record.status == "ok"]
    assert sorted(one for record in ok for one in record.ids) == sorted(kept)
    assert all(len(record.ids) == len(record.inputs) == len(record.predictions) for record in ok)
    assert {record.sample for record in ok} == {0.25}
    assert [record.sample for record in records if record.status == "failed"] == [None]
    assert home.count(1).rows == len(answered)


def test_a_label_of_a_row_that_was_left_out_is_accepted(home: Home) -> None:
    with serve(home, "durable", log_sample=0.01) as client:
        home.start()
        home.serving.await_loaded(ENDPOINT, 1, 20)
        ids = home.predict(client, *map(float, range(50))).json()["prediction_ids"]
        assert any(map(is_unsampled, ids))
        labels = [{"prediction_id": one, "value": 1.0} for one in ids]
        answer = client.post(f"/endpoints/{ENDPOINT}/labels", json={"labels": labels})
    assert (answer.status_code, answer.json()["accepted"]) == (200, 50)


def test_a_full_log_refuses_and_takes_requests_again_when_there_is_room(home: Home, small_log: int) -> None:
    with serve(home, "durable", log_when_full="refuse") as client:
        worker = home.start(log_bytes=small_log)
        log = home.log_of(worker)
        home.serving.await_loaded(ENDPOINT, 1, 20)
        acknowledged = home.predict(client).json()["prediction_ids"]
        with full(log):
            refused = [home.predict(client, *ROWS) for _ in range(5)]
            assert {one.status_code for one in refused} == {503}
            assert all(int(one.headers["retry-after"]) >= 1 for one in refused)
            home.eventually(lambda: home.serving.log_losses().get(ENDPOINT, LogLosses()).unlogged == 5)
            assert "No space left" in (home.serving.log_losses().get(ENDPOINT, LogLosses()).error or "")
        acknowledged += home.predict(client).json()["prediction_ids"]
        home.eventually(lambda: home.serving.log_losses().get(ENDPOINT, LogLosses()) == LogLosses(0, 5, None))
        logged = [one for record in home.records(log) for one in record.ids]
        assert set(acknowledged) <= set(logged)
        assert len(logged) == len(set(logged))


def test_a_full_log_is_counted_and_reported_where_answers_go_out_without_it(home: Home, small_log: int) -> None:
    with serve(home, "durable", log_when_full="serve") as client:
        worker = home.start(log_bytes=small_log)
        log = home.log_of(worker)
        home.serving.await_loaded(ENDPOINT, 1, 20)
        logged = home.predict(client).json()["prediction_ids"]
        with full(log):
            assert [home.predict(client, *ROWS).status_code for _ in range(5)] == [200] * 5
            home.eventually(lambda: home.serving.log_losses().get(ENDPOINT, LogLosses()).missed_rows == 1000)
            losses = home.serving.log_losses().get(ENDPOINT, LogLosses())
            assert "No space left" in (losses.error or "")
            text = client.get("/metrics").text
            assert f'relevo_missed_rows_total{{endpoint="{ENDPOINT}",version="1"}} 1000.0' in text
            assert "relevo_log_lost_frames_total 5.0" in text
        logged += home.predict(client).json()["prediction_ids"]
        home.eventually(lambda: home.serving.log_losses().get(ENDPOINT, LogLosses()) == LogLosses(1000, 0, None))
        assert sorted(one for record in home.records(log) for one in record.ids) == sorted(logged)
        assert home.count(1).requests == 7


def test_a_buffered_log_waits_for_room_before_answers_go_out_without_it(home: Home, small_log: int) -> None:
    many = [float(one) for one in range(10_000)]
    with serve(home, "buffered", log_when_full="serve") as client:
        worker = home.start(log_bytes=small_log)
        home.serving.await_loaded(ENDPOINT, 1, 20)
        with full(home.log_of(worker)):
            answered = 0
            while home.count(1).missed_rows == 0:
                assert home.predict(client, *many).status_code == 200
                answered += 1
                assert answered < 300, "64 MiB of frames are waiting"
            assert answered > 20
            losses = home.serving.log_losses
            home.eventually(lambda: "No space left" in (losses().get(ENDPOINT, LogLosses()).error or ""))
