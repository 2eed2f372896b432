"""Declarations that a team's package makes: entities, feature views, windows. Light to import; no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from relevo.contract.durations import parse_duration
from relevo.errors import Invalid
from relevo.platform.encoding import digest


class Aggregation(StrEnum):
    """How rows of an entity become one value."""

    LATEST = "latest"
    SINCE_LATEST = "since_latest"
    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"

    @property
    def is_windowed(self) -> bool:
        """Whether it needs a window."""
        return self in (Aggregation.COUNT, Aggregation.SUM, Aggregation.MEAN)


@dataclass(frozen=True, slots=True)
class Calculation:
    """How a feature comes from its rows, before a view gives it a name. Made by ``latest``, ``mean`` and the others."""

    aggregation: Aggregation
    column: str | None
    over: timedelta | None


@dataclass(frozen=True, slots=True, init=False)
class Entity:
    """What a feature describes, and the columns that identify it, in requests and in the source alike.

    Args:
        name: Its name, for people.
        key: One column, or several.
    """

    name: str
    key: tuple[str, ...]

    def __init__(self, name: str, key: str | Iterable[str]) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "key", (key,) if isinstance(key, str) else tuple(key))
        self.__post_init__()

    def __post_init__(self) -> None:
        _require_identifier(self.name, "entity")
        if not self.key or not all(self.key):
            raise Invalid(f"entity {self.name}: expected at least one key column, got {self.key!r}")
        _require_unique(self.key, f"entity {self.name}: key column")


@dataclass(frozen=True, slots=True)
class Feature:
    """One value of a view. ``over`` is the window that ends at the asked time; None where there is no window."""

    name: str
    aggregation: Aggregation
    column: str | None
    over: timedelta | None

    def __post_init__(self) -> None:
        _require_identifier(self.name, "feature")
        what = f"feature {self.name}: {self.aggregation}"
        if self.aggregation.is_windowed:
            if self.over is None:
                raise Invalid(f'{what} needs a window, for example over="2h"')
            if self.over <= timedelta(0):
                raise Invalid(f"{what} needs a window longer than nothing, got {self.over}")
        elif self.over is not None:
            raise Invalid(f"{what} takes no window, got {self.over}; bound its age with the view's ttl")
        needs_column = self.aggregation in (Aggregation.LATEST, Aggregation.SUM, Aggregation.MEAN)
        if needs_column and not self.column:
            raise Invalid(f"{what} needs a column of the source")
        if not needs_column and self.column is not None:
            raise Invalid(f"{what} counts rows, and takes no column, got {self.column!r}")


@dataclass(frozen=True, slots=True, init=False)
class FeatureView:
    """Features of one entity from one source.

    Args:
        name: Its name, part of the identity of what the online store keeps.
        entity: What the features describe.
        source: Name of a source of the contract, which has the entity's key columns.
        features: Calculations by feature name; or finished features.
        ttl: Age up to which the latest row counts, inclusive: ``"6h"`` or a timedelta; None: it never expires.
            Windows have their own end and ignore it.

    Raises:
        Invalid: A name is no identifier or comes twice, or a duration cannot be read.
    """

    name: str
    entity: Entity
    source: str
    features: tuple[Feature, ...]
    ttl: timedelta | None

    def __init__(
        self,
        name: str,
        *,
        entity: Entity,
        source: str,
        features: Mapping[str, Calculation] | Iterable[Feature],
        ttl: str | timedelta | None = None,
    ) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "entity", entity)
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "features", _named(features))
        object.__setattr__(self, "ttl", None if ttl is None else duration(ttl))
        self.__post_init__()

    def __post_init__(self) -> None:
        _require_identifier(self.name, "feature view")
        if not self.features:
            raise Invalid(f"feature view {self.name}: expected at least one feature, got none")
        _require_unique([feature.name for feature in self.features], f"feature view {self.name}: feature")
        if self.ttl is not None and self.ttl < timedelta(0):
            raise Invalid(f"feature view {self.name}: a ttl is not negative, got {self.ttl}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the source that the features read, each once, without the entity's key."""
        return tuple(dict.fromkeys(feature.column for feature in self.features if feature.column))

    @property
    def windows(self) -> tuple[timedelta, ...]:
        """The distinct windows, shortest first."""
        return tuple(sorted({feature.over for feature in self.features if feature.over}))


def view_id(model: str, view: FeatureView) -> str:
    """What the online store calls a view: a changed definition gets another name, so that both can be served."""
    return f"{model}:{view.name}:{digest(view)[:8]}"


def duration(text: str | timedelta) -> timedelta:
    """A duration: a number and a unit, one of s, m, h, d, w; or what is one already.

    >>> duration("6h")
    datetime.timedelta(seconds=21600)

    Raises:
        Invalid: It is none.
    """
    if isinstance(text, timedelta):
        return text
    parsed = parse_duration(text) if isinstance(text, str) else None
    if parsed is None:
        raise Invalid(f'expected a duration such as "30m", "6h" or "90d", got {text!r}')
    return parsed


def _named(features: Mapping[str, Calculation] | Iterable[Feature]) -> tuple[Feature, ...]:
    if not isinstance(features, Mapping):
        return tuple(features)
    for name, made in features.items():
        if not isinstance(made, Calculation):
            raise Invalid(f'feature {name}: expected a calculation such as latest("column"), got {made!r}')
    return tuple(Feature(name, made.aggregation, made.column, made.over) for name, made in features.items())


def _require_identifier(name: str, what: str) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise Invalid(f"{what}: expected a name of letters, digits and underscores, got {name!r}")


def _require_unique(names: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise Invalid(f"{what} {name} is declared twice")
        seen.add(name)
