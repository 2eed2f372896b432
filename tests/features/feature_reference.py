"""The slow, obvious answer: for each asked row, look at every row of the source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from relevo.contract.model import Source
from relevo.features import Entity, FeatureView, count, latest, mean, since_latest, total
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

_half_hours = st.integers(0, 40).map(lambda half_hours: START + timedelta(minutes=30 * half_hours))
_place, _gate = st.sampled_from(["a", "b", None]), st.sampled_from([1, 2, None])
_x = st.one_of(st.none(), st.integers(-8, 8).map(float), st.just(math.nan))

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
    inside = [row[3] for row in rows if row[1] > at - feature.over]
    if feature.aggregation is Aggregation.COUNT:
        return len(inside)
    numbers = [row["x"] for row in inside if row["x"] is not None and not math.isnan(row["x"])]
    if feature.aggregation is Aggregation.SUM:
        return sum(numbers, 0.0)
    return sum(numbers) / len(numbers) if numbers else None


def _latest(at, view, feature, rows):
    if not rows:
        return None
    happened_at, _, _, event = max(rows, key=lambda row: row[:3])
    if view.ttl is not None and at - happened_at > view.ttl:
        return None
    if feature.aggregation is Aggregation.SINCE_LATEST:
        return (at - happened_at).total_seconds()
    value = event[feature.column]
    return None if isinstance(value, float) and math.isnan(value) else value
