"""What is known of a depot when a parcel is handed in."""

from relevo.features import Entity, FeatureView, latest, mean

depot = Entity("depot", key="depot")
queue = FeatureView(
    "queue",
    entity=depot,
    source="scans",
    features={"waiting": latest("waiting"), "waiting_6h": mean("waiting", over="6h")},
)
