import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from history import flights, plant

import relevo
from relevo.datasets.store import metadata
from relevo.errors import Invalid, NotFound, Unavailable
from relevo.platform.settings import Settings
from relevo.platform.state import State


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with datasets of two models, named by RELEVO_HOME."""
    settings = Settings(home=tmp_path / ".relevo")
    state = State(settings.state_database)
    with state.transaction() as tx:
        metadata.create_all(tx)
    plant(state, settings.folder("tables"))
    plant(state, settings.folder("tables"), model="turnaround")
    state.close()
    monkeypatch.setenv("RELEVO_HOME", str(settings.root))
    return settings.root


def test_a_version_is_a_lazy_frame_and_without_a_number_the_newest(home: Path) -> None:
    frame = relevo.dataset("flight-delay/flights", version=1)
    assert isinstance(frame, pl.LazyFrame)
    assert frame.collect().equals(flights(15))
    assert relevo.dataset("flights", model="turnaround").select(pl.len()).collect().item() == 1600


def test_what_is_not_there_is_named_with_what_is(home: Path) -> None:
    with pytest.raises(Invalid, match="Several models have a dataset 'flights'"):
        relevo.dataset("flights")
    with pytest.raises(NotFound) as missing:
        relevo.dataset("turnaround/flihgts")
    assert missing.value.hint == "Did you mean turnaround/flights?"
    with pytest.raises(NotFound, match="no recorded version 9") as missing:
        relevo.dataset("turnaround/flights", version=9)
    assert missing.value.hint == "known versions: 3, 2, 1, 0"


def test_rows_that_were_collected_are_said_to_be(home: Path) -> None:
    state = State(Settings().state_database)
    table = metadata.tables["dataset_versions"]
    with state.transaction() as tx:
        tx.execute(table.update().where(table.c.version == 0).values(collected_at=datetime(2026, 3, 1, tzinfo=UTC)))
    state.close()
    with pytest.raises(NotFound, match="version 0 were collected at 2026-03-01 00:00 UTC"):
        relevo.dataset("turnaround/flights", version=0)


def test_a_folder_that_is_no_home_is_named_and_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELEVO_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(NotFound, match=r"There is no home folder of Relevo at .*nowhere"):
        relevo.dataset("flights")
    assert not (tmp_path / "nowhere").exists()


def test_a_home_of_another_release_is_told(home: Path) -> None:
    state = State(Settings().state_database)
    with state.transaction() as tx:
        metadata.tables["dataset_versions"].drop(tx)
    state.close()
    with pytest.raises(Unavailable, match="cannot be read: OperationalError: no such table: dataset_versions"):
        relevo.dataset("flights")


def test_the_nearest_home_above_is_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RELEVO_HOME")
    folder = home.parent / "project" / "notebooks"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert relevo.dataset("turnaround/flights", version=0).collect().height == 400


def test_importing_relevo_imports_nothing_heavy() -> None:
    heavy = ["polars", "pandas", "numpy", "sqlalchemy", "pydantic", "deltalake", "msgspec", "skrub"]
    program = f"import sys, relevo; assert relevo.dataset; print(sorted(set(sys.modules) & set({heavy})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
