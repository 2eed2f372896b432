"""The log as it is read: windows of event time with their labels, flushes, counts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import polars as pl
import pytest

from relevo.errors import Unavailable
from relevo.platform.settings import Settings
from relevo.predictions.collector import run
from relevo.predictions.columns import PREDICTIONS, prediction_rows
from relevo.predictions.frames import Record, encode, marks
from relevo.predictions.ids import Issuer, is_unsampled, new_boot
from relevo.predictions.labels import Label, LabelIntake
from relevo.predictions.log import PredictionLog
from relevo.predictions.segments import SegmentWriter
from relevo.predictions.tables import LogTable, table_path

RecordMaker = Callable[..., Record]
HOUR = timedelta(hours=1)


@pytest.fixture
def log(settings: Settings) -> Iterator[PredictionLog]:
    log = PredictionLog(settings)
    yield log
    log.close()


@pytest.fixture
def intake(settings: Settings, key: bytes) -> Iterator[LabelIntake]:
    intake = LabelIntake(settings.database("labels"), key)
    yield intake
    intake.close()


@pytest.fixture
def collecting(settings: Settings) -> Iterator[None]:
    """The collector's loop, in a thread."""
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(settings, stop))
    thread.start()
    yield
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def _log_and_flush(settings: Settings, log: PredictionLog, records: list[Record], *, durable: bool = True) -> None:
    """Write as a gateway does, and flush while it is still running."""

    async def main() -> None:
        writer = SegmentWriter(settings.folder("log"), "0", new_boot(), durable)
        for record in records:
            writer.append(encode(record))
            await writer.durable()
        await asyncio.to_thread(log.flush, 20)
        await writer.close()

    asyncio.run(main())


