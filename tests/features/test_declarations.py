import json
import subprocess
import sys
from datetime import timedelta

import polars as pl
import pytest

from relevo.errors import Invalid
from relevo.features import (
    Entity,
    FeatureView,
    count,
    deviation,
    distinct,
    last,
    latest,
    maximum,
    mean,
    minimum,
    since_latest,
    total,
)
from relevo.features.model import Aggregation, duration, view_id
from relevo.platform.encoding import parse, to_json

ORIGIN = Entity("origin", key="origin")
WEATHER = FeatureView(
    "weather",
    entity=ORIGIN,
    source="weather",
    ttl="6h",
    features={"wind_speed": latest("wind_speed"), "visibility": latest("visib"), "weather_age": since_latest()},
)
DEPARTURES = FeatureView(
    "departures",
    entity=ORIGIN,
    source="departures",
    features={
        "departure_delay_2h": mean("dep_delay", over="2h"),
        "departures_2h": count(over="2h"),
        "delay_total_1d": total("dep_delay", over=timedelta(days=1)),
    },
)


GAINS = FeatureView(
    "gains",
    entity=ORIGIN,
    source="landings",
    columns={"doubled": pl.col("gain") * 2, "gain": pl.col("dep_delay") - pl.col("arr_delay")},
    features={
        "gain": latest("gain", default=-1),
        "low": minimum("doubled", over="1h", default=0),
        "high": maximum("distance", over="1h"),
        "spread": deviation("gain", over="1d"),
        "carrier": last("carrier", over="2h", default="none"),
        "carriers": distinct("carrier", over="2h", default=0),
    },
    fresh_within="3h",
    required=True,
)


def test_a_view_is_declared_with_short_words():
    assert WEATHER.entity.key == ("origin",)
    assert WEATHER.ttl == timedelta(hours=6)
    assert WEATHER.columns == ("wind_speed", "visib")
    assert DEPARTURES.windows == (timedelta(hours=2), timedelta(days=1))
    assert [feature.aggregation for feature in DEPARTURES.features] == [
        Aggregation.MEAN,
        Aggregation.COUNT,
        Aggregation.SUM,
    ]


@pytest.mark.parametrize("view", [WEATHER, DEPARTURES, GAINS])
def test_a_view_survives_json(view):
    assert parse(FeatureView, json.loads(json.dumps(to_json(view)))) == view


def test_a_changed_definition_has_another_identity():
    changed = FeatureView("weather", entity=ORIGIN, source="weather", ttl="5h", features=WEATHER.features)
    assert view_id("m", changed) != view_id("m", WEATHER)
    assert view_id("m", WEATHER).startswith("m:weather:")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("45s", timedelta(seconds=45)), ("30m", timedelta(minutes=30)), ("2w", timedelta(weeks=2))],
)
def test_durations_are_a_number_and_a_unit(text, expected):
    assert duration(text) == expected


@pytest.mark.parametrize("text", ["", "2", "h", "2 hours", "-1h", 7])
def test_a_duration_that_cannot_be_read_names_the_shape(text):
    with pytest.raises(Invalid, match='such as "30m"'):
        duration(text)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({}, "at least one feature"),
        ({"wind speed": latest("wind")}, "letters, digits and underscores"),
        ({"wind": latest("")}, "needs a column"),
        ({"wind": "latest"}, r'latest\("column"\)'),
        ({"flights": count(over="0s")}, "longer than nothing"),
    ],
)
def test_a_wrong_feature_is_refused_where_it_is_declared(features, message):
    with pytest.raises(Invalid, match=message):
        FeatureView("v", entity=ORIGIN, source="s", features=features)


def test_json_with_a_window_on_latest_is_refused():
    wrong = to_json(WEATHER)
    wrong["features"][0]["over"] = "PT1H"
    with pytest.raises(Invalid, match="takes no window"):
        parse(FeatureView, wrong)


def test_a_feature_declared_twice_is_refused():
    with pytest.raises(Invalid, match="feature wind_speed is declared twice"):
        FeatureView("v", entity=ORIGIN, source="s", features=(*WEATHER.features, WEATHER.features[0]))


