"""The rows that a view reads, in the one form that joins, materialising and their tests start from."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO

import polars as pl

from relevo.contract.model import Source
from relevo.datasets.loading import TIME, known_at, time_literal
from relevo.errors import Invalid, nearest
from relevo.features.model import Aggregation, FeatureView

#: Since when a row counts, and when it happened.
KNOWN, EVENT = "__known", "__event"

#: The digest of no row.
NOTHING_READ = f"{pl.__version__}:0"

#: What a row of a source without times has: it has always been known.
ALWAYS = datetime(1, 1, 1, tzinfo=UTC)


def value_column(column: str) -> str:
    """The column as ``latest`` and ``last`` give it, and as ``distinct`` counts it."""
    return f"__value_{column}"


def number_column(column: str) -> str:
    """The column as windows add it up: Float64, null where there is no finite number."""
    return f"__number_{column}"


def bound_column(column: str) -> str:
    """The column as minimum and maximum compare it: Float64, null where there is no number."""
    return f"__bound_{column}"


def read_rows(view: FeatureView, source: Source, table: pl.LazyFrame) -> pl.LazyFrame:
    """What ``unsorted_rows`` gives, by known time, then event time; of rows equal in both, the last one wins.

    Raises:
        Invalid: A column is missing, or has a type that the feature cannot use.
    """
    by = [KNOWN, EVENT] if may_be_late(source) else [KNOWN]
    return unsorted_rows(view, source, table).sort(by, maintain_order=True)


def unsorted_rows(view: FeatureView, source: Source, table: pl.LazyFrame) -> pl.LazyFrame:
    """Rows of ``table`` that can count for ``view``: entity key, ``KNOWN``, ``EVENT`` and the columns of its features.

    In the order of the table. Rows without a key, or not known yet, are left out. NaN is null.

    Raises:
        Invalid: A column is missing, or has a type that the feature cannot use.
    """
    schema = table.collect_schema()
    for column in (*view.entity.key, *view.reads):
        _require_column(view, column, schema)
    table = with_derived(view, table)
    schema = table.collect_schema()
    known = known_at(source)
    always = time_literal(ALWAYS)
    event = source.event_time or source.known_time
    columns = [*_values(view, schema), *_numbers(view, schema), *_bounds(view, schema)]
    return table.select(
        *(pl.col(name) for name in view.entity.key),
        (always if known is None else known.cast(TIME)).alias(KNOWN),
        (always if event is None else pl.col(event).cast(TIME)).alias(EVENT),
        *columns,
    ).drop_nulls([*view.entity.key, KNOWN, EVENT])


def with_derived(view: FeatureView, table: pl.LazyFrame) -> pl.LazyFrame:
    """``table`` with the view's derived columns. Only for child processes: it makes Polars read what a package gave.

    Raises:
        Invalid: A derived column has the name of one that is there, or its expression does not fit the types.
    """
    for column in view.derived:
        what = f"feature view {view.name}: derived column {column.name!r}"
        if column.name in table.collect_schema():
            raise Invalid(f"{what} has the name of a column of source {view.source}", hint="Give it another name.")
        try:
            expression = pl.Expr.deserialize(StringIO(column.expression), format="json")
        except (pl.exceptions.PolarsError, ValueError) as error:
            raise Invalid(f"{what} was written by another version of Polars: {error}", hint="Apply it anew.") from error
        try:  # on no rows, because Polars finds some mistakes only when it computes
            pl.DataFrame(schema=table.collect_schema()).select(expression)
        except pl.exceptions.PolarsError as error:
            raise Invalid(f"{what}: {str(error).partition(chr(10))[0]}") from error
        table = table.with_columns(expression.alias(column.name))
    return table


def content_of(rows: pl.DataFrame, before: str | None = NOTHING_READ) -> str | None:
    """The digest of rows as ``read_rows`` gives them, in any order, on top of that of rows ``before`` them.

    None when ``before`` is: it is not known, or another version of Polars, which hashes otherwise, has made it.
    """
    if before is None:
        return None
    made_by, _, total = before.partition(":")
    if made_by != pl.__version__:
        return None
    added = 0 if rows.is_empty() else int(rows.hash_rows().sum())
    return f"{made_by}:{(int(total, 16) + added) % 2**64:016x}"


def may_be_late(source: Source) -> bool:
    """Whether a row can become known after a row of a later event; otherwise known time and event time are one."""
    return None not in (source.event_time, source.known_time) and source.event_time != source.known_time


def columns_of(view: FeatureView, *aggregations: Aggregation) -> list[str]:
    """The source columns that features of these kinds read, each once."""
    features = (feature for feature in view.features if feature.aggregation in aggregations)
    return list(dict.fromkeys(feature.column for feature in features if feature.column))


def _values(view: FeatureView, schema: pl.Schema) -> list[pl.Expr]:
    names = columns_of(view, Aggregation.LATEST, Aggregation.LAST, Aggregation.DISTINCT)
    return [_plain(view, name, schema[name]).alias(value_column(name)) for name in names]


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
    for name in columns_of(view, Aggregation.SUM, Aggregation.MEAN, Aggregation.DEVIATION):
        number = _number(view, name, schema)
        # One NaN or infinity would stay in every later prefix sum.
        numbers.append(pl.when(number.is_finite()).then(number).alias(number_column(name)))
    return numbers


def _bounds(view: FeatureView, schema: pl.Schema) -> list[pl.Expr]:
    names = columns_of(view, Aggregation.MINIMUM, Aggregation.MAXIMUM)
    return [_number(view, name, schema).fill_nan(None).alias(bound_column(name)) for name in names]


def _number(view: FeatureView, name: str, schema: pl.Schema) -> pl.Expr:
    kind = schema[name]
    if kind.is_numeric() or kind == pl.Boolean:
        return pl.col(name).cast(pl.Float64)
    reader = next(f for f in view.features if f.column == name and f.aggregation.gives == "number")
    raise Invalid(
        f"feature view {view.name}: feature {reader.name} is the {reader.aggregation} of column {name!r} "
        f"of source {view.source}, which is {kind}; expected numbers"
    )


def _require_column(view: FeatureView, column: str, schema: pl.Schema) -> None:
    if column in schema:
        return
    near = nearest(column, schema)
    hint = f"did you mean {near!r}?" if near else f"columns: {', '.join(schema)}"
    raise Invalid(f"feature view {view.name}: source {view.source} has no column {column!r}", hint=hint)
