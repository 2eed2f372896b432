"""The segment writer: group commits, rotation, locks, and disks that do not take what is written."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relevo.errors import Conflict, Unavailable
from relevo.predictions import segment_files, segments
from relevo.predictions.backlog import closed_segments
from relevo.predictions.frames import Record, encode, scan
from relevo.predictions.ids import new_boot
from relevo.predictions.segments import SegmentWriter, ask_rotation, holder

RecordMaker = Callable[..., Record]


def _versions(log: Path) -> list[int | None]:
    """The versions of every record in the log, in order; they number the records in these tests."""
    files = sorted(log.glob("*/*.open")) + sorted(log.glob("*/*.seg"))
    return sorted(record.version for path in files for record in scan(path.read_bytes()))  # type: ignore[type-var]


async def _until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        await asyncio.sleep(0.005)


@contextmanager
def _file_size_limit(size: int) -> Iterator[None]:
    """Writes past ``size`` bytes fail in this process, as on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


def test_what_was_waited_for_is_in_the_file(tmp_path: Path, record: RecordMaker) -> None:
    async def main() -> None:
        writer = SegmentWriter(tmp_path, "0", new_boot(), durable=True)

        async def request(number: int) -> None:
            writer.append(encode(record(version=number)))
            await writer.durable()
            assert number in _versions(tmp_path)

        await asyncio.gather(*(request(number) for number in range(50)))
        await writer.close()

    asyncio.run(main())
    assert _versions(tmp_path) == list(range(50))


