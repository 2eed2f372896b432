"""The slow, obvious answer: for each asked row, look at every row of the source."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import strategies as st

from relevo.contract.model import Source
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
from relevo.features.model import Aggregation

START = datetime(2026, 1, 1, tzinfo=UTC)
SOURCE = Source("events", "m:events", ("id",), event_time="happened_at", known_time="known_at")
PLACE = Entity("place", key=("place", "gate"))
VIEWS = (
    FeatureView(
        "newest",
        entity=PLACE,
        source="events",
        ttl="4h",
        features={"last_x": latest("x"), "last_text": latest("text"), "age": since_latest()},
    ),
    FeatureView("ever", entity=Entity("place", key="place"), source="events", features={"ever_x": latest("x")}),
    FeatureView(
        "windows",
        entity=PLACE,
        source="events",
        features={
            "n_2h": count(over="2h"),
            "n_6h": count(over="6h"),
            "sum_2h": total("x", over="2h"),
            "mean_6h": mean("x", over="6h"),
        },
    ),
    FeatureView(
        "mixed",
        entity=Entity("gate", key="gate"),
        source="events",
        ttl="0s",
        features={"now_x": latest("x"), "mean_30m": mean("x", over="30m")},
    ),
)

#: Features that look at each row of their window, defaults, and derived columns; ``DERIVED`` computes those here.
EXACT_VIEWS = (
    FeatureView(
        "exact",
        entity=PLACE,
        source="events",
        features={
            "low_2h": minimum("x", over="2h"),
            "high_6h": maximum("x", over="6h"),
            "spread_6h": deviation("x", over="6h"),
            "spread_20h": deviation("x", over="20h"),
            "last_x_2h": last("x", over="2h"),
            "last_text_6h": last("text", over="6h"),
            "texts_6h": distinct("text", over="6h"),
            "values_20h": distinct("x", over="20h"),
            "n_4h": count(over="4h"),
        },
    ),
    FeatureView(
        "filled",
        entity=Entity("gate", key="gate"),
        source="events",
        ttl="3h",
        features={
            "filled_x": latest("x", default=-1),
            "filled_text": latest("text", default="none"),
            "filled_age": since_latest(default=0),
            "filled_n": count(over="1h", default=7),
            "filled_mean": mean("x", over="1h", default=0.5),
            "filled_low": minimum("x", over="3h", default=-9),
            "filled_last": last("text", over="1h", default="?"),
            "filled_texts": distinct("text", over="1h", default=0),
        },
    ),
    FeatureView(
        "computed",
        entity=PLACE,
        source="events",
        columns={
            "half": pl.col("twice") / 4,
            "twice": pl.col("x") * 2,
            "is_large": pl.col("x") > 0,
            "shout": pl.col("text").str.to_uppercase(),
        },
        features={
            "half_now": latest("half"),
            "shout_now": latest("shout"),
            "large_6h": total("is_large", over="6h"),
            "large_now": last("is_large", over="20h"),
            "half_high": maximum("half", over="20h"),
            "shouts": distinct("shout", over="20h"),
        },
    ),
)


def _times(x, factor):
    return None if x is None else x * factor


DERIVED = {
    "twice": lambda row: _times(row["x"], 2),
    "half": lambda row: _times(row["x"], 0.5),
    # Polars counts NaN as larger than any number.
    "is_large": lambda row: None if row["x"] is None else math.isnan(row["x"]) or row["x"] > 0,
    "shout": lambda row: None if row["text"] is None else row["text"].upper(),
}

_half_hours = st.integers(0, 40).map(lambda half_hours: START + timedelta(minutes=30 * half_hours))
_place, _gate = st.sampled_from(["a", "b", None]), st.sampled_from([1, 2, None])
_x = st.one_of(st.none(), st.integers(-8, 8).map(float), st.sampled_from([math.nan, math.inf]))

#: A row of the source: late (known after it happened), announced (known before), not known yet, tied, repeated.
event_rows = st.lists(
    st.fixed_dictionaries(
        {
            "place": _place,
            "gate": _gate,
            "happened_at": _half_hours,
            "known_at": st.one_of(_half_hours, st.none()),
            "x": _x,
            "text": st.sampled_from(["p", "q", None]),
        }
    ),
    max_size=25,
)
asked_rows = st.lists(
    st.fixed_dictionaries({"place": _place, "gate": _gate, "at": st.one_of(_half_hours, st.none())}),
    min_size=1,
    max_size=12,
)


def answer(asked: dict, views: Sequence[FeatureView], events: Sequence[dict], known_by: datetime | None = None) -> dict:
    """The features of one asked row. ``events`` in the order of the table."""
    return {
        feature.name: _feature(asked, view, feature, events, known_by) for view in views for feature in view.features
    }


def _feature(asked, view, feature, events, known_by):
    value = _without_default(asked, view, feature, events, known_by)
    return feature.default if value is None else value


def _without_default(asked, view, feature, events, known_by):
    at = asked["at"]
    if at is None or any(asked[name] is None for name in view.entity.key):
        return None
    rows = []
    for order, event in enumerate(events):
        if event["known_at"] is None or any(event[name] != asked[name] for name in view.entity.key):
            continue
        counts_from = max(event["known_at"], event["happened_at"])
        if counts_from <= at and (known_by is None or counts_from <= known_by):
            rows.append((event["happened_at"], counts_from, order, event))
    if not feature.aggregation.is_windowed:
        return _latest(at, view, feature, rows)
    inside = sorted((row for row in rows if row[1] > at - feature.over), key=lambda row: (row[1], row[0], row[2]))
    if feature.aggregation is Aggregation.COUNT:
        return len(inside)
    values = [_value(feature, row[3]) for row in inside]
    return _window(feature, [value for value in values if value is not None])


def _window(feature, values):
    match feature.aggregation:
        case Aggregation.LAST:
            return values[-1] if values else None
        case Aggregation.DISTINCT:
            return len(set(values))
        case Aggregation.MINIMUM:
            return float(min(values)) if values else None
        case Aggregation.MAXIMUM:
            return float(max(values)) if values else None
    numbers = [float(value) for value in values if math.isfinite(value)]
    match feature.aggregation:
        case Aggregation.SUM:
            return sum(numbers, 0.0)
        case Aggregation.MEAN:
            return sum(numbers) / len(numbers) if numbers else None
        case Aggregation.DEVIATION:
            return statistics.stdev(numbers) if len(numbers) > 1 else None


def _latest(at, view, feature, rows):
    if not rows:
        return None
    happened_at, _, _, event = max(rows, key=lambda row: row[:3])
    if view.ttl is not None and at - happened_at > view.ttl:
        return None
    if feature.aggregation is Aggregation.SINCE_LATEST:
        return (at - happened_at).total_seconds()
    return _value(feature, event)


def _value(feature, event):
    derived = DERIVED.get(feature.column)
    value = derived(event) if derived else event[feature.column]
    return None if isinstance(value, float) and math.isnan(value) else value
