from datetime import UTC, datetime, timedelta

import pandas as pd
import polars as pl
import pytest
from feature_reference import EXACT_VIEWS, SOURCE, START, VIEWS, answer, asked_rows, event_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from relevo.contract.model import Source
from relevo.datasets.loading import read_source
from relevo.errors import Invalid
from relevo.features import Entity, FeatureView, count, deviation, last, latest, mean, minimum, since_latest, total
from relevo.features.model import Aggregation
from relevo.features.point_in_time import attach

UTC_TIME = pl.Datetime("us", "UTC")
EVENTS = {
    "place": pl.String,
    "gate": pl.Int64,
    "happened_at": UTC_TIME,
    "known_at": UTC_TIME,
    "x": pl.Float64,
    "text": pl.String,
}
ASKED = {"place": pl.String, "gate": pl.Int64, "at": UTC_TIME}
ALL_VIEWS = (*VIEWS, *EXACT_VIEWS)
FEATURES = [feature for view in ALL_VIEWS for feature in view.features]


def attached(asked: list[dict], events: list[dict], views=ALL_VIEWS) -> pl.DataFrame:
    spine = pl.LazyFrame(asked, schema=ASKED)
    return attach(spine, views, {"events": pl.LazyFrame(events, schema=EVENTS)}, sources=[SOURCE], at="at").collect()


def expected(asked: list[dict], events: list[dict], through: list[datetime | None] | None = None) -> list[dict]:
    """The reference's answers; a deviation may differ in its last digits."""
    known_by = through or [None] * len(asked)
    answers = [answer(row, ALL_VIEWS, events, known) for row, known in zip(asked, known_by, strict=True)]
    for row in answers:
        for feature in FEATURES:
            if feature.aggregation is Aggregation.DEVIATION and row[feature.name] is not None:
                row[feature.name] = pytest.approx(row[feature.name], rel=1e-12, abs=1e-12)
    return answers


@settings(max_examples=120, deadline=None)
@given(asked_rows, event_rows)
def test_the_join_agrees_with_looking_at_every_row(asked, events):
    result = attached(asked, events)
    assert result.select(ASKED.keys()).to_dicts() == asked
    assert result.select(feature.name for feature in FEATURES).to_dicts() == expected(asked, events)


units = st.sampled_from(["ms", "us", "ns"])
zones = st.sampled_from(["UTC", "Asia/Tokyo", "America/New_York"])


@settings(max_examples=30, deadline=None)
@given(asked_rows, event_rows, st.tuples(units, units, units), st.tuples(zones, zones, zones), st.randoms())
def test_units_zones_and_the_order_of_the_table_change_no_answer(asked, events, own_units, own_zones, shuffle):
    times = [pl.Datetime(unit, zone) for unit, zone in zip(own_units, own_zones, strict=True)]
    # Rows alike in both times are told apart by their place in the table, so only others change places.
    events = list({(row["happened_at"], row["known_at"], row["place"], row["gate"]): row for row in events}.values())
    reference = expected(asked, events)
    shuffle.shuffle(events)
    table = pl.LazyFrame(events, schema=EVENTS).cast({"happened_at": times[0], "known_at": times[1]})
    spine = pl.LazyFrame(asked, schema=ASKED).cast({"at": times[2]})
    by_place = [view for view in ALL_VIEWS if len(view.entity.key) == 2]
    result = attach(spine, by_place, {"events": table}, sources=[SOURCE], at="at").collect()
    names = [feature.name for view in by_place for feature in view.features]
    assert result.select(names).to_dicts() == [{name: row[name] for name in names} for row in reference]
    assert result.schema["at"] == times[2]


@settings(max_examples=25, deadline=None)
@given(asked_rows, event_rows)
def test_the_order_of_the_spine_changes_no_answer(asked, events):
    forward, backward = attached(asked, events), attached(asked[::-1], events)
    assert backward.reverse().equals(forward)


