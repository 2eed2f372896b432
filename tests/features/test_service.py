import os
import signal
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from relevo.contract.service import ContractService
from relevo.contract.upload import read_project
from relevo.errors import JobFailed, NotFound
from relevo.features.entries import encode_entry
from relevo.features.online import OnlineStore
from relevo.features.service import UNUSED_FOR, FeatureService
from relevo.identity.model import Principal, Role
from relevo.ledger.service import Ledger
from relevo.platform.clock import EventClock
from relevo.platform.objects import Objects
from relevo.platform.settings import Settings

START = datetime(2026, 1, 1, tzinfo=UTC)
ENGINEER = Principal("erin", Role.ENGINEER)

CONTRACT = """
model: delay
owner: ops
task: classification
package: trips
sources:
  trips: {loader: "trips.team:trips", key: [trip_id], event_time: at}
features: "trips.team"
ask: {source: trips, at: at, inputs: [place]}
label: {column: is_late, source: trips}
training: {entry: "trips.team:train", holdout: 1d}
"""

TEAM = """
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from relevo.features import Entity, FeatureView, count

trips_at_place = FeatureView(
    "trips_at_place", entity=Entity("place", key="place"), source="trips", features={"trips_3h": count(over="WINDOW")}
)
FOLDER = Path("TROUBLE")


def trips(since=None, until=None):
    if (FOLDER / "closed").exists():
        raise RuntimeError("the warehouse is closed")
    if (FOLDER / "kill").exists():
        (FOLDER / "kill").unlink()
        os.kill(os.getpid(), 9)
    at = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in range(48)]
    return pl.DataFrame({"trip_id": range(48), "place": "a", "at": at, "is_late": False})


def train(training, params):
    raise NotImplementedError
"""


@pytest.fixture
def contracts(state, tmp_path):
    settings = Settings(home=tmp_path / "home")
    return ContractService(state, Objects(settings.folder("objects")), settings, Ledger(state))


@pytest.fixture
def features(state, contracts, tmp_path):
    service = FeatureService(state, contracts, Settings(home=tmp_path / "home"), EventClock(state))
    yield service
    service.close()


def apply(contracts: ContractService, folder: Path, window: str = "3h", trouble: Path | None = None) -> None:
    project = folder / "project"
    (project / "trips").mkdir(parents=True, exist_ok=True)
    (project / "relevo.yaml").write_text(CONTRACT)
    (project / "trips" / "__init__.py").touch()
    (project / "trips" / "team.py").write_text(
        TEAM.replace("TROUBLE", str(trouble or folder)).replace("WINDOW", window)
    )
    contracts.apply(read_project(project), ENGINEER)


def trips(features: FeatureService, folder: Path, hour: float) -> object:
    store = OnlineStore(folder / "home" / "online.db")
    (row,) = store.lookup("delay", features.views("delay"), [{"place": "a"}], [START + timedelta(hours=hour)])
    store.close()
    return row["trips_3h"]


def test_a_model_is_materialised_by_one_child_that_survives_nothing_and_loses_nothing(contracts, features, tmp_path):
    apply(contracts, tmp_path)
    assert features.materialise("delay", START + timedelta(hours=1)).rows == 2
    child = features._children["delay", 1][1].pid
    assert features.materialise("delay", START + timedelta(hours=2)).rows == 1
    assert features._children["delay", 1][1].pid == child
    assert [trips(features, tmp_path, hour) for hour in (1, 2, 4, 5)] == [2, 3, 1, 0]

    os.kill(child, signal.SIGKILL)  # between calls
    assert features.materialise("delay", START + timedelta(hours=3)).rows == 1
    (tmp_path / "kill").touch()  # in the middle of a call
    assert features.materialise("delay", START + timedelta(hours=4)).rows == 1
    assert trips(features, tmp_path, 4) == 3

    (tmp_path / "closed").touch()
    with pytest.raises(JobFailed, match=r"RuntimeError: the warehouse is closed \(.*team.py"):
        features.materialise("delay", START + timedelta(hours=5))
    (tmp_path / "closed").unlink()
    assert features.materialise("delay", START + timedelta(hours=5)).through == START + timedelta(hours=5)

    apply(contracts, tmp_path, window="9h")
    assert features.materialise("delay", START + timedelta(hours=6)).rows == 7
    assert trips(features, tmp_path, 6) == 7


def test_a_revision_that_is_not_live_and_cannot_load_holds_up_no_live_one(contracts, features, tmp_path):
    apply(contracts, tmp_path)
    views = features.views("delay")
    assert features.materialise("delay", START + timedelta(hours=1), live_revisions={1}).rows == 2
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "closed").touch()
    apply(contracts, tmp_path, window="9h", trouble=tmp_path / "new")
    assert features.materialise("delay", START + timedelta(hours=2), live_revisions={1}).rows == 1
    with closing(OnlineStore(tmp_path / "home" / "online.db")) as store:
        (row,) = store.lookup("delay", views, [{"place": "a"}], [START + timedelta(hours=2)])
    assert row["trips_3h"] == 3
    with pytest.raises(JobFailed, match="the warehouse is closed"):
        features.materialise("delay", START + timedelta(hours=3), live_revisions={1, 2})


def test_views_that_nothing_declares_any_more_are_deleted_after_a_week(contracts, features, tmp_path):
    apply(contracts, tmp_path)
    features.materialise("delay", START + timedelta(hours=1))
    (old,) = features.fills("delay")
    apply(contracts, tmp_path, window="9h")
    features.materialise("delay", START + timedelta(hours=2), live_revisions={1})
    assert len(features.fills("delay")) == 2
    with closing(OnlineStore(tmp_path / "home" / "online.db")) as store:
        entry = store.record("delay").filled[old].generation + encode_entry(("a",))
        later = datetime.now(UTC) + UNUSED_FOR
        assert features.collect("delay", {1}, later) == []  # a live version uses it
        assert features.collect("delay", set(), later - timedelta(hours=1)) == []
        assert store.entries([entry]) != [None]
        assert features.collect("delay", set(), later + timedelta(hours=1)) == [old]
        assert store.entries([entry]) == [None]
    assert old not in features.fills("delay")
    assert trips(features, tmp_path, 2) == 3
    features.materialise("delay", START + timedelta(hours=3), live_revisions={1})  # a rollback fills it anew
    assert old in features.fills("delay")


def test_without_a_time_the_endpoint_s_own_event_time_counts(contracts, features, state, tmp_path):
    apply(contracts, tmp_path)
    with state.transaction() as tx:
        EventClock(state).start_replay(tx, "delay", START + timedelta(hours=7))
    assert features.materialise("delay").through == START + timedelta(hours=7)


def test_a_model_that_is_not_there_is_named(features):
    with pytest.raises(NotFound, match="delay"):
        features.materialise("delay", START)


def test_the_child_fills_redis_where_the_setting_names_one(state, contracts, tmp_path, redis_place):
    apply(contracts, tmp_path)
    settings = Settings(home=tmp_path / "home", online_url=redis_place)
    with closing(FeatureService(state, contracts, settings, EventClock(state))) as features:
        features.materialise("delay", START + timedelta(hours=10))
        with closing(OnlineStore(redis_place)) as store:
            (row,) = store.lookup("delay", features.views("delay"), [{"place": "a"}], [START + timedelta(hours=10)])
    assert row == {"trips_3h": 3}
    assert not (tmp_path / "home" / "online.db").exists()
