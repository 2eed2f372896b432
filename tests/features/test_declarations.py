import json
import subprocess
import sys
from datetime import timedelta

import pytest

from relevo.errors import Invalid
from relevo.features import Entity, FeatureView, count, latest, mean, since_latest, total
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


@pytest.mark.parametrize("view", [WEATHER, DEPARTURES])
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