def test_declaring_imports_no_data_library():
    heavy = ("polars", "pandas", "numpy", "sqlalchemy")
    code = f"import sys, relevo.features; print([m for m in {heavy} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_derived_columns_stand_after_those_that_they_read():
    assert [column.name for column in GAINS.derived] == ["gain", "doubled"]
    assert GAINS.columns == ("gain", "doubled", "distance", "carrier")
    assert GAINS.reads == ("distance", "carrier", "arr_delay", "dep_delay")


def test_the_json_of_a_view_before_there_were_derived_columns_and_defaults_is_read():
    old = to_json(WEATHER)
    for name in ("derived", "fresh_within", "required"):
        del old[name]
    for feature in old["features"]:
        del feature["default"]
    assert parse(FeatureView, old) == WEATHER


def test_the_identity_is_that_of_what_is_stored():
    def weather(**settings):
        features = {"wind_speed": latest("wind_speed", **settings.pop("wind", {})), "visibility": latest("visib")}
        features["weather_age"] = since_latest()
        return view_id(
            "m", FeatureView("weather", entity=ORIGIN, source="weather", ttl="6h", features=features, **settings)
        )

    assert weather() == weather(fresh_within="1h", required=True) == "m:weather:4a44e226"
    assert len({weather(), weather(wind={"default": 3}), weather(columns={"gust": pl.col("wind_speed") * 2})}) == 3


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a b": pl.col("x")}, "letters, digits and underscores"),
        ({"a": "x"}, "expected a Polars expression"),
        (
            {"a": pl.col("x").map_elements(lambda x: x, return_dtype=pl.Int64)},
            "derived column a calls a Python function",
        ),
        ({"a": pl.struct("x", "y").map_batches(lambda x: x) + 1}, "derived column a calls a Python function"),
        ({"a": pl.col("x") - pl.col("x").mean()}, "looks at more than one row"),
        ({"a": pl.col("x").shift()}, "looks at more than one row"),
        ({"a": pl.col("x").cum_sum()}, "looks at more than one row"),
        ({"a": pl.col("x").over("y")}, "looks at more than one row"),
        ({"a": pl.col("x").drop_nulls()}, "looks at more than one row"),
        ({"a": pl.all() * 2}, "selects several columns"),
        ({"a": pl.col("x", "y")}, "selects several columns"),
        ({"a": pl.col("^x.*$")}, "selects several columns"),
        ({"a": pl.col("a") + 1}, "in a circle: a -> a"),
        ({"a": pl.col("c"), "b": pl.col("a"), "c": pl.col("b") + pl.col("x")}, "in a circle: a -> c -> b -> a"),
        ({"origin": pl.col("x")}, "column origin is declared twice"),
    ],
)
def test_a_derived_column_that_is_not_allowed_is_named(columns, message):
    with pytest.raises(Invalid, match=message):
        FeatureView("v", entity=ORIGIN, source="s", features={"f": latest("a")}, columns=columns)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: mean("x", over="1h", default="none"), "expected a number as its default, got 'none'"),
        (lambda: mean("x", over="1h", default=True), "expected a number as its default"),
        (lambda: count(over="1h", default=0.5), "expected a whole number as its default"),
        (lambda: distinct("x", over="1h", default="1"), "expected a whole number as its default"),
        (lambda: latest("x", default=[1]), "expected a number, text, or a truth value as its default"),
        (lambda: minimum("x", over="1h", default=float("inf")), "expected a finite default, got inf"),
        (lambda: deviation("", over="1h"), "needs a column"),
    ],
)
def test_a_default_that_cannot_be_one_is_refused(made, message):
    with pytest.raises(Invalid, match=message):
        FeatureView("v", entity=ORIGIN, source="s", features={"f": made()})


def test_a_freshness_limit_is_a_time():
    with pytest.raises(Invalid, match="fresh_within is longer than nothing"):
        FeatureView("v", entity=ORIGIN, source="s", features={"f": latest("x")}, fresh_within="0s")
