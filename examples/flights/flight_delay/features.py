"""What is known of an airport and of an aircraft at the moment a flight should leave."""

from math import pi

from relevo.features import Entity, FeatureView, count, latest, mean, since_latest, total
from relevo.features.request import OnRequest, asked_at, cos, sin

airport = Entity("airport", key="origin")
aircraft = Entity("aircraft", key="tailnum")

recent_departures = FeatureView(
    "recent_departures",
    entity=airport,
    source="departures",
    features={
        "departure_delay_1h": mean("dep_delay", over="1h"),
        "departure_delay_2h": mean("dep_delay", over="2h"),
        "departure_delay_4h": mean("dep_delay", over="4h"),
        "departures_1h": count(over="1h"),
        "departures_4h": count(over="4h"),
    },
)
recent_arrivals = FeatureView(
    "recent_arrivals",
    entity=airport,
    source="landings",
    features={
        "arrival_delay_1h": mean("arr_delay", over="1h"),
        "arrival_delay_3h": mean("arr_delay", over="3h"),
        "arrival_delay_6h": mean("arr_delay", over="6h"),
    },
)
waiting_line = FeatureView(
    "waiting_line",
    entity=airport,
    source="queue",
    features={"flights_waiting": total("change", over="12h")},
)
previous_leg = FeatureView(
    "previous_leg",
    entity=aircraft,
    source="landings",
    features={"previous_arrival_delay": latest("arr_delay"), "seconds_since_landing": since_latest()},
    ttl="24h",
)
weather = FeatureView(
    "weather",
    entity=airport,
    source="weather",
    features={"wind_speed": latest("wind_speed"), "precipitation": latest("precip"), "visibility": latest("visib")},
    ttl="6h",
    fresh_within="3h",  # a new observation comes every hour
)

# Delays grow through the day: the scheduled minute on a circle, so that midnight is beside midnight.
_local = asked_at.in_zone("America/New_York")
_angle = (_local.hour + _local.minute / 60) * (2 * pi / 24)
time_of_day = OnRequest({"time_of_day_sin": sin(_angle), "time_of_day_cos": cos(_angle)})