@settings(max_examples=80, deadline=None)
@given(st.data(), asked_rows, event_rows)
def test_what_a_store_that_lags_behind_can_know_is_what_the_rows_known_by_then_tell(data, asked, events):
    behind = st.one_of(st.none(), st.integers(-4, 20).map(lambda half_hours: timedelta(minutes=30 * half_hours)))
    lags = [data.draw(behind) for _ in asked]
    through = [
        None if lag is None or row["at"] is None else row["at"] - lag for row, lag in zip(asked, lags, strict=True)
    ]
    spine = pl.LazyFrame(asked, schema=ASKED).with_columns(through=pl.Series(through, dtype=UTC_TIME))
    tables = {"events": pl.LazyFrame(events, schema=EVENTS)}
    found = attach(spine, ALL_VIEWS, tables, sources=[SOURCE], at="at", as_of="through").collect()
    rows = [row if known_by else row | {"at": None} for row, known_by in zip(asked, through, strict=True)]
    assert found.select(feature.name for feature in FEATURES).to_dicts() == expected(rows, events, through)


def event(hour: float, known: float | None = None, **values) -> dict:
    known = hour if known is None else known
    times = {"happened_at": START + timedelta(hours=hour), "known_at": START + timedelta(hours=known)}
    return {"place": "a", "gate": 1, "x": 0.0, "text": "p", **times, **values}


def asked_at(hour: float, **values) -> dict:
    return {"place": "a", "gate": 1, "at": START + timedelta(hours=hour), **values}


def test_a_late_row_that_is_older_than_what_is_known_changes_nothing():
    events = [event(2, x=2.0), event(1, known=3, x=1.0)]
    assert attached([asked_at(4)], events)["ever_x"].to_list() == [2.0]
    assert attached([asked_at(2.5), asked_at(3)], events)["n_6h"].to_list() == [1, 2]


def test_of_rows_known_at_once_the_newest_event_wins_and_a_correction_replaces_it():
    events = [event(2, known=3, x=2.0), event(1, known=3, x=1.0), event(2, known=5, x=-2.0)]
    assert attached([asked_at(3), asked_at(5)], events)["ever_x"].to_list() == [2.0, -2.0]


def test_the_time_to_live_is_inclusive():
    row = attached([asked_at(4), asked_at(4 + 1e-6 / 3600 * 1.1)], [event(0, x=7.0)])
    assert row["last_x"].to_list() == [7.0, None]
    assert row["age"].to_list() == [14_400.0, None]


def test_a_window_leaves_out_its_start_and_holds_its_end():
    row = attached([asked_at(2), asked_at(2.1), asked_at(1.9)], [event(0), event(2)])
    assert row["n_2h"].to_list() == [1, 1, 1]


def test_one_infinite_or_missing_number_spoils_no_later_window():
    events = [event(0, x=float("inf")), event(0.5, x=float("nan")), event(1, x=3.0)]
    row = attached([asked_at(1)], events)
    assert (row["sum_2h"].item(), row["n_2h"].item(), row["mean_6h"].item()) == (3.0, 3, 3.0)


def test_a_source_without_times_is_always_known():
    planes = Source("planes", "m:planes", ("tailnum",))
    view = FeatureView(
        "planes", entity=Entity("plane", key="tailnum"), source="planes", features={"seats": latest("seats")}
    )
    tables = {"planes": pl.LazyFrame({"tailnum": ["n1", "n2", None], "seats": [100, 200, 300]})}
    spine = pl.LazyFrame({"tailnum": ["n2", None, "n9", "n1"], "at": [START] * 4})
    assert attach(spine, [view], tables, sources=[planes], at="at").collect()["seats"].to_list() == [
        200,
        None,
        None,
        100,
    ]


@pytest.mark.parametrize("kind", [pl.Int32, pl.UInt8])
def test_keys_of_another_width_match(kind):
    spine = pl.LazyFrame([asked_at(1)], schema={**ASKED, "gate": kind})
    rows = [event(0, x=1.0), event(0, x=2.0, gate=1_000_000)]
    tables = {"events": pl.LazyFrame(rows, schema=EVENTS)}
    result = attach(spine, VIEWS, tables, sources=[SOURCE], at="at").collect()
    assert result["last_x"].to_list() == [1.0] and result.schema["gate"] == kind