def test_all_who_wait_while_a_sync_runs_share_the_next_one(
    tmp_path: Path, record: RecordMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, sync = [], os.fdatasync

    def counted(descriptor: int) -> None:
        synced.append(descriptor)
        time.sleep(0.02)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", counted)

    async def main() -> None:
        writer = SegmentWriter(tmp_path, "0", new_boot(), durable=True)

        async def request(number: int) -> None:
            writer.append(encode(record(version=number)))
            await writer.durable()

        first = asyncio.create_task(request(0))
        await _until(lambda: bool(synced))
        await asyncio.gather(first, *(request(number) for number in range(1, 30)))
        assert len(synced) == 2
        await writer.close()

    asyncio.run(main())


def test_a_waiter_that_gives_up_takes_nobody_with_it(tmp_path: Path, record: RecordMaker) -> None:
    async def main() -> None:
        writer = SegmentWriter(tmp_path, "0", new_boot(), durable=True)
        writer.append(encode(record(version=1)))
        tasks = [asyncio.create_task(writer.durable()) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.gather(*tasks[1:])
        assert tasks[0].cancelled()
        await writer.close()

    asyncio.run(main())


def test_a_buffered_writer_answers_at_once_and_writes_soon(tmp_path: Path, record: RecordMaker) -> None:
    async def main() -> None:
        writer = SegmentWriter(tmp_path, "0", new_boot(), durable=False)
        writer.append(encode(record(version=1)))
        await writer.durable()
        assert _versions(tmp_path) == []
        await _until(lambda: _versions(tmp_path) == [1])
        await writer.close()

    asyncio.run(main())


def test_closing_drains_what_is_buffered_and_releases_the_lock(tmp_path: Path, record: RecordMaker) -> None:
    async def main() -> None:
        writer = SegmentWriter(tmp_path, "0", boot := new_boot(), durable=False)
        assert (found := holder(tmp_path / "0")) is not None and found.boot == boot
        writer.append(encode(record(version=1)))
        await writer.close()
        await writer.close()
        with pytest.raises(Unavailable, match="stopping"):
            writer.append(b"late")

    asyncio.run(main())
    assert _versions(tmp_path) == [1]
    assert [path.suffix for path in (tmp_path / "0").glob("*-*")] == [".seg"]
    assert holder(tmp_path / "0") is None


def test_a_segment_is_closed_after_a_second_without_more_traffic(tmp_path: Path, record: RecordMaker) -> None:
    async def main() -> None:
        writer = SegmentWriter(tmp_path, "0", new_boot(), durable=True)
        writer.append(encode(record()))
        await writer.durable()
        assert closed_segments(tmp_path) == []
        await _until(lambda: len(closed_segments(tmp_path)) == 1)
        await writer.close()

    asyncio.run(main())


def test_a_large_segment_is_closed_and_the_next_one_begins(
    tmp_path: Path, record: RecordMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_files, "MAX_SEGMENT_BYTES", 1000)

    async def main() -> None:
        writer = SegmentWriter(tmp_path, "0", new_boot(), durable=True)
        for number in range(20):
            writer.append(encode(record(version=number)))
            await writer.durable()
        await writer.close()

    asyncio.run(main())
    closed = closed_segments(tmp_path)
    assert [segment.name.sequence for segment in closed] == list(range(1, len(closed) + 1)) and len(closed) > 3
    assert _versions(tmp_path) == list(range(20))


@pytest.mark.parametrize("durable", [True, False])
def test_a_rotation_closes_all_that_was_appended_before_it(tmp_path: Path, record: RecordMaker, durable: bool) -> None:
    async def main() -> None:
        writer = SegmentWriter(tmp_path, "0", new_boot(), durable)
        writer.append(encode(record(version=1)))
        marked = ask_rotation(tmp_path)
        await _until(lambda: (found := holder(tmp_path / "0")) is not None and found.rotated_ns >= marked)
        assert len(closed_segments(tmp_path)) == 1
        assert ask_rotation(tmp_path) > marked
        await writer.close()

    asyncio.run(main())


def test_a_rotation_is_followed_under_constant_load(tmp_path: Path, record: RecordMaker) -> None:
    async def main() -> None:
        writer = SegmentWriter(tmp_path, "0", new_boot(), durable=True)
        is_over = False

        async def load() -> None:
            while not is_over:
                writer.append(encode(record()))
                await writer.durable()

        tasks = [asyncio.create_task(load()) for _ in range(16)]
        marked = ask_rotation(tmp_path)
        await _until(lambda: (found := holder(tmp_path / "0")) is not None and found.rotated_ns >= marked)
        is_over = True
        await asyncio.gather(*tasks)
        await writer.close()

    asyncio.run(main())


def test_a_second_writer_of_the_same_worker_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_LOCK_WAIT_SECONDS", 0.05)

    async def main() -> None:
        writer = SegmentWriter(tmp_path, "0", new_boot(), durable=True)
        with pytest.raises(Conflict, match="Another process"):
            SegmentWriter(tmp_path, "0", new_boot(), durable=True)
        SegmentWriter(tmp_path, "1", new_boot(), durable=True)._maintenance.cancel()
        await writer.close()

    asyncio.run(main())


def test_a_full_disk_is_said_to_who_waits_and_what_was_acknowledged_stays(tmp_path: Path, record: RecordMaker) -> None:
    async def main() -> None:
        writer = SegmentWriter(tmp_path, "0", new_boot(), durable=True)

        async def request(number: int) -> None:
            writer.append(encode(record(version=number)))
            await writer.durable()

        await request(1)
        with _file_size_limit(350), pytest.raises(Unavailable, match="could not be written"):
            await request(2)
        assert (writer.failures, writer.lost_frames) == (1, 1)
        await request(3)
        await writer.close()

    asyncio.run(main())
    assert _versions(tmp_path) == [1, 3]
    assert [segment.name.sequence for segment in closed_segments(tmp_path)] == [1, 2]
    for segment in closed_segments(tmp_path):
        found = scan(segment.read())
        assert len(list(found)) == 1 and found.torn_bytes == found.damaged_bytes == 0


def test_a_disk_that_hangs_is_said_to_who_waits_and_what_was_refused_is_not_in_the_log(
    tmp_path: Path, record: RecordMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, began, sync = threading.Event(), threading.Event(), os.fdatasync
    answers.set()

    def hanging(descriptor: int) -> None:
        began.set()
        assert answers.wait(30)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", hanging)

    async def main() -> None:
        writer = SegmentWriter(tmp_path, "0", new_boot(), durable=True, patience_seconds=0.3)

        async def request(number: int) -> None:
            writer.append(encode(record(version=number)))
            await writer.durable()

        await request(1)
        answers.clear()
        began.clear()
        second = asyncio.create_task(request(2))
        await _until(began.is_set)
        third = asyncio.create_task(request(3))  # waits behind it
        for refused in (second, third):
            with pytest.raises(Unavailable, match=r"has not answered for 0\.3 s"):
                await refused
        with pytest.raises(Unavailable, match="has not answered"):
            writer.append(encode(record(version=4)))  # at once, for as long as it hangs
        assert (writer.failures, writer.lost_frames) == (1, 2)
        assert writer.error is not None
        answers.set()
        await _until(lambda: writer.error is None)
        await request(5)
        await writer.close()

    asyncio.run(main())
    assert _versions(tmp_path) == [1, 5]


def test_a_buffered_writer_keeps_what_a_full_disk_refused_and_tries_again(tmp_path: Path, record: RecordMaker) -> None:
    async def main() -> None:
        writer = SegmentWriter(tmp_path, "0", new_boot(), durable=False)
        with _file_size_limit(10):
            writer.append(encode(record(version=1)))
            await _until(lambda: writer.failures > 0)
        writer.append(encode(record(version=2)))
        await _until(lambda: _versions(tmp_path) == [1, 2])
        assert writer.lost_frames == 0
        await writer.close()

    asyncio.run(main())


def test_a_disk_that_does_not_keep_up_bounds_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "MAX_BUFFER_BYTES", 100)

    async def main() -> None:
        writer = SegmentWriter(tmp_path, "0", new_boot(), durable=True)
        writer.append(bytes(90))
        with pytest.raises(Unavailable, match="wait for the disk"):
            writer.append(bytes(20))
        await writer.close()

    asyncio.run(main())


def test_an_open_segment_counts_as_closed_only_when_its_boot_is_gone(tmp_path: Path, record: RecordMaker) -> None:
    folder = tmp_path / "0"
    folder.mkdir()
    (folder / f"{5:016x}-00000001.open").write_bytes(encode(record()))

    async def main() -> None:
        writer = SegmentWriter(tmp_path, "0", boot := new_boot(), durable=True)
        writer.append(encode(record()))
        await writer.durable()
        assert [(segment.name.boot, segment.was_abandoned) for segment in closed_segments(tmp_path)] == [(5, True)]
        ask_rotation(tmp_path)
        await _until(lambda: len(closed_segments(tmp_path)) == 2)
        assert {segment.name.boot for segment in closed_segments(tmp_path)} == {5, boot}
        await writer.close()

    asyncio.run(main())
