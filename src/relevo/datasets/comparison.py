"""Compares two versions of a dataset: schema, rows, cells, and each column's summary. Frames in, differences out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from relevo.datasets.differences import CellChange, ColumnDifference, Comparison, Summary

#: Rows and cells that are shown for each kind of difference.
EXAMPLES = 3
_MAX_TEXT = 120


def compare(before: pl.LazyFrame, after: pl.LazyFrame, names: Sequence[str]) -> Comparison:
    """What became of ``before``. Both are held in memory while they are compared.

    Null equals null, and NaN equals NaN.

    Args:
        before: The earlier version.
        after: The later one.
        names: The columns that together name a row; empty: whole rows are compared.
    """
    old, new = before.collect(), after.collect()
    shared = [name for name, kind in new.schema.items() if old.schema.get(name) == kind]
    note = _why_unnamed(old, new, names)
    summaries = _summaries(old), _summaries(new)
    if note is None:
        return _by_names(old, new, list(names), shared, summaries)
    return _by_whole_rows(old, new, note, shared, summaries)


Summaries = tuple[dict[str, Summary], dict[str, Summary]]


def _by_names(
    old: pl.DataFrame, new: pl.DataFrame, names: list[str], shared: list[str], summaries: Summaries
) -> Comparison:
    values = [name for name in shared if name not in names]
    both = _side(old, names, values, "b").join(
        _side(new, names, values, "a"), on=_aliases(names, "n"), how="full", coalesce=True, nulls_equal=True
    )
    is_old, is_new = pl.col("b").is_not_null(), pl.col("a").is_not_null()
    added, removed = both.filter(~is_old), both.filter(~is_new)
    kept = both.filter(is_old & is_new)
    differs = [pl.col(f"b{i}").ne_missing(pl.col(f"a{i}")).alias(f"d{i}") for i in range(len(values))]
    marks = kept.select(differs)
    changed = marks.select(pl.any_horizontal(pl.all())).to_series().sum() if values else 0
    cells: dict[str, tuple[int, tuple[CellChange, ...]]] = {}
    for i, name in enumerate(values):
        rows = kept.filter(marks[f"d{i}"])
        cells[name] = rows.height, _cells(rows, names, i)
    return Comparison(
        rows_before=old.height,
        rows_after=new.height,
        named_by=tuple(names),
        note=None,
        added=added.height,
        removed=removed.height,
        changed=int(changed),
        added_rows=_named_rows(added, names),
        removed_rows=_named_rows(removed, names),
        columns=_columns(old, new, summaries, cells),
    )


def _by_whole_rows(
    old: pl.DataFrame, new: pl.DataFrame, note: str, shared: list[str], summaries: Summaries
) -> Comparison:
    """Rows as a multiset over the columns that both have in the same type; none shared: the numbers of rows alone."""
    sides = [
        frame.select(
            pl.repeat(sign, pl.len(), dtype=pl.Int64).alias("more"),
            *(pl.col(name).alias(f"n{i}") for i, name in enumerate(shared)),
        )
        for frame, sign in ((old, -1), (new, 1))
    ]
    keys = _aliases(shared, "n") or [pl.lit(0).alias("n")]
    counted = pl.concat(sides).group_by(keys, maintain_order=True).agg(pl.col("more").sum())
    added, removed = counted.filter(pl.col("more") > 0), counted.filter(pl.col("more") < 0)
    return Comparison(
        rows_before=old.height,
        rows_after=new.height,
        named_by=(),
        note=note,
        added=int(added["more"].sum()),
        removed=-int(removed["more"].sum()),
        changed=None,
        added_rows=_named_rows(added, shared),
        removed_rows=_named_rows(removed, shared),
        columns=_columns(old, new, summaries, {}),
    )


def _why_unnamed(old: pl.DataFrame, new: pl.DataFrame, names: Sequence[str]) -> str | None:
    """Why rows cannot be told by ``names``; None when they can."""
    if not names:
        return "No column names a row, so whole rows are compared."
    for name in names:
        kinds = [frame.schema.get(name) for frame in (old, new)]
        if None in kinds:
            where = "before" if kinds[0] is None else "after"
            return f"{name!r}, which names a row, is not in the version {where}, so whole rows are compared."
        if kinds[0] != kinds[1]:
            return (
                f"{name!r}, which names a row, is {kinds[0]} before and {kinds[1]} after, so whole rows are compared."
            )
    for frame, which in ((old, "before"), (new, "after")):
        if frame.select(pl.struct(names).n_unique()).item() < frame.height:
            text = " and ".join(names)
            return f"Rows of the version {which} share the same {text}, so whole rows are compared."
    return None


def _side(frame: pl.DataFrame, names: list[str], values: list[str], side: str) -> pl.DataFrame:
    """Names as ``n0, n1, ...``, values as ``b0, ...`` or ``a0, ...``, and the side itself, true in each of its rows."""
    return frame.select(
        *(pl.col(name).alias(f"n{i}") for i, name in enumerate(names)),
        *(pl.col(name).alias(f"{side}{i}") for i, name in enumerate(values)),
        pl.lit(True).alias(side),
    )


def _aliases(names: Sequence[str], prefix: str) -> list[Any]:
    return [f"{prefix}{i}" for i in range(len(names))]


def _cells(rows: pl.DataFrame, names: list[str], place: int) -> tuple[CellChange, ...]:
    first = rows.sort(_aliases(names, "n")).head(EXAMPLES)
    texts = _named_rows(first, names)
    pairs = zip(texts, first[f"b{place}"].to_list(), first[f"a{place}"].to_list(), strict=True)
    return tuple(CellChange(row, text_of(before), text_of(after)) for row, before, after in pairs)


def _named_rows(rows: pl.DataFrame, names: list[str]) -> tuple[str, ...]:
    """The first rows by what names them, such as ``id: 7, at: 2013-01-01T00:00:00+00:00``."""
    keys = _aliases(names, "n")
    sortable = [key for key in keys if not rows.schema[key].is_nested()]
    first = (rows.sort(sortable) if sortable else rows).head(EXAMPLES).select(keys)
    return tuple(
        ", ".join(f"{name}: {text_of(value)}" for name, value in zip(names, row, strict=True)) for row in first.rows()
    )


def _columns(
    old: pl.DataFrame, new: pl.DataFrame, summaries: Summaries, cells: dict[str, tuple[int, tuple[CellChange, ...]]]
) -> tuple[ColumnDifference, ...]:
    """Each column: those of the later version in its order, then those that are gone."""
    names = [*new.columns, *(name for name in old.columns if name not in new.schema)]
    return tuple(
        ColumnDifference(
            name=name,
            type_before=str(old.schema[name]) if name in old.schema else None,
            type_after=str(new.schema[name]) if name in new.schema else None,
            before=summaries[0].get(name),
            after=summaries[1].get(name),
            changed=cells[name][0] if name in cells else None,
            examples=cells[name][1] if name in cells else (),
        )
        for name in names
    )


def _summaries(frame: pl.DataFrame) -> dict[str, Summary]:
    """Each column at a glance, in one pass."""
    if frame.width == 0:
        return {}
    asked = [
        expression.alias(f"{i} {field}")
        for i, (name, kind) in enumerate(frame.schema.items())
        for field, expression in _facts(pl.col(name), kind).items()
    ]
    found = frame.select(asked).row(0, named=True)
    return {name: _summary(found, i, frame.height) for i, name in enumerate(frame.columns)}


def _facts(column: pl.Expr, kind: pl.DataType) -> dict[str, pl.Expr]:
    facts = {"nulls": column.null_count()}
    if kind.is_numeric():
        facts |= {"mean": column.mean(), "minimum": column.min(), "maximum": column.max()}
    elif kind.is_temporal():
        facts |= {"minimum": column.min(), "maximum": column.max()}
    elif not kind.is_nested():
        facts |= {"distinct": column.drop_nulls().n_unique()}
    return facts


def _summary(found: dict[str, Any], place: int, rows: int) -> Summary:
    def fact(field: str) -> Any:
        return found.get(f"{place} {field}")

    mean = fact("mean")
    return Summary(
        null_rate=fact("nulls") / rows if rows else 0.0,
        mean=float(mean) if mean is not None and math.isfinite(mean) else None,
        minimum=_bound(fact("minimum")),
        maximum=_bound(fact("maximum")),
        distinct=fact("distinct"),
    )


def _bound(value: Any) -> int | float | str | None:
    """A number, or text of what JSON has no number for."""
    if value is None:
        return None
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    if isinstance(value, int):
        return value
    return float(value) if math.isfinite(value) else str(value)


def text_of(value: object) -> str:
    """A value as one short line; null is ``null``.

    >>> text_of(None), text_of(0.5), text_of("x" * 200)[-3:]
    ('null', '0.5', 'xx…')
    """
    if value is None:
        return "null"
    isoformat = getattr(value, "isoformat", None)
    text = " ".join((isoformat() if callable(isoformat) else str(value)).split())
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"
