"""Declarations that a team's package makes: entities, feature views, windows. Light to import; no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Aggregation(StrEnum):
    """How rows of an entity become one value."""

    LATEST = "latest"
    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"


@dataclass(frozen=True, slots=True)
class Entity:
    """What a feature describes, and the request columns that identify it."""

    name: str
    key: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Feature:
    """One value of a view. ``over`` is the window that ends at the asked time; None for ``LATEST``."""

    name: str
    aggregation: Aggregation
    column: str | None
    over: timedelta | None


@dataclass(frozen=True, slots=True)
class FeatureView:
    """Features of one entity from one source.

    ``ttl`` bounds the age of the latest row, inclusive; None means that it never expires.
    """

    name: str
    entity: Entity
    source: str
    features: tuple[Feature, ...]
    ttl: timedelta | None
