import subprocess
import sys
import uuid
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import polars as pl
import pytest
from feature_reference import EXACT_VIEWS, SOURCE, START, VIEWS, asked_rows, event_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_server import forget
from relevo.contract.model import Source
from relevo.datasets.loading import read_source
from relevo.errors import Conflict
from relevo.features import Entity, FeatureView, count, latest, minimum
from relevo.features.materialise import Materialiser
from relevo.features.model import Aggregation
from relevo.features.online import KEPT_BEFORE, OnlineStore
from relevo.features.point_in_time import attach

UTC_TIME = pl.Datetime("us", "UTC")
SCHEMA = {
    "id": pl.Int64,
    "place": pl.String,
    "gate": pl.Int64,
    "happened_at": UTC_TIME,
    "known_at": UTC_TIME,
    "x": pl.Float64,
    "text": pl.String,
}
ALL_VIEWS = (*VIEWS, *EXACT_VIEWS)
DEVIATIONS = {
    feature.name for view in ALL_VIEWS for feature in view.features if feature.aggregation is Aggregation.DEVIATION
}
ASKED = {"place": pl.String, "gate": pl.Int64, "at": UTC_TIME}

_team = ModuleType("m")
_team.rows = []
_team.calls = []


def _events(since=None, until=None):
    _team.calls.append((since, until))
    return pl.DataFrame([{"id": number, **row} for number, row in enumerate(_team.rows)], schema=SCHEMA)


_team.events = _events
_team.planes = lambda: pl.DataFrame({"tailnum": ["n1", "n2"], "seats": [100, _team.seats]})


@pytest.fixture(autouse=True, scope="module")
def team():
    """The team's package, as if it were imported: its loader gives ``rows`` and ignores its limits."""
    sys.modules["m"] = _team
    yield _team
    del sys.modules["m"]


@pytest.fixture(params=["sqlite", "redis"])
def place(request, tmp_path):
    """Where an online store is: everything here holds for both."""
    return tmp_path / "online.db" if request.param == "sqlite" else request.getfixturevalue("redis_place")


@pytest.fixture
def store(place):
    with closing(OnlineStore(place)) as opened:
        yield opened


def materialiser(store: OnlineStore, views=VIEWS, sources=(SOURCE,), origin="code-1", **options) -> Materialiser:
    return Materialiser(
        store, model="delay", views=views, sources=sources, package=Path(__file__).parent, origin=origin, **options
    )


def offline(asked: list[dict], through, views=VIEWS) -> list[dict]:
    """The values that training sees; a deviation may differ in its last digits."""
    table = read_source(SOURCE, Path(__file__).parent, until=through).lazy()
    spine = pl.LazyFrame(asked, schema=ASKED)
    found = attach(spine, views, {"events": table}, sources=[SOURCE], at="at").drop(ASKED).collect().to_dicts()
    for row in found:
        for name in row.keys() & DEVIATIONS:
            row[name] = None if row[name] is None else pytest.approx(row[name], rel=1e-12, abs=1e-12)
    return found


def online(store: OnlineStore, asked: list[dict], views=VIEWS) -> list[dict]:
    return store.lookup("delay", views, asked, [row["at"] for row in asked])


def hours(number: float):
    return START + timedelta(hours=number)


def event(hour: float, known: float | None = None, **values) -> dict:
    times = {"happened_at": hours(hour), "known_at": hours(hour if known is None else known)}
    return {"place": "a", "gate": 1, "x": 1.0, "text": "p", **times, **values}


any_views = st.one_of(st.just(ALL_VIEWS), st.lists(st.sampled_from(ALL_VIEWS), min_size=1, unique=True))
steps = st.lists(st.tuples(st.integers(0, 44), any_views), min_size=1, max_size=4).map(
    lambda steps: sorted(((hours(half / 2), views) for half, views in steps), key=lambda step: step[0])
)


def serve_and_compare(place, events, asked, steps, part_rows):
    _team.rows = events
    asked = [row for row in asked if row["at"] is not None]
    with closing(OnlineStore(place)) as store:
        for until, views in steps:
            # Another process each time, that keeps nothing in memory, and other views: revisions of a model share some.
            materialiser(store, views, part_rows=part_rows).materialise(until)
            assert online(store, asked, views) == offline(asked, until, views)
            assert store.materialised_through("delay") == until


