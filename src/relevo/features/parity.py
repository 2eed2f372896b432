"""Whether the values that were served are those that training would see: a comparison of frames, and its words. Pure.

A frame has a row for each prediction, and for each feature three columns: as it was logged (``LOGGED``), as the sources
give it today for what was known when the online store answered (``KNOWN``), and as they give it had the store been
current (``CURRENT``). Beside them: ``AT``, ``THROUGH``, and ``LOOKED_UP``, the names of the inputs that were looked up,
``ID``, ``ROW`` (a number of the row), and the keys of the entities.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import reduce

import polars as pl

from relevo.features.model import FeatureView
from relevo.features.online import KEPT_BEFORE, Value

LOGGED, KNOWN, CURRENT, ONLINE = "logged_", "known_", "current_", "online_"
ID, AT, THROUGH, LOOKED_UP = "__prediction_id", "__asked_at", "__materialised_through", "__looked_up"
ROW = "__row"
_BEHIND = "__behind"

#: Two numbers are equal within tolerance when they differ by no more than this share of the larger one, or by
#: ``NOTHING``: sums are added in floating point, and what cancels out leaves the last bits.
TOLERANCE = 1e-9
NOTHING = 1e-12
#: Examples that are kept of each feature.
EXAMPLES = 5


class Cause(StrEnum):
    """Why a served value is not what the sources give."""

    CODE = "code"
    NOT_KEPT = "not kept"
    STORED = "stored"
    SOURCE = "source"
    REPLACED = "replaced"
    UNEXPLAINED = "unexplained"

    @property
    def words(self) -> str:
        """The cause in a sentence."""
        return _WORDS[self]


_WORDS = {
    Cause.CODE: "other code fills this view than the version was trained with, and it gives what was served",
    Cause.NOT_KEPT: "asked for a time longer ago than the online store keeps",
    Cause.STORED: "the sources give the rows that were materialised, and what the online store keeps does not follow "
    "from them",
    Cause.SOURCE: "the sources give other rows today than were materialised",
    Cause.REPLACED: "the online store gives what the sources give by now: it gave something else when it was asked",
    Cause.UNEXPLAINED: "the online store and the sources disagree",
}


@dataclass(frozen=True, slots=True)
class Example:
    """One value that differs. ``online`` is what the online store answers about that time today, when it can."""

    prediction_id: str | None
    asked_at: datetime
    entity: dict[str, Value]
    logged: Value
    expected: Value
    online: Value
    cause: Cause


@dataclass(frozen=True, slots=True)
class FeatureParity:
    """How the values of one feature compare.

    Attributes:
        compared: Values that were looked up; ``exact`` + ``close`` + ``different`` of them.
        exact: Equal to the last bit, null to null too.
        close: Equal within the tolerance.
        different: The others, by ``causes``.
        sent: Values that the caller sent: nothing to compare.
        behind: Of those compared, how many would have been another value had the store been current.
    """

    view: str
    feature: str
    compared: int = 0
    exact: int = 0
    close: int = 0
    different: int = 0
    sent: int = 0
    behind: int = 0
    causes: dict[Cause, int] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()

    def plus(self, other: FeatureParity) -> FeatureParity:
        """The two together."""
        counts = {
            name: getattr(self, name) + getattr(other, name)
            for name in ("compared", "exact", "close", "different", "sent", "behind")
        }
        causes = {cause: self.causes.get(cause, 0) + other.causes.get(cause, 0) for cause in Cause}
        return replace(
            self,
            **counts,
            causes={cause: count for cause, count in causes.items() if count},
            examples=(*self.examples, *other.examples)[:EXAMPLES],
        )


def added(found: Iterable[FeatureParity]) -> tuple[FeatureParity, ...]:
    """Results of several versions as one a feature, in the order in which they come."""
    together: dict[tuple[str, str], list[FeatureParity]] = {}
    for one in found:
        together.setdefault((one.view, one.feature), []).append(one)
    return tuple(reduce(FeatureParity.plus, each) for each in together.values())


class Comparison:
    """A frame of predictions whose features are compared, column by column.

    Args:
        frame: As this module describes it.
        views: Whose features.
    """

    def __init__(self, frame: pl.DataFrame, views: Sequence[FeatureView]) -> None:
        # Whether the store knew less than it could have, had it been current.
        self._frame = frame.with_columns((pl.col(THROUGH) < pl.col(AT)).fill_null(False).alias(_BEHIND))
        self._features = [(view.name, feature.name) for view in views for feature in view.features]

    def counts(self) -> list[FeatureParity]:
        """What is equal, close and different, a feature each; causes and examples are still to be found."""
        if not self._features:
            return []
        sums = [pl.struct(self._sums(name)).alias(name) for _, name in self._features]
        counted = self._frame.select(sums).row(0, named=True)
        found = [FeatureParity(view, name, **counted[name]) for view, name in self._features]
        return [replace(one, different=one.compared - one.exact - one.close) for one in found]

    def differing(self, feature: str) -> pl.DataFrame:
        """The rows in which the feature was looked up and is neither equal nor close."""
        exact, close = self._verdicts(feature)
        return self._frame.filter(pl.col(LOOKED_UP).list.contains(feature) & ~(exact | close))

    def _sums(self, name: str) -> list[pl.Expr]:
        looked_up = pl.col(LOOKED_UP).list.contains(name)
        exact, close = self._verdicts(name)
        return [
            looked_up.sum().alias("compared"),
            (looked_up & exact).sum().alias("exact"),
            (looked_up & close & ~exact).sum().alias("close"),
            (~looked_up).sum().alias("sent"),
            (looked_up & ~_same(self._frame.schema, KNOWN + name, CURRENT + name)).sum().alias("behind"),
        ]

    def _verdicts(self, name: str) -> tuple[pl.Expr, pl.Expr]:
        """Whether the logged value equals what was known, and whether it is close to it.

        The logged time is the least over all views. A view that was filled further may have served what was known by
        the asked time: that too is what training sees.
        """
        schema, known, current = self._frame.schema, KNOWN + name, CURRENT + name
        exact, close = _equal(schema, LOGGED + name, known), _close(schema, LOGGED + name, known)
        if self._frame[_BEHIND].any():
            exact |= pl.col(_BEHIND) & _equal(schema, LOGGED + name, current)
            close |= pl.col(_BEHIND) & _close(schema, LOGGED + name, current)
        return exact, close


def explain(
    differing: pl.DataFrame,
    view: FeatureView,
    feature: str,
    *,
    other_code: pl.Series | None,
    filled_through: datetime | None,
    source_is_same: bool | None,
) -> tuple[dict[Cause, int], tuple[Example, ...]]:
    """The causes of the values of one feature that differ, and examples.

    Args:
        differing: The rows in which it differs, with ``ONLINE``: what the store answers today; and the entity's keys.
        view: The feature's view.
        feature: Its name.
        other_code: The values by the code that fills the view now, when that is other code than the version's.
        filled_through: How far the view is filled now; None when it is not any more.
        source_is_same: Whether the source gives the rows that were materialised; None when nobody knows.
    """
    at, schema = pl.col(AT), differing.schema
    by_source = {True: Cause.STORED, False: Cause.SOURCE, None: Cause.UNEXPLAINED}[source_is_same]
    agrees_now = pl.lit(False)
    if filled_through is not None:
        is_kept = (at >= filled_through - KEPT_BEFORE) & (at <= filled_through)
        agrees_now = is_kept & _same(schema, ONLINE + feature, CURRENT + feature)
    by_other_code = pl.lit(False)
    if other_code is not None:
        differing = differing.with_columns(other_code.alias("__other"))
        by_other_code = _same(differing.schema, LOGGED + feature, "__other")
    cause = (
        pl.when(at < pl.col(THROUGH) - KEPT_BEFORE)
        .then(pl.lit(Cause.NOT_KEPT.value))
        .when(by_other_code)
        .then(pl.lit(Cause.CODE.value))
        .when(agrees_now)
        .then(pl.lit(Cause.REPLACED.value))
        .otherwise(pl.lit(by_source.value))
        .alias("__cause")
    )
    found = differing.with_columns(cause)
    causes = {Cause(name): count for name, count in found["__cause"].value_counts(sort=True).iter_rows()}
    # One example of each cause first: the rare one is the interesting one.
    some = found.with_columns(pl.int_range(pl.len()).over("__cause").alias("__turn")).sort(
        "__turn", maintain_order=True
    )
    examples = tuple(
        Example(
            prediction_id=row[ID],
            asked_at=row[AT],
            entity={key: row[key] for key in view.entity.key},
            logged=row[LOGGED + feature],
            expected=row[KNOWN + feature],
            online=row[ONLINE + feature],
            cause=Cause(row["__cause"]),
        )
        for row in some.head(EXAMPLES).iter_rows(named=True)
    )
    return causes, examples


def _same(schema: Mapping[str, pl.DataType], left: str, right: str) -> pl.Expr:
    return _equal(schema, left, right) | _close(schema, left, right)


def _equal(schema: Mapping[str, pl.DataType], left: str, right: str) -> pl.Expr:
    a, b = _alike(schema, left, right)
    return a.eq_missing(b)


def _close(schema: Mapping[str, pl.DataType], left: str, right: str) -> pl.Expr:
    a, b = _alike(schema, left, right)
    if not (schema[left].is_numeric() or schema[right].is_numeric()):
        return pl.lit(False)
    a, b = a.cast(pl.Float64), b.cast(pl.Float64)
    allowed = pl.max_horizontal(TOLERANCE * pl.max_horizontal(a.abs(), b.abs()), pl.lit(NOTHING))
    return (a.is_finite() & b.is_finite() & ((a - b).abs() <= allowed)).fill_null(False)


def _alike(schema: Mapping[str, pl.DataType], left: str, right: str) -> tuple[pl.Expr, pl.Expr]:
    """The two columns in one type: numbers as numbers, also where the log had to keep them as text."""
    kinds = schema[left], schema[right]
    a, b = pl.col(left), pl.col(right)
    if kinds[0] == kinds[1]:
        return a, b
    if any(kind.is_numeric() for kind in kinds):
        if all(kind.is_integer() for kind in kinds):
            return a.cast(pl.Int64), b.cast(pl.Int64)
        return a.cast(pl.Float64, strict=False), b.cast(pl.Float64, strict=False)
    return a.cast(pl.String), b.cast(pl.String)
