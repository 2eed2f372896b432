"""kill -9 of real processes: what was acknowledged is counted once, whoever dies and whenever."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from namespaces import IN_A_NAMESPACE
from relevo.errors import Conflict
from relevo.platform.settings import Settings
from relevo.predictions import collector as collecting
from relevo.predictions import tables
from relevo.predictions.backlog import segments
from relevo.predictions.collector import Collector
from relevo.predictions.frames import Record, encode
from relevo.predictions.ids import new_boot
from relevo.predictions.labels import Label, LabelIntake
from relevo.predictions.segments import SegmentWriter

RecordMaker = Callable[..., Record]
KNOWN_AT = datetime(2013, 8, 16, tzinfo=UTC)
WORKER = Path(__file__).with_name("logging_worker.py")


def _logged(settings: Settings, endpoint: str = "e") -> list[str]:
    found = tables.scan(settings.root / "predictions" / endpoint)
    assert found is not None
    return sorted(found.filter(pl.col("status") == "ok").collect()["prediction_id"])


def _drain(settings: Settings) -> Collector:
    collector = Collector(settings)
    while collector.round():
        pass
    collector.close()
    return collector


def _start_collector(settings: Settings, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "relevo.predictions.collector", *arguments],
        env={**os.environ, "RELEVO_HOME": str(settings.root)},
        stderr=subprocess.DEVNULL,
    )


def _until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.005)


def _run_worker(settings: Settings, log: Path, kill_after_lines: int | None) -> list[str]:
    """Run a worker until it has acknowledged so many ids, kill it, and give every id that it acknowledged."""
    arguments = [sys.executable, str(WORKER), str(settings.root), "-1" if kill_after_lines else "50"]
    with log.open("wb") as output, subprocess.Popen(arguments, stdout=output) as worker:
        if kill_after_lines:
            _until(lambda: log.stat().st_size > kill_after_lines * 37)
            worker.kill()
    return [line for line in log.read_text().splitlines(keepends=False) if len(line) == 36]


def test_every_prediction_that_a_killed_worker_acknowledged_is_counted_once(settings: Settings, tmp_path: Path) -> None:
    acknowledged = []
    for turn, lines in enumerate((200, 3000, None)):
        acknowledged += _run_worker(settings, tmp_path / f"acknowledged-{turn}", lines)
    collector = _drain(settings)
    logged = _logged(settings)
    assert len(acknowledged) > 3200
    assert len(logged) == len(set(logged))
    assert set(acknowledged) <= set(logged)
    assert collector.progress.damaged_bytes == 0
    assert segments(settings.folder("log")) == {}


def test_a_collector_that_is_killed_at_random_moves_everything_once(
    settings: Settings, record: RecordMaker, key: bytes
) -> None:
    records = [record(endpoint=f"e{n % 3}") for n in range(1500)]
    intake = LabelIntake(settings.database("labels"), key)

    async def write(some: list[Record]) -> None:
        writer = SegmentWriter(settings.folder("log"), "0", new_boot(), durable=False)
        for one in some:
            writer.append(encode(one))
            if random.random() < 0.1:
                await writer._write_buffered()
                writer._files.retire()
        await writer.close()

    def waiting() -> int:
        return len(segments(settings.folder("log")))

    def commits() -> int:
        return len(list(settings.root.glob("predictions/*/_delta_log/*.json")))

    random.seed(7)
    for turn in range(12):
        some = records[turn * 125 : turn * 125 + 125]
        asyncio.run(write(some))
        intake.record("e0", 1, [Label(one.ids[0], 1.0, KNOWN_AT) for one in some])
        before = (waiting(), commits())
        with _start_collector(settings) as collector:
            if turn % 2:
                _until(lambda before=before: waiting() < before[0])
            else:  # a table has its rows, and the segments are still there
                _until(lambda before=before: commits() > before[1])
            time.sleep(random.random() * 0.01)
            collector.kill()
    intake.close()
    _drain(settings)
    for n in range(3):
        assert _logged(settings, f"e{n}") == sorted(one.ids[0] for one in records if one.endpoint == f"e{n}")
    labels = tables.scan(settings.root / "labels" / "e0")
    assert labels is not None
    assert sorted(labels.collect()["prediction_id"]) == sorted(one.ids[0] for one in records)


def test_a_collector_that_is_asked_to_stop_drains_first(settings: Settings, record: RecordMaker) -> None:
    with _start_collector(settings) as collector:
        _until(lambda: (settings.folder("log") / "collector.json").exists())
        _run_worker(settings, settings.root / "acknowledged", None)
        collector.terminate()
        assert collector.wait(20) == 0
    assert len(_logged(settings)) == 100
    assert segments(settings.folder("log")) == {}


def test_a_second_collector_of_the_same_home_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "_LOCK_WAIT_SECONDS", 0.0)
    held = collecting._lock(settings)
    with pytest.raises(Conflict, match="Another collector"):
        collecting._lock(settings)
    os.close(held)


def test_a_collector_ends_with_its_parent(settings: Settings) -> None:
    code = (
        "import os, subprocess, sys, time; "
        "os.environ['RELEVO_SUPERVISOR'] = str(os.getpid()); "
        "child = subprocess.Popen([sys.executable, '-m', 'relevo.predictions.collector']); "
        "print(child.pid, flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "RELEVO_HOME": str(settings.root)}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        collector = int(parent.stdout.readline())
        _until(lambda: (settings.folder("log") / "collector.json").exists())
        os.kill(collector, 0)
        parent.send_signal(signal.SIGKILL)
    _until(lambda: not Path(f"/proc/{collector}").exists() or _is_zombie(collector))


def _is_zombie(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_full_file_system_refuses_requests_and_loses_none_that_it_acknowledged(
    settings: Settings, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run([*IN_A_NAMESPACE, "4096", str(small), "true"], capture_output=True).returncode != 0:
        pytest.skip("no user namespace with a tmpfs can be made here")
    program = [sys.executable, str(WORKER.with_name("filling_worker.py")), str(small), str(settings.folder("log"))]
    settings.folder("log").rmdir()  # it gets the copy
    done = subprocess.run([*IN_A_NAMESPACE, "1m", str(small), *program], capture_output=True, text=True, check=True)
    refused, *acknowledged = done.stdout.split()
    assert int(refused) > 0 and len(acknowledged) > 100
    collector = _drain(settings)
    assert set(acknowledged) <= set(_logged(settings))
    assert collector.progress.damaged_bytes == 0
