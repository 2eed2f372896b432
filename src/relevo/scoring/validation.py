"""Whole columns as the endpoint takes them: the same types, and the same refusals, for many rows at once.

A column of a wrong type is wrong for every row and ends the run. A value that does not fit is the fault of its row.
What tables cannot say otherwise is taken as it is meant: NaN is null, and 0 and 1 are booleans (SQLite has none).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from relevo.datasets.loading import TIME, time_literal
from relevo.errors import Invalid
from relevo.platform.clock import MAX_AHEAD
from relevo.runtimes.model import Column, ColumnType, Signature
from relevo.runtimes.requests import EXPECTED, Layout

#: Types of the columns that a model is asked with.
TYPES: dict[ColumnType, pl.DataType] = {
    ColumnType.FLOAT: pl.Float64(),
    ColumnType.INTEGER: pl.Int64(),
    ColumnType.TEXT: pl.String(),
    ColumnType.BOOLEAN: pl.Boolean(),
    ColumnType.TIME: TIME,
}
_WITH_OFFSET = r"(Z|z|[+-]\d{2}(:?\d{2}(:?\d{2})?)?)$"


@dataclass(frozen=True, slots=True)
class Refusals:
    """Why rows cannot be answered: per row the message and the column that is wrong, null for rows that can."""

    message: pl.Series
    field: pl.Series

    @classmethod
    def none(cls, rows: int) -> Refusals:
        """No row is refused."""
        return cls(pl.Series([None], dtype=pl.String).new_from_index(0, rows), _nothing(rows))

    def then(self, messages: pl.Series, field: str) -> Refusals:
        """With further refusals; the first of a row stands."""
        message = pl.DataFrame({"a": self.message, "b": messages}).select(pl.coalesce("a", "b")).to_series()
        named = pl.DataFrame({"a": self.field, "b": messages}).select(
            pl.when(pl.col("a").is_not_null()).then("a").when(pl.col("b").is_not_null()).then(pl.lit(field))
        )
        return Refusals(message, named.to_series())


def sent_columns(signature: Signature, columns: Sequence[str]) -> list[Column]:
    """The columns of the input that the model is asked with; others belong to the caller.

    Raises:
        Invalid: One that has to be there is missing; the error names it.
    """
    layout = Layout.of(signature)
    sent = [name for name in layout.columns if name in columns]
    layout.check_columns(sent)
    return [layout.columns[name] for name in sent]


def typed(
    frame: pl.DataFrame, columns: Sequence[Column], signature: Signature, as_of: datetime
) -> tuple[pl.DataFrame, Refusals]:
    """The columns as their types, and the rows with a value that does not fit.

    Args:
        frame: Rows of the input.
        columns: What ``sent_columns`` gave.
        signature: Of the version.
        as_of: Rows without an asked time are asked then; none may be asked later, but for the clocks' difference.

    Raises:
        Invalid: A column holds values of another type altogether.
    """
    refusals = Refusals.none(frame.height)
    values = []
    for column in columns:
        value, wrong = _typed(column, frame[column.name])
        values.append(value)
        refusals = refusals.then(wrong, column.name)
    found = pl.DataFrame(values) if values else pl.DataFrame(height=frame.height)
    at = signature.at
    if at is not None:
        given = found[at] if at in found.columns else pl.Series(at, [None], dtype=TIME).new_from_index(0, frame.height)
        found = found.with_columns(given.fill_null(pl.select(time_literal(as_of)).item()).alias(at))
        late = pl.format(
            "asked at {}, and the event time is " + f"{as_of.isoformat()}; at most {MAX_AHEAD.total_seconds():.0f} s "
            "ahead are accepted",
            pl.col(at).dt.to_string("iso"),
        )
        is_late = pl.col(at) > time_literal(as_of + MAX_AHEAD)
        refusals = refusals.then(found.select(pl.when(is_late).then(late)).to_series(), at)
    return found, refusals


def _typed(column: Column, values: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The values as the column's type, null where they do not fit; and why they do not."""
    kind, name = values.dtype, column.name
    if kind == pl.Null:
        values = values.cast(TYPES[column.type])
        kind = values.dtype
    given, is_wrong = pl.col(name), pl.lit(False)
    if kind.is_float():
        given = given.fill_nan(None)
    match column.type:
        case ColumnType.FLOAT if kind.is_numeric():
            value = given.cast(pl.Float64)
            is_wrong = value.is_infinite()
        case ColumnType.INTEGER if kind.is_integer():
            value = given.cast(pl.Int64, strict=False)
        case ColumnType.INTEGER if kind.is_numeric():
            is_wrong = given.cast(pl.Float64) != given.cast(pl.Float64).floor()
            value = given.cast(pl.Int64, strict=False)
        case ColumnType.BOOLEAN if kind == pl.Boolean:
            value = given
        case ColumnType.BOOLEAN if kind.is_integer():
            is_wrong = ~given.is_in([0, 1])
            value = given == 1
        case ColumnType.TEXT if kind == pl.String or isinstance(kind, (pl.Categorical, pl.Enum)):
            value = given.cast(pl.String)
        case ColumnType.TIME if isinstance(kind, pl.Datetime) and kind.time_zone is not None:
            value = given.cast(TIME)
        case ColumnType.TIME if kind == pl.String:
            is_wrong = ~given.str.contains(_WITH_OFFSET)
            value = given.str.to_datetime(time_zone="UTC", time_unit="us", strict=False)
        case _:
            raise _wrong_type(column, kind)
    is_wrong = is_wrong.fill_null(False) | (given.is_not_null() & value.is_null())
    refused: pl.Expr = pl.when(is_wrong).then(_refusal(column, pl.col(name).cast(pl.String, strict=False)))
    if not column.nullable:
        is_null = given.is_null()
        refused = pl.coalesce(refused, pl.when(is_null).then(_refusal(column, pl.lit("null"))))
    found = pl.DataFrame({name: values}).select(
        pl.when(~is_wrong).then(value).cast(TYPES[column.type]).alias(name), refused.cast(pl.String).alias("refused")
    )
    return found[name], found["refused"]


def _refusal(column: Column, got: pl.Expr) -> pl.Expr:
    shown = got.fill_null("a value that is none").str.slice(0, 60)
    return pl.format(f"expected {EXPECTED[column.type]}, got {{}}", shown)


def _wrong_type(column: Column, kind: pl.DataType) -> Invalid:
    hint = None
    if column.type is ColumnType.TIME and isinstance(kind, pl.Datetime):
        hint = "Give its times a zone."
    message = f"Column {column.name!r}: expected {EXPECTED[column.type]} in each row, got a column of {kind}."
    return Invalid(message, field=column.name, hint=hint)


def _nothing(rows: int) -> pl.Series:
    return pl.Series([None], dtype=pl.String).new_from_index(0, rows)