@settings(max_examples=60, deadline=None)
@given(event_rows, asked_rows, steps, st.sampled_from([2, 1000]))
def test_what_is_served_equals_what_is_trained_on(events, asked, steps, part_rows):
    with TemporaryDirectory() as folder:
        serve_and_compare(Path(folder) / "online.db", events, asked, steps, part_rows)


@settings(max_examples=25, deadline=None)
@given(event_rows, asked_rows, steps, st.sampled_from([2, 1000]))
def test_what_redis_serves_equals_what_is_trained_on(redis_server, events, asked, steps, part_rows):
    prefix = f"relevo-test-{uuid.uuid4().hex[:12]}"
    try:
        serve_and_compare(f"{redis_server}?prefix={prefix}", events, asked, steps, part_rows)
    finally:
        forget(redis_server, prefix)


def test_the_steps_to_a_state_and_their_repetition_do_not_matter(tmp_path, store):
    _team.rows = [event(hour, known=hour + hour % 5, x=hour / 7, place="ab"[hour % 2]) for hour in range(120)]
    at_once = OnlineStore(tmp_path / "at_once.db")
    asked = [
        {"place": place, "gate": 1, "at": hours(hour)} for place in "ab" for hour in (97, 109.5, 119, 120, 124, 200)
    ]
    running = materialiser(store, ALL_VIEWS)
    for hour in [*range(0, 120, 3), 119, 120, 120]:
        running.materialise(hours(hour))
    materialiser(at_once, ALL_VIEWS).materialise(hours(120))
    assert online(store, asked, ALL_VIEWS) == online(at_once, asked, ALL_VIEWS)
    assert online(store, asked, ALL_VIEWS) == offline(asked, hours(120), ALL_VIEWS)
    at_once.close()


def test_what_is_filled_already_writes_nothing(store):
    _team.rows = [event(1)]
    running = materialiser(store)
    running.materialise(hours(120))
    before = store.record("delay")
    assert running.materialise(hours(120)).rows == 0
    assert running.materialise(hours(50)).through == hours(120)
    assert store.record("delay") == before


def test_only_what_is_newer_is_asked_of_the_loader(store):
    _team.rows, _team.calls[:] = [event(1), event(2)], []
    running = materialiser(store)
    assert running.materialise(hours(1)).rows == len(VIEWS)
    assert running.materialise(hours(3)).rows == len(VIEWS)
    assert _team.calls == [(None, hours(1)), (hours(1), hours(3))]


def test_what_fills_a_missing_value(store):
    _team.rows = [event(1, x=None, text=None)]
    view = FeatureView(
        "filled",
        entity=VIEWS[0].entity,
        source="events",
        features={"x": latest("x", default=5), "low": minimum("x", over="1h", default=-1), "n": count(over="1h")},
    )
    asked = [{"place": place, "gate": 1, "at": hours(1)} for place in ("a", "b", None)]
    assert online(store, asked, [view]) == [{"x": 5, "low": -1.0, "n": None}] * 3
    materialiser(store, [view]).materialise(hours(1))
    found = store.find("delay", [view], asked, [hours(1)] * 3)
    assert found.rows == [{"x": 5, "low": -1.0, "n": number} for number in (1, 0, None)]
    assert found.without_rows == {"filled": [1, 2]}
    assert store.find("delay", [view], asked[:1], [hours(0)]).without_rows == {"filled": [0]}


def test_views_of_an_entity_that_are_filled_together_are_read_as_one_entry(store, monkeypatch):
    _team.rows = [event(hour, place=place) for hour in range(3) for place in "abc"]
    views = [VIEWS[0], VIEWS[2], EXACT_VIEWS[0]]
    materialiser(store, views).materialise(hours(3))
    read: list[int] = []
    original = store.storage.read
    monkeypatch.setattr(store.storage, "read", lambda names: (read.append(len(names)), original(names))[1])
    asked = [{"place": place, "gate": 1, "at": hours(2)} for place in "abcb"]
    online(store, asked, views)  # finds out where the entries are
    read.clear()
    for rows in (1, 4):
        assert online(store, asked[:rows], views) == offline(asked[:rows], hours(3), views)
    assert read == [1 + 1, 1 + 3]  # the record, and an entry for each entity


