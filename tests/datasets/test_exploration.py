import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from history import flights, plant

from relevo.datasets.comparison import compare
from relevo.datasets.exploration import Exploration, Limits
from relevo.datasets.model import DatasetVersion
from relevo.datasets.overview import require_rows
from relevo.datasets.service import Datasets
from relevo.datasets.store import metadata
from relevo.datasets.tables import write_version
from relevo.errors import Invalid, JobFailed, NotFound, Overloaded, Unavailable
from relevo.platform.objects import Objects
from relevo.platform.settings import Settings
from relevo.platform.state import State

NAMES = ("scheduled_at", "flight_id")


@pytest.fixture
def home(tmp_path: Path):
    """Settings of a home with the tables of ``history``, and their recorded versions by number."""
    settings = Settings(home=tmp_path)
    state = State(settings.state_database)
    with state.transaction() as tx:
        metadata.create_all(tx)
    plant(state, settings.folder("tables"))
    yield settings, Datasets(state).versions("flight-delay", "flights")[::-1]
    state.close()


def exploration(settings: Settings, **limits: float) -> Exploration:
    return Exploration(settings, Objects(settings.folder("objects")), Limits(**limits))  # type: ignore[arg-type]


def test_a_comparison_is_that_of_the_frames_and_is_kept(home: tuple[Settings, list[DatasetVersion]]) -> None:
    settings, versions = home
    found = exploration(settings).compare(versions[1], versions[2], NAMES)
    assert found == compare(flights(15).lazy(), flights(20).lazy(), NAMES)
    assert (found.added, found.changed) == (200, 6)
    shutil.rmtree(settings.root / "tables")
    assert exploration(settings).compare(versions[1], versions[2], NAMES) == found
    with pytest.raises(JobFailed, match=r"The comparison of flight-delay/flights 1 and 2 failed.* has no version 1"):
        exploration(settings).compare(versions[1], versions[2], [])  # another question: it is computed


def test_a_profile_is_kept_by_content(home: tuple[Settings, list[DatasetVersion]]) -> None:
    settings, versions = home
    page = exploration(settings).profile(versions[0])
    assert "flight-delay/flights" in page and "All 400 rows." in page
    shutil.rmtree(settings.root / "tables")
    same = replace(versions[3], digest=versions[0].digest)
    assert exploration(settings).profile(same) == page


def test_limits_of_time_and_memory_are_told_and_leave_nothing(home: tuple[Settings, list[DatasetVersion]]) -> None:
    settings, versions = home
    with pytest.raises(Unavailable, match=r"version 3 was stopped: it took longer than 0.05 s.") as late:
        exploration(settings, seconds=0.05).profile(versions[3])
    assert late.value.hint is not None and "relevo.dataset" in late.value.hint
    rows = pl.DataFrame({"id": pl.int_range(1_500_000, eager=True)}).with_columns(
        pl.col("id").shuffle(seed).alias(f"x{seed}") for seed in range(6)
    )
    for frame in (rows, rows.with_columns(x0=pl.col("x1"))):
        write_version(settings.root / "tables/flight-delay/large", frame, {})
    large = [replace(versions[number], source="large") for number in (0, 1)]
    with pytest.raises(Unavailable, match=r"large 0 and 1 was stopped: it needs more memory than the 0.3 GB"):
        exploration(settings, memory_bytes=300_000_000).compare(*large, ["id"])
    assert not Objects(settings.folder("objects")).list()


def test_versions_of_two_datasets_are_not_compared(home: tuple[Settings, list[DatasetVersion]]) -> None:
    settings, versions = home
    with pytest.raises(Invalid, match="Expected two versions of one dataset, got flight-delay/flights version 0 and"):
        exploration(settings).compare(versions[0], replace(versions[1], source="weather"), NAMES)


def test_requests_beyond_the_places_are_refused_at_once(home: tuple[Settings, list[DatasetVersion]]) -> None:
    settings, versions = home
    busy = exploration(settings)
    busy._turn.acquire()  # a long comparison is under way
    outcomes: list[object] = []

    def ask(number: int) -> None:
        outcomes.append(busy.compare(versions[number], versions[3], NAMES))

    waiting = [threading.Thread(target=ask, args=(number % 3,)) for number in range(4)]
    for thread in waiting:
        thread.start()
    deadline = time.monotonic() + 30
    while busy._places._value and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(Overloaded, match="4 comparisons and profiles"):
        busy.compare(versions[0], versions[1], NAMES)
    busy._turn.release()
    for thread in waiting:
        thread.join(120)
    assert len(outcomes) == 4


def test_closing_ends_what_is_under_way(home: tuple[Settings, list[DatasetVersion]]) -> None:
    settings, versions = home
    closed = exploration(settings)
    closed.close()
    with pytest.raises(Unavailable, match="stops: the control plane is closing"):
        closed.compare(versions[0], versions[1], NAMES)


def test_collected_rows_are_told_with_the_day(home: tuple[Settings, list[DatasetVersion]]) -> None:
    _, versions = home
    assert require_rows(versions[0]) is versions[0]
    with pytest.raises(NotFound, match=r"version 0 were collected at 2026-01-11 00:00 UTC, since nothing refers"):
        require_rows(replace(versions[0], collected_at=versions[0].created_at))