def test_categories_match_text():
    spine = pl.LazyFrame([asked_at(1)], schema=ASKED).with_columns(pl.col("place").cast(pl.Categorical))
    tables = {
        "events": pl.LazyFrame([event(0, x=1.0)], schema=EVENTS).with_columns(pl.col("text").cast(pl.Categorical))
    }
    result = attach(spine, VIEWS, tables, sources=[SOURCE], at="at").collect()
    assert result["last_text"].to_list() == ["p"] and result.schema["last_text"] == pl.String


PLACE = Entity("place", key="place")


@pytest.mark.parametrize(
    ("view", "spine_changes", "message"),
    [
        (FeatureView("v", entity=PLACE, source="event", features={"f": latest("x")}), {}, "no source 'event'"),
        (FeatureView("v", entity=PLACE, source="events", features={"f": latest("y")}), {}, "no column 'y'"),
        (
            FeatureView("v", entity=PLACE, source="events", features={"f": latest("known_at")}),
            {},
            "expected a number or text",
        ),
        (
            FeatureView("v", entity=PLACE, source="events", features={"f": mean("text", over="1h")}),
            {},
            "feature f is the mean of column 'text' of source events, which is String",
        ),
        (
            FeatureView("v", entity=Entity("p", key="plaice"), source="events", features={"f": latest("x")}),
            {},
            "'plaice'",
        ),
        (FeatureView("v", entity=PLACE, source="events", features={"gate": latest("x")}), {}, "is there already"),
        (VIEWS[1], {"place": pl.Int64}, "key 'place' is Int64 in the rows asked about and String in source events"),
        (VIEWS[1], {"at": pl.Datetime("us")}, "should hold aware datetimes"),
        (FeatureView("v", entity=PLACE, source="always", features={"f": since_latest()}), {}, "needs an event_time"),
        (FeatureView("v", entity=PLACE, source="always", ttl="1h", features={"f": latest("x")}), {}, "its ttl needs"),
    ],
)
def test_what_does_not_fit_is_named(view, spine_changes, message):
    spine = pl.LazyFrame(schema={**ASKED, **spine_changes})
    tables = {"events": pl.LazyFrame(schema=EVENTS), "always": pl.LazyFrame(schema=EVENTS)}
    with pytest.raises(Invalid, match=message):
        attach(spine, [view], tables, sources=[SOURCE, Source("always", "m:a", ("id",))], at="at").collect()


def _computed(features: dict, **columns: pl.Expr) -> FeatureView:
    return FeatureView("v", entity=PLACE, source="events", features=features, columns=columns)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (_computed({"f": latest("a")}, a=pl.col("y") + 1), "source events has no column 'y'"),
        (_computed({"f": latest("x")}, x=pl.lit(1)), "derived column 'x' has the name of a column of source events"),
        (_computed({"f": latest("a")}, a=pl.col("text").dt.hour()), "derived column 'a'"),
        (_computed({"f": latest("a")}, a=pl.col("known_at") - pl.col("happened_at")), "column 'a' of .* is Duration"),
        (
            _computed({"f": minimum("a", over="1h")}, a=pl.col("text")),
            "the min of column 'a' of source events, which",
        ),
        (_computed({"f": deviation("text", over="1h")}), "the std of column 'text' of source events, which is String"),
        (_computed({"f": latest("text", default=1)}), "feature f of v is String, and its default is 1"),
        (_computed({"f": latest("gate_", default=0.5)}, gate_=pl.col("gate")), "is Int64, and its default is 0.5"),
        (_computed({"f": last("a", over="1h", default=1)}, a=pl.col("x") > 0), "is Boolean, and its default is 1"),
    ],
)
def test_columns_and_defaults_that_do_not_fit_are_named(view, message):
    with pytest.raises(Invalid, match=message):
        attached([asked_at(1)], [event(0)], [view])


def test_features_and_views_of_one_name_are_refused():
    with pytest.raises(Invalid, match="feature ever_x is declared by both ever and again"):
        attached([], [], (VIEWS[1], FeatureView("again", entity=PLACE, source="events", features=VIEWS[1].features)))
    with pytest.raises(Invalid, match="feature view ever is declared twice"):
        attached([], [], (VIEWS[1], VIEWS[1]))