def _microseconds(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000


def test_an_endpoint_without_predictions_gives_an_empty_typed_window(log: PredictionLog, asked_at: datetime) -> None:
    window = log.window("new", asked_at, asked_at + HOUR).collect()
    assert window.height == 0
    assert window.schema == pl.Schema(
        PREDICTIONS | {"label": pl.Float64(), "outcome": pl.String(), "known_at": pl.Datetime("us", "UTC")}
    )
    assert set(log.counts("new").values()) == {0}


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.usefixtures("collecting")
def test_a_flush_brings_all_that_was_acknowledged(
    settings: Settings, log: PredictionLog, record: RecordMaker, durable: bool
) -> None:
    _log_and_flush(settings, log, [record(2) for _ in range(100)], durable=durable)
    assert log.counts("flight-delay")["predictions_logged"] == 200


@pytest.mark.usefixtures("collecting")
def test_a_window_holds_what_was_asked_in_it_and_nothing_else(
    settings: Settings, log: PredictionLog, record: RecordMaker, asked_at: datetime
) -> None:
    times = [asked_at + minutes * timedelta(minutes=1) for minutes in (-1, 0, 59, 60)]
    _log_and_flush(settings, log, [record(at_us=_microseconds(at)) for at in times])
    assert sorted(log.window("flight-delay", asked_at, asked_at + HOUR).collect()["asked_at"]) == times[1:3]


@pytest.mark.usefixtures("collecting")
def test_predictions_carry_the_newest_label_that_was_known_by_then(
    settings: Settings, log: PredictionLog, intake: LabelIntake, record: RecordMaker, asked_at: datetime
) -> None:
    one = record(4)
    labels = [Label(one.ids[n], value, asked_at + (n + 1) * HOUR) for n, value in enumerate((1.0, 0.0, None))]
    intake.record("flight-delay", 1, labels)
    intake.record("flight-delay", 1, [Label(one.ids[0], 0.0, asked_at + 9 * HOUR)], correct=True)
    _log_and_flush(settings, log, [one])

    def window(known_by: datetime | None = None) -> list[tuple[object, ...]]:
        rows = log.window("flight-delay", asked_at, asked_at + HOUR, known_by=known_by)
        found = rows.select("prediction_id", "label", "outcome", "known_at").collect()
        return sorted(found.rows(), key=lambda row: one.ids.index(row[0]))

    first, second, third, fourth = one.ids
    nothing = (None, None, None)
    assert window() == [
        (first, 0.0, "known", asked_at + 9 * HOUR),
        (second, 0.0, "known", asked_at + 2 * HOUR),
        (third, None, "none", asked_at + 3 * HOUR),
        (fourth, *nothing),
    ]
    assert window(asked_at + 2 * HOUR) == [
        (first, 1.0, "known", asked_at + HOUR),
        (second, 0.0, "known", asked_at + 2 * HOUR),
        (third, *nothing),
        (fourth, *nothing),
    ]


@pytest.mark.usefixtures("collecting")
def test_labels_of_rows_that_the_sample_left_out_are_no_orphans(
    settings: Settings, log: PredictionLog, intake: LabelIntake, record: RecordMaker, key: bytes, asked_at: datetime
) -> None:
    issued = Issuer(key, 1, new_boot()).issue(_microseconds(asked_at), 200, 0.5)
    kept = [one for one in issued if not is_unsampled(one)]
    intake.record("flight-delay", 1, [Label(one, 1.0, asked_at) for one in issued])
    records = [record(ids=[one], sample=0.5) for one in kept[1:]]
    _log_and_flush(settings, log, records)
    counts = log.counts("flight-delay")
    assert counts["labels_unsampled"] == len(issued) - len(kept)
    assert (counts["labels_joined"], counts["orphans"], counts["unknown"]) == (len(kept) - 1, 1, 0)
    assert set(log.rows("flight-delay").collect()["sample"]) == {0.5}


@pytest.mark.usefixtures("collecting")
def test_counts_tell_orphans_duplicates_and_failures_apart(
    settings: Settings, log: PredictionLog, intake: LabelIntake, record: RecordMaker, asked_at: datetime
) -> None:
    logged, never_logged = record(3), record(2)
    failed = record(ids=[], predictions=[], status="failed", error="model failed")
    labels = [Label(one, 1.0, asked_at) for one in (*logged.ids[:2], *never_logged.ids)]
    intake.record("flight-delay", 1, labels)
    intake.record("flight-delay", 1, [*labels[:1], Label(logged.ids[1], 0.0, asked_at)])
    _log_and_flush(settings, log, [logged, failed])
    assert log.counts("flight-delay") == {
        "predictions_logged": 3,
        "rows_failed": 1,
        "labels": 4,
        "labels_joined": 2,
        "labels_unsampled": 0,
        "orphans": 2,
        "duplicates": 1,
        "conflicts": 1,
        "unknown": 0,
    }


def test_a_flush_without_a_collector_says_what_it_waited_for(
    settings: Settings, log: PredictionLog, intake: LabelIntake, record: RecordMaker, asked_at: datetime
) -> None:
    intake.record("flight-delay", 1, [Label(record().ids[0], 1.0, asked_at)])
    with pytest.raises(Unavailable, match=r"1 label to be collected; no collector has worked in this home"):
        log.flush(0.05)


def test_a_table_that_an_earlier_release_began_is_read_and_goes_on(
    settings: Settings, log: PredictionLog, record: RecordMaker, asked_at: datetime
) -> None:
    table = LogTable(table_path(settings.root, "predictions", "flight-delay"))
    table.append(prediction_rows([record()], {}).drop("looked_up"), {"old": 1})
    old = log.window("flight-delay", asked_at, asked_at + HOUR).collect()
    assert old["looked_up"].to_list() == [None]
    assert old["looked_up"].dtype == PREDICTIONS["looked_up"]
    table.append(prediction_rows([record(looked_up=marks([0]))], table.columns()), {"new": 1})
    both = log.window("flight-delay", asked_at, asked_at + HOUR).collect()
    assert sorted(both["looked_up"].to_list(), key=str) == [None, ["distance"]]