@pytest.mark.parametrize(("part_rows", "key"), [(2, "tailnum"), (2, "part"), (2, "rows"), (1000, "tailnum")])
def test_views_of_an_entity_may_know_different_ones(store, part_rows, key):
    planes = Source("planes", "m:cabins", (key,))
    pilots = Source("pilots", "m:pilots", (key,))
    _team.cabins = lambda: pl.DataFrame({key: ["n1", "n2"], "seats": [100, 200]})
    _team.pilots = lambda: pl.DataFrame({key: ["n0", "n2", "n3"], "pilot": ["x", "y", None]})
    entity = Entity("plane", key=key)
    views = [
        FeatureView("planes", entity=entity, source="planes", features={"seats": latest("seats")}),
        FeatureView("pilots", entity=entity, source="pilots", features={"pilot": latest("pilot")}),
    ]
    materialiser(store, views=views, sources=[planes, pilots], part_rows=part_rows).materialise(hours(1))
    asked = [{key: f"n{number}", "at": hours(0)} for number in range(5)]
    found = store.find("delay", views, asked, [hours(0)] * 5)
    assert [tuple(row.values()) for row in found.rows] == [
        (None, "x"), (100, None), (200, "y"), (None, None), (None, None)
    ]  # fmt: skip
    assert found.without_rows == {"planes": [0, 3, 4], "pilots": [1, 4]}
    assert store.find("delay", views, asked[3:4], [hours(0)]).without_rows == {"planes": [0]}


def test_a_writer_of_one_view_does_not_undo_what_another_wrote_to_the_same_entry(store, monkeypatch):
    _team.rows = [event(hour) for hour in range(4)]
    one, other = VIEWS[0], VIEWS[2]
    materialiser(store, [one, other]).materialise(hours(1))
    stale = store.record("delay")
    materialiser(store, [other]).materialise(hours(3))
    running = materialiser(store, [one])
    monkeypatch.setattr(store, "record", lambda model: stale)
    with pytest.raises(Conflict, match="filled by another process"):
        running.materialise(hours(3))
    monkeypatch.undo()
    running.materialise(hours(3))
    asked = [{"place": "a", "gate": 1, "at": hours(3)}]
    assert online(store, asked, [one, other]) == offline(asked, hours(3), [one, other])


def test_a_window_empties_by_itself(store):
    _team.rows = [event(1)]
    materialiser(store).materialise(hours(1))
    asked = [{"place": "a", "gate": 1, "at": hours(hour)} for hour in (1, 2.9, 3, 90)]
    assert [row["n_2h"] for row in online(store, asked)] == [1, 1, 0, 0]
    assert [row["last_x"] for row in online(store, asked)] == [1.0, 1.0, 1.0, None]


def test_what_is_no_longer_kept_is_unknown_not_wrong(store):
    _team.rows = [event(hour) for hour in range(200)]
    materialiser(store).materialise(hours(199))
    asked = [{"place": "a", "gate": 1, "at": hours(199) - KEPT_BEFORE}, {"place": "a", "gate": 1, "at": hours(100)}]
    kept, forgotten = online(store, asked)
    assert (kept["n_6h"], kept["mean_6h"]) == (6, 1.0)
    assert forgotten["n_6h"] is None and forgotten["mean_6h"] is None and forgotten["ever_x"] is None


def test_a_key_that_is_null_missing_or_unknown(store):
    _team.rows = [event(1)]
    materialiser(store).materialise(hours(2))
    null, missing, unknown = store.lookup(
        "delay", VIEWS, [{"place": None, "gate": 1}, {"gate": 1}, {"place": "z", "gate": 1}], [hours(2)] * 3
    )
    assert null == missing
    assert (null["n_2h"], null["last_x"], null["sum_2h"]) == (None, None, None)
    assert (unknown["n_2h"], unknown["last_x"], unknown["sum_2h"], unknown["mean_6h"]) == (0, None, 0.0, None)
    assert store.lookup("delay", VIEWS, [], []) == []


def test_a_view_that_was_never_filled_knows_nothing(store):
    asked = [{"place": "a", "gate": 1, "at": hours(1)}]
    assert set(online(store, asked)[0].values()) == {None}
    assert store.materialised_through("delay") is None
    assert store.find("delay", VIEWS, asked, [hours(1)]).materialised_through is None


