"""Declarations that a team's package makes: entities, feature views, windows. Light to import; no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Literal

from relevo.contract.durations import parse_duration
from relevo.errors import Invalid
from relevo.features.derived import Derived, derive
from relevo.features.ordering import in_order
from relevo.platform.encoding import digest, to_json

#: What a request can carry for a feature.
Value = float | int | str | bool | None


class Aggregation(StrEnum):
    """How rows of an entity become one value."""

    LATEST = "latest"
    SINCE_LATEST = "since_latest"
    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    MINIMUM = "min"
    MAXIMUM = "max"
    DEVIATION = "std"
    LAST = "last"
    DISTINCT = "distinct"

    @property
    def is_windowed(self) -> bool:
        """Whether it needs a window."""
        return self not in (Aggregation.LATEST, Aggregation.SINCE_LATEST)

    @property
    def is_running(self) -> bool:
        """Whether a window of it is the difference of two running counts and sums; others need the window's rows."""
        return self in (Aggregation.COUNT, Aggregation.SUM, Aggregation.MEAN)

    @property
    def reads_column(self) -> bool:
        """Whether it needs a column of the source."""
        return self not in (Aggregation.SINCE_LATEST, Aggregation.COUNT)

    @property
    def gives(self) -> Literal["integer", "number", "column"]:
        """What its values are: whole numbers, numbers, or whatever its column holds."""
        if self in (Aggregation.COUNT, Aggregation.DISTINCT):
            return "integer"
        return "column" if self in (Aggregation.LATEST, Aggregation.LAST) else "number"


@dataclass(frozen=True, slots=True)
class Calculation:
    """How a feature comes from its rows, before a view gives it a name. Made by ``latest``, ``mean`` and the others."""

    aggregation: Aggregation
    column: str | None
    over: timedelta | None
    default: Value = None


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
    """One value of a view. ``over`` is the window that ends at the asked time; None where there is no window.

    ``default`` stands wherever the value would be null; None leaves it null.
    """

    name: str
    aggregation: Aggregation
    column: str | None
    over: timedelta | None
    default: Value = None

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
        if self.aggregation.reads_column and not self.column:
            raise Invalid(f"{what} needs a column of the source")
        if not self.aggregation.reads_column and self.column is not None:
            raise Invalid(f"{what} counts rows, and takes no column, got {self.column!r}")
        if self.default is not None:
            object.__setattr__(self, "default", _default(what, self.aggregation, self.default))


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
        columns: Derived columns by name, as Polars expressions over one row of the source.
        fresh_within: How old the newest known row may be; None: as old as it likes.
        required: Whether an entity without any row is an error for the caller of the endpoint.

    Raises:
        Invalid: A name is no identifier or comes twice, a duration cannot be read, or a derived column is not allowed.
    """

    name: str
    entity: Entity
    source: str
    features: tuple[Feature, ...]
    ttl: timedelta | None
    derived: tuple[Derived, ...] = ()
    fresh_within: timedelta | None = None
    required: bool = False

    def __init__(
        self,
        name: str,
        *,
        entity: Entity,
        source: str,
        features: Mapping[str, Calculation] | Iterable[Feature],
        ttl: str | timedelta | None = None,
        columns: Mapping[str, Any] | None = None,
        fresh_within: str | timedelta | None = None,
        required: bool = False,
    ) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "entity", entity)
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "features", _named(features))
        object.__setattr__(self, "ttl", None if ttl is None else duration(ttl))
        object.__setattr__(self, "derived", derive(columns or {}))
        object.__setattr__(self, "fresh_within", None if fresh_within is None else duration(fresh_within))
        object.__setattr__(self, "required", required)
        self.__post_init__()

    def __post_init__(self) -> None:
        _require_identifier(self.name, "feature view")
        if not self.features:
            raise Invalid(f"feature view {self.name}: expected at least one feature, got none")
        _require_unique([feature.name for feature in self.features], f"feature view {self.name}: feature")
        if self.ttl is not None and self.ttl < timedelta(0):
            raise Invalid(f"feature view {self.name}: a ttl is not negative, got {self.ttl}")
        if self.fresh_within is not None and self.fresh_within <= timedelta(0):
            raise Invalid(f"feature view {self.name}: fresh_within is longer than nothing, got {self.fresh_within}")
        names = [column.name for column in self.derived]
        _require_unique([*self.entity.key, *names], f"feature view {self.name}: column")
        object.__setattr__(self, "derived", in_order(self.derived, "derived columns"))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the features read, of the source or derived, each once."""
        return tuple(dict.fromkeys(feature.column for feature in self.features if feature.column))

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of the source that features and derived columns read, each once, without the entity's key."""
        derived = {column.name for column in self.derived}
        names = [*self.columns, *(name for column in self.derived for name in column.reads)]
        return tuple(dict.fromkeys(name for name in names if name not in derived))

    @property
    def windows(self) -> tuple[timedelta, ...]:
        """The distinct windows, shortest first."""
        return tuple(sorted({feature.over for feature in self.features if feature.over}))


def view_id(model: str, view: FeatureView) -> str:
    """What the online store calls a view: a changed definition gets another name, so that both can be served.

    What changes no value (``fresh_within``, ``required``) and what a view does not use leaves the name as it is.
    """
    definition = to_json(view)
    for name in ("fresh_within", "required", *(() if view.derived else ("derived",))):
        del definition[name]
    for feature in definition["features"]:
        if feature["default"] is None:
            del feature["default"]
    return f"{model}:{view.name}:{digest(definition)[:8]}"


def definition_of(view: FeatureView) -> str:
    """The digest of a view's definition, as its id has it."""
    return view_id("", view).rpartition(":")[2]


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


def _default(what: str, aggregation: Aggregation, value: Value) -> Value:
    """``value`` as what the aggregation gives."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, float) and not math.isfinite(value):
        raise Invalid(f"{what}: expected a finite default, got {value}")
    match aggregation.gives:
        case "number" if is_number:
            return float(value)  # type: ignore[arg-type]
        case "integer" if is_number and value == int(value):  # type: ignore[arg-type]
            return int(value)
        case "column" if is_number or isinstance(value, str | bool):
            return value
    expected = {"number": "a number", "integer": "a whole number", "column": "a number, text, or a truth value"}
    raise Invalid(f"{what}: expected {expected[aggregation.gives]} as its default, got {value!r}")


def _named(features: Mapping[str, Calculation] | Iterable[Feature]) -> tuple[Feature, ...]:
    if not isinstance(features, Mapping):
        return tuple(features)
    for name, made in features.items():
        if not isinstance(made, Calculation):
            raise Invalid(f'feature {name}: expected a calculation such as latest("column"), got {made!r}')
    return tuple(
        Feature(name, made.aggregation, made.column, made.over, made.default) for name, made in features.items()
    )


def _require_identifier(name: str, what: str) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise Invalid(f"{what}: expected a name of letters, digits and underscores, got {name!r}")


def _require_unique(names: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise Invalid(f"{what} {name} is declared twice")
        seen.add(name)
