"""The rows that a view reads, in the one form that joins, materialising and their tests start from."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from relevo.contract.model import Source
from relevo.datasets.loading import TIME, known_at, time_literal
from relevo.errors import Invalid, nearest
from relevo.features.model import Aggregation, FeatureView

#: Since when a row counts, and when it happened.
KNOWN, EVENT = "__known", "__event"

#: What a row of a source without times has: it has always been known.
ALWAYS = datetime(1, 1, 1, tzinfo=UTC)


def value_column(column: str) -> str:
    """The column as ``latest`` gives it."""
    return f"__value_{column}"


def number_column(column: str) -> str:
    """The column as windows add it up: Float64, null where there is no finite number."""
    return f"__number_{column}"


def read_rows(view: FeatureView, source: Source, table: pl.LazyFrame) -> pl.LazyFrame:
    """Rows of ``table`` that can count for ``view``: entity key, ``KNOWN``, ``EVENT`` and the columns of its features.

    Sorted by known time, then event time; rows equal in both stay in the order of the table, and the last one wins.
    Rows without a key, or not known yet, are left out. NaN is null.

    Raises:
        Invalid: A column is missing, or has a type that the feature cannot use.
    """
    schema = table.collect_schema()
    for column in (*view.entity.key, *view.columns):
        _require_column(view, column, schema)
    known = known_at(source)
    always = time_literal(ALWAYS)
    event = source.event_time or source.known_time
    columns = [*_values(view, schema), *_numbers(view, schema)]
    return (
        table.select(
            *(pl.col(name) for name in view.entity.key),
            (always if known is None else known.cast(TIME)).alias(KNOWN),
            (always if event is None else pl.col(event).cast(TIME)).alias(EVENT),
            *columns,
        )
        .drop_nulls([*view.entity.key, KNOWN, EVENT])
        .sort([KNOWN, EVENT] if may_be_late(source) else [KNOWN], maintain_order=True)
    )


def may_be_late(source: Source) -> bool:
    """Whether a row can become known after a row of a later event; otherwise known time and event time are one."""
    return None not in (source.event_time, source.known_time) and source.event_time != source.known_time


def columns_of(view: FeatureView, *aggregations: Aggregation) -> list[str]:
    """The source columns that features of these kinds read, each once."""
    features = (feature for feature in view.features if feature.aggregation in aggregations)
    return list(dict.fromkeys(feature.column for feature in features if feature.column))


def _values(view: FeatureView, schema: pl.Schema) -> list[pl.Expr]:
    return [_plain(view, name, schema[name]).alias(value_column(name)) for name in columns_of(view, Aggregation.LATEST)]


def _plain(view: FeatureView, name: str, kind: pl.DataType) -> pl.Expr:
    """The column in a type that a request can carry: a number, text or a truth value."""
    if kind.is_float():
        return pl.col(name).fill_nan(None)
    if kind.is_decimal():
        return pl.col(name).cast(pl.Float64)
    if kind.is_integer() or kind in (pl.String, pl.Boolean):
        return pl.col(name)
    if isinstance(kind, (pl.Categorical, pl.Enum)):
        return pl.col(name).cast(pl.String)
    raise Invalid(
        f"feature view {view.name}: column {name!r} of source {view.source} is {kind}; expected a number or text"
    )


def _numbers(view: FeatureView, schema: pl.Schema) -> list[pl.Expr]:
    numbers = []
    for name in columns_of(view, Aggregation.SUM, Aggregation.MEAN):
        kind = schema[name]
        if not (kind.is_numeric() or kind == pl.Boolean):
            raise Invalid(
                f"feature view {view.name}: cannot add up column {name!r} of source {view.source}, which is {kind}"
            )
        number = pl.col(name).cast(pl.Float64)
        # One NaN or infinity would stay in every later prefix sum.
        numbers.append(pl.when(number.is_finite()).then(number).alias(number_column(name)))
    return numbers


def _require_column(view: FeatureView, column: str, schema: pl.Schema) -> None:
    if column in schema:
        return
    near = nearest(column, schema)
    hint = f"did you mean {near!r}?" if near else f"columns: {', '.join(schema)}"
    raise Invalid(f"feature view {view.name}: source {view.source} has no column {column!r}", hint=hint)
