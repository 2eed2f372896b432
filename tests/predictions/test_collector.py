"""The collector: exactly once from segments and labels to tables, whatever it finds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from relevo.platform.settings import Settings
from relevo.platform.state import State
from relevo.predictions import frames, tables
from relevo.predictions.collector import Collector
from relevo.predictions.frames import Record, encode
from relevo.predictions.ids import Issuer, new_boot
from relevo.predictions.labels import Label, LabelIntake
from relevo.predictions.progress import read_progress
from relevo.predictions.segments import SegmentWriter
from relevo.predictions.tables import LogTable

RecordMaker = Callable[..., Record]


@pytest.fixture
def collector(settings: Settings) -> Iterator[Collector]:
    collector = Collector(settings)
    yield collector
    collector.close()


def _write(settings: Settings, *segments: list[Record], worker: str = "0") -> list[Path]:
    """Write each list of records as a closed segment of a new worker boot; gives the files."""

    async def main() -> None:
        boot = new_boot()
        writer = SegmentWriter(settings.folder("log"), worker, boot, durable=False)
        for records in segments:
            for record in records:
                writer.append(encode(record))
            await writer._write_buffered()
            writer._files.retire()
        await writer.close()

    asyncio.run(main())
    return sorted(settings.folder("log", worker).glob("*.seg"))


def _drain(collector: Collector) -> None:
    while collector.round():
        pass


def _table(settings: Settings, endpoint: str = "flight-delay", kind: str = "predictions") -> pl.DataFrame:
    found = tables.scan(settings.root / kind / endpoint)
    assert found is not None
    return found.collect()


def _left(settings: Settings) -> list[Path]:
    return sorted(settings.folder("log").glob("*/*-*"))


def test_closed_segments_become_rows_and_are_deleted(
    settings: Settings, collector: Collector, record: RecordMaker
) -> None:
    records = [record(3) for _ in range(10)]
    _write(settings, records[:5], records[5:])
    _drain(collector)
    assert _table(settings)["prediction_id"].to_list() == [one for record in records for one in record.ids]
    assert _left(settings) == []
    progress = read_progress(settings.folder("log"))
    assert progress is not None
    assert (progress.segments, progress.frames, progress.rows, progress.errors) == (2, 10, 30, 0)


def test_a_segment_that_is_found_again_adds_nothing(
    settings: Settings, collector: Collector, record: RecordMaker
) -> None:
    files = _write(settings, [record()], [record(endpoint="other")], [record()])
    kept = {path: path.read_bytes() for path in files}
    _drain(collector)
    for path, data in kept.items():
        path.write_bytes(data)
    again = Collector(settings)
    _drain(again)
    again.close()
    assert (_table(settings).height, _table(settings, "other").height) == (2, 1)
    assert _left(settings) == []


def test_a_crash_between_the_tables_of_one_segment_repeats_only_what_is_missing(
    settings: Settings, collector: Collector, record: RecordMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(settings, [record(endpoint="first"), record(endpoint="second")])
    append = LogTable.append

    def broken(table: LogTable, rows: pl.DataFrame, transactions: dict[str, int]) -> None:
        if table._path.name == "second":
            raise OSError("no space left on device")
        append(table, rows, transactions)

    monkeypatch.setattr(LogTable, "append", broken)
    with pytest.raises(OSError, match="no space"):
        collector.round()
    progress = read_progress(settings.folder("log"))
    assert progress is not None and progress.errors == 1 and "no space" in str(progress.last_error)
    assert len(_left(settings)) == 1
    monkeypatch.undo()
    _drain(collector)
    assert (_table(settings, "first").height, _table(settings, "second").height) == (1, 1)
    assert _left(settings) == []
    assert collector.progress.last_error is None


def test_the_torn_tail_of_a_dead_worker_is_cut_and_counted(
    settings: Settings, collector: Collector, record: RecordMaker
) -> None:
    [path] = _write(settings, [record(), record()])
    path.write_bytes(path.read_bytes() + encode(record())[:40])
    path.rename(path.with_suffix(".open"))
    _drain(collector)
    assert _table(settings).height == 2
    assert (collector.progress.torn_tails, collector.progress.torn_bytes) == (1, 40)
    assert collector.progress.damaged_segments == 0
    assert _left(settings) == []


def test_a_damaged_segment_gives_what_can_be_read_and_is_kept_aside(
    settings: Settings, collector: Collector, record: RecordMaker
) -> None:
    [path] = _write(settings, [record() for _ in range(5)])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    _drain(collector)
    assert _table(settings).height == 4
    assert collector.progress.damaged_segments == 1
    assert collector.progress.damaged_bytes == len(data) // 5
    [kept] = settings.folder("log", "damaged").iterdir()
    assert kept.read_bytes() == bytes(data)


def test_a_record_that_no_table_can_hold_is_kept_aside_and_stops_nobody(
    settings: Settings, collector: Collector, record: RecordMaker
) -> None:
    _write(settings, [record(endpoint="../../etc"), record(inputs=[[1.0]]), record()])
    _drain(collector)
    assert _table(settings).height == 1
    assert collector.progress.misfits == 2
    assert len(list(settings.folder("log", "damaged").iterdir())) == 1


def test_a_later_version_may_add_and_retype_inputs(
    settings: Settings, collector: Collector, record: RecordMaker
) -> None:
    _write(settings, [record()])
    _drain(collector)
    layout = frames.layout([("distance", "text"), ("engine size", "integer")])
    for _ in range(2):
        _write(settings, [record(layout=layout, inputs=[["far", 4]], keys=[], version=4)])
        _drain(collector)
    rows = _table(settings).sort("version")
    assert rows["x_distance"].to_list() == [1400.0, None, None]
    assert rows["x_distance:text"].to_list() == [None, "far", "far"]
    assert rows["x_engine size"].to_list() == [None, 4, 4]


def test_compaction_leaves_readers_and_transactions_alone(
    settings: Settings, collector: Collector, record: RecordMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "COMMITS_A_COMPACTION", 5)
    for _ in range(4):
        _write(settings, [record()])
        _drain(collector)
    before = tables.scan(settings.root / "predictions" / "flight-delay")
    [path] = _write(settings, [record()])
    data = path.read_bytes()
    _drain(collector)
    assert before is not None and before.collect().height == 4
    assert _table(settings).height == 5
    assert len(DeltaTable(str(settings.root / "predictions" / "flight-delay")).file_uris()) == 1
    path.write_bytes(data)
    again = Collector(settings)
    _drain(again)
    again.close()
    assert _table(settings).height == 5


@pytest.mark.parametrize("broken", ["commit", "data", "checkpoint"])
def test_a_commit_that_a_power_cut_left_unsynced_is_made_again(
    settings: Settings, collector: Collector, record: RecordMaker, broken: str
) -> None:
    for _ in range(2):
        _write(settings, [record()])
        _drain(collector)
    path = settings.root / "predictions" / "flight-delay"
    [segment] = _write(settings, [record()])
    data = segment.read_bytes()
    old = set(path.glob("*.parquet"))
    _drain(collector)
    if broken == "commit":
        (path / "_delta_log" / f"{2:020d}.json").write_bytes(b"")
    elif broken == "data":
        (set(path.glob("*.parquet")) - old).pop().write_bytes(b"")
    else:
        DeltaTable(str(path)).create_checkpoint()
        (path / "_delta_log" / f"{2:020d}.checkpoint.parquet").write_bytes(bytes(100))
    segment.write_bytes(data)
    again = Collector(settings)
    _drain(again)
    again.close()
    assert _table(settings).height == 3


def test_labels_are_moved_once_in_their_order(state: State, tmp_path: Path, issuer: Issuer, key: bytes) -> None:
    url = state.url.render_as_string(hide_password=False)
    settings = Settings(home=tmp_path / "home", state_url=url)
    intake, known_at = LabelIntake(url, key), datetime(2013, 8, 16, tzinfo=UTC)
    ids = issuer.issue(0, 30)
    for start in range(0, 30, 10):
        collector = Collector(settings)
        intake.record("e", 1, [Label(one, 1.0, known_at) for one in ids[start : start + 10]])
        intake.record("f", 1, [Label(one, None, known_at) for one in issuer.issue(0, 2)])
        _drain(collector)
        intake.record("e", 1, [Label(ids[start], 0.0, known_at + timedelta(days=1))], correct=True)
        _drain(collector)
        collector.close()
    labels = _table(settings, "e", "labels")
    assert sorted(labels.filter(pl.col("revision") == 1)["prediction_id"]) == sorted(ids)
    assert sorted(labels.filter(pl.col("revision") == 2)["prediction_id"]) == sorted(ids[::10])
    assert _table(settings, "f", "labels")["outcome"].to_list() == ["none"] * 6
    intake.close()