def test_more_entities_than_fit_in_a_statement(store):
    _team.rows = [event(1, place=str(number), x=float(number)) for number in range(1200)]
    materialiser(store).materialise(hours(1))
    asked = [{"place": str(number), "gate": 1, "at": hours(1)} for number in range(1200)]
    found = store.find("delay", VIEWS, asked, [hours(1)] * 1200)
    assert [row["ever_x"] for row in found.rows] == [float(number) for number in range(1200)]
    assert found.materialised_through == hours(1)


def test_changed_code_computes_everything_anew(store):
    _team.rows = [event(1, x=1.0), event(2, x=2.0)]
    materialiser(store).materialise(hours(2))
    _team.rows = [event(1, x=5.0, place="b")]
    assert materialiser(store).materialise(hours(3)).rows == 0
    assert materialiser(store, origin="code-2").materialise(hours(3)).rows == len(VIEWS)
    asked = [{"place": place, "gate": 1, "at": hours(3)} for place in "ab"]
    assert [row["ever_x"] for row in online(store, asked)] == [None, 5.0]


def test_two_definitions_of_a_view_are_served_side_by_side(store):
    _team.rows = [event(1, x=1.0), event(2, x=2.0)]
    longer = (FeatureView("windows", entity=VIEWS[2].entity, source="events", features={"n_2h": count(over="9h")}),)
    materialiser(store, views=VIEWS[2:3]).materialise(hours(4))
    materialiser(store, views=longer).materialise(hours(4))
    asked = [{"place": "a", "gate": 1, "at": hours(4)}]
    assert online(store, asked, VIEWS[2:3])[0]["n_2h"] == 0
    assert online(store, asked, longer)[0]["n_2h"] == 2


def test_a_second_writer_is_refused_and_changes_nothing(store, monkeypatch):
    _team.rows = [event(1)]
    materialiser(store).materialise(hours(1))
    stale = store.record("delay")
    materialiser(store).materialise(hours(2))
    running = materialiser(store)
    monkeypatch.setattr(store, "record", lambda model: stale)
    with pytest.raises(Conflict, match="filled by another process"):
        running.materialise(hours(3))
    monkeypatch.undo()
    assert store.materialised_through("delay") == hours(2)


def test_a_loader_that_fails_leaves_the_store_as_it_was(store, monkeypatch):
    _team.rows = [event(1)]
    running = materialiser(store)
    running.materialise(hours(1))
    with monkeypatch.context() as broken:
        broken.setattr(_team, "events", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            running.materialise(hours(2))
    assert store.materialised_through("delay") == hours(1)
    assert running.materialise(hours(2)).through == hours(2)


def test_rows_that_a_load_sets_apart_are_not_served(store):
    _team.rows = [event(1, x=1.0), event(2, x=-5.0)]
    _team.positive = lambda frame: frame["x"] < 0
    source = replace(SOURCE, checks="m:positive", on_failure="quarantine")
    view = FeatureView(
        "least", entity=Entity("place", "place"), source="events", features={"x": minimum("x", over="9h")}
    )
    running = materialiser(store, [view], [source])
    running.materialise(hours(3))
    assert online(store, [{"place": "a", "at": hours(3)}], [view]) == [{"x": 1.0}]
    _team.rows = [*_team.rows, event(4, x=-7.0), event(4.5, x=0.5)]
    running.materialise(hours(5))
    assert online(store, [{"place": "a", "at": hours(5)}], [view]) == [{"x": 0.5}]


def test_a_source_without_times_is_replaced_when_it_is_read_again(store):
    planes = Source("planes", "m:planes", ("tailnum",))
    view = FeatureView(
        "planes", entity=Entity("plane", key="tailnum"), source="planes", features={"seats": latest("seats")}
    )
    asked = [{"tailnum": name, "at": hours(0)} for name in ("n1", "n2", "n3")]
    for seats in (200, 300):
        _team.seats = seats
        materialiser(store, views=[view], sources=[planes]).materialise(hours(1))
        assert [row["seats"] for row in online(store, asked, [view])] == [100, seats, None]
    assert materialiser(store, views=[], sources=[]).materialise(hours(1)).rows == 0


def test_the_file_is_for_its_owner_alone(tmp_path):
    OnlineStore(tmp_path / "online.db").close()
    assert (tmp_path / "online.db").stat().st_mode & 0o077 == 0


def test_looking_up_imports_no_data_library():
    heavy = ("polars", "numpy", "sqlalchemy", "pandas", "deltalake")
    code = f"import sys, relevo.features.online; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
