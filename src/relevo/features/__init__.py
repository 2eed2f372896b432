"""Features: what is known about an entity at a time.

A team's package declares entities and feature views with the names below. One definition serves three uses: training
sets joined as of each row's time (``point_in_time``), values kept up to date for serving (``materialise``, ``online``),
and the check that both agree. What a row may tell starts when it has happened and is known, never earlier.
"""

from relevo.features.declare import (
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
from relevo.features.model import Entity, Feature, FeatureView

__all__ = [
    "Entity",
    "Feature",
    "FeatureView",
    "count",
    "deviation",
    "distinct",
    "last",
    "latest",
    "maximum",
    "mean",
    "minimum",
    "since_latest",
    "total",
]