FLIGHTS = Source("flights", "flight_delay.sources:flights", ("flight_id",), "scheduled_at", "known_at")
LANDINGS = Source("landings", "flight_delay.sources:landings", ("flight_id",), "known_at")
PREVIOUS_LEG = FeatureView(
    "previous_leg",
    entity=Entity("aircraft", key="tailnum"),
    source="landings",
    ttl="24h",
    features={"previous_arrival_delay": latest("arr_delay"), "since_arrival": since_latest()},
)


def test_the_latest_landing_of_each_aircraft_agrees_with_pandas_on_a_year_of_flights(flights_package):
    flights = read_source(FLIGHTS, flights_package).select("flight_id", "tailnum", "scheduled_at")
    landings = read_source(LANDINGS, flights_package).drop_nulls("tailnum")
    spine = flights.sample(fraction=1.0, shuffle=True, seed=5)
    result = attach(
        spine.lazy(), [PREVIOUS_LEG], {"landings": landings.lazy()}, sources=[LANDINGS], at="scheduled_at"
    ).collect()
    assert result["flight_id"].equals(spine["flight_id"])

    def in_pandas(frame: pl.DataFrame, *columns: str) -> pd.DataFrame:
        return pd.DataFrame({name: frame[name].to_numpy() for name in columns})

    expected = pd.merge_asof(
        in_pandas(
            spine.drop_nulls("tailnum").sort("scheduled_at", "flight_id"), "flight_id", "tailnum", "scheduled_at"
        ),
        in_pandas(landings, "tailnum", "known_at", "arr_delay"),
        left_on="scheduled_at",
        right_on="known_at",
        by="tailnum",
        tolerance=pd.Timedelta(hours=24),
    )
    got = result.drop_nulls("tailnum").sort("scheduled_at", "flight_id")
    delays = got["previous_arrival_delay"].cast(pl.Float64).fill_null(-9999.0).to_list()
    assert delays == expected["arr_delay"].fillna(-9999.0).to_list()
    assert (
        result.filter(pl.col("tailnum").is_null())["previous_arrival_delay"].null_count()
        == result["tailnum"].null_count()
    )
    assert got["since_arrival"].max() <= 24 * 3600


def test_the_mean_delay_of_a_window_agrees_with_a_filter_on_real_flights(flights_package):
    departures = Source("departures", "flight_delay.sources:departures", ("flight_id",), "departed_at")
    rows = read_source(departures, flights_package)
    view = FeatureView(
        "departures",
        entity=Entity("airport", key="origin"),
        source="departures",
        features={
            "delay_4h": mean("dep_delay", over="4h"),
            "n_4h": count(over="4h"),
            "sum_4h": total("dep_delay", over="4h"),
        },
    )
    spine = rows.sample(60, seed=3).select("origin", at=pl.col("departed_at") + pl.duration(minutes=7))
    result = attach(spine.lazy(), [view], {"departures": rows.lazy()}, sources=[departures], at="at").collect()
    for row in result.iter_rows(named=True):
        since = row["at"] - timedelta(hours=4)
        inside = rows.filter(
            pl.col("origin") == row["origin"], pl.col("departed_at") > since, pl.col("departed_at") <= row["at"]
        )
        assert (row["n_4h"], row["sum_4h"]) == (inside.height, float(inside["dep_delay"].sum()))
        assert row["delay_4h"] == (pytest.approx(inside["dep_delay"].mean()) if inside.height else None)


def test_asked_times_of_another_zone_are_the_same_moments():
    local = pl.LazyFrame([asked_at(1)], schema=ASKED).with_columns(pl.col("at").dt.convert_time_zone("Asia/Tokyo"))
    tables = {"events": pl.LazyFrame([event(1, x=5.0), event(1.5, x=6.0)], schema=EVENTS)}
    result = attach(local, VIEWS, tables, sources=[SOURCE], at="at").collect()
    assert result["ever_x"].to_list() == [5.0]
    assert result["at"].to_list()[0] == datetime(2026, 1, 1, 1, tzinfo=UTC)
