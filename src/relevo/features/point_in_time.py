"""Features of many rows, each as it was known at the time of its row.

What the join promises, whatever the order and the faults of its input:

- The result has the rows of the spine, in the spine's order, and the features beside them.
- A row of a source counts from when it has happened and is known, whichever is later.
- ``latest`` is the row with the newest event time among those that count; of several, the one known last; of several
  still, the last in the table. Its age, asked time minus event time, may be the view's ttl, and no more.
- A window holds the rows that began to count in ``(asked - over, asked]``: it ends at the asked time, not at a row.
- Nulls and NaN are left out of windows; infinities are left out of sums, means and deviations, and kept elsewhere.
- ``last`` is the value of the row that began to count last; of rows that began at once, the one with the newest event.
- A null key or a null time matches nothing, and every feature is null. A key without rows has counts and sums of 0.
- NaN is null. A feature's default stands wherever its value would be null, at the very end.

Joining as-of on known time after dropping rows below the running maximum of event time is exact for ``latest``,
because such a row is never the newest from the moment that it is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta

import polars as pl

from relevo.contract.model import Source
from relevo.datasets.loading import TIME
from relevo.errors import Invalid, nearest
from relevo.features.exact import ExactWindows
from relevo.features.model import Aggregation, Feature, FeatureView
from relevo.features.policy import check_views
from relevo.features.rows import EVENT, KNOWN, columns_of, number_column, read_rows, unsorted_rows, value_column

_ROW, _AT, _FROM, _KNOWN_BY = "__row", "__at", "__from", "__known_by"
_COUNT = "__count"


def attach(
    spine: pl.LazyFrame,
    views: Sequence[FeatureView],
    tables: Mapping[str, pl.LazyFrame],
    *,
    sources: Iterable[Source],
    at: str,
    as_of: str | None = None,
) -> pl.LazyFrame:
    """The spine with the features of ``views`` as new columns, computed at once.

    Args:
        spine: Rows that are asked about; holds the views' entity keys and ``at``.
        views: The views to attach.
        tables: The table of each source by its name.
        sources: The declared sources of the views, which name their time columns.
        at: The column of the spine that holds the asked time, aware.
        as_of: The column that holds, for each row, the time through which rows are known, as far as that is before the
            asked time: what an online store that lags behind can know. Null knows nothing. Default: the asked time.

    Raises:
        Invalid: A view, a column or a type does not fit.
    """
    declared = {source.name: source for source in sources}
    check_views(views, declared.values())
    schema = spine.collect_schema()
    _check_spine(schema, views, at)

    def rows_of(view: FeatureView) -> pl.DataFrame:
        return _with_keys_of(schema, _rows(view, declared[view.source], tables[view.source]), view).collect()

    return _attached(spine.collect(), views, rows_of, at, as_of).lazy()


class KnownRows:
    """The rows of views, read and sorted once, for spines that come one after the other.

    Args:
        views: The views to attach.
        tables: The table of each source by its name.
        sources: The declared sources of the views.
        types: The types of the entity keys and of ``at`` in the spines.
        at: The column of the spines that holds the asked time, aware.

    Raises:
        Invalid: A view, a column or a type does not fit.
    """

    def __init__(
        self,
        views: Sequence[FeatureView],
        tables: Mapping[str, pl.LazyFrame],
        *,
        sources: Iterable[Source],
        types: Mapping[str, pl.DataType],
        at: str,
    ) -> None:
        declared = {source.name: source for source in sources}
        check_views(views, declared.values())
        schema = pl.Schema(types)
        _check_spine(schema, views, at)
        self._views = tuple(views)
        self._at = at
        self._rows = {
            view.name: _with_keys_of(schema, _rows(view, declared[view.source], tables[view.source]), view).collect()
            for view in views
        }

    def attach(self, spine: pl.DataFrame) -> pl.DataFrame:
        """As the function ``attach``, for a spine of the declared types."""
        return _attached(spine, self._views, lambda view: self._rows[view.name], self._at, None)


def _attached(
    frame: pl.DataFrame,
    views: Sequence[FeatureView],
    rows_of: Callable[[FeatureView], pl.DataFrame],
    at: str,
    as_of: str | None,
) -> pl.DataFrame:
    asked = _asked(frame, views, at, as_of)
    found = []
    for view in views:  # one after the other: unless they are kept, the rows of one view at a time are in memory
        features = _features(asked, view, rows_of(view), is_behind=as_of is not None)
        if not features[_ROW].equals(asked[_ROW]):
            features = asked.select(_ROW).join(features, on=_ROW, how="left", maintain_order="left")
        found.append(features.drop(_ROW))
    together = pl.concat([asked.select(_ROW), *found], how="horizontal").sort(_ROW).drop(_ROW)
    return pl.concat([frame, together], how="horizontal")


def _rows(view: FeatureView, source: Source, table: pl.LazyFrame) -> pl.LazyFrame:
    """The rows of the view by known time.

    Of rows known at once the newest event comes last where windows need that. The latest value does not, for what is
    overtaken is left out of it, and a sort by both times takes more than twice as long.
    """
    if view.windows:
        return read_rows(view, source, table)
    return unsorted_rows(view, source, table).sort(KNOWN, maintain_order=True)


def _asked(frame: pl.DataFrame, views: Sequence[FeatureView], at: str, as_of: str | None) -> pl.DataFrame:
    """What joins need of the spine: the number of the row, keys and times, in the order of time."""
    keys = list(dict.fromkeys(name for view in views for name in view.entity.key))
    known_by = pl.col(at)
    if as_of is not None:
        known_by = pl.when(pl.all_horizontal(pl.col(as_of, at).is_not_null())).then(
            pl.min_horizontal(pl.col(as_of).cast(TIME), pl.col(at).cast(TIME))
        )
    times = [pl.col(at).cast(TIME).alias(_AT), known_by.cast(TIME).alias(_KNOWN_BY)]
    return frame.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias(_ROW), *keys, *times).sort(_KNOWN_BY)


def _features(asked: pl.DataFrame, view: FeatureView, rows: pl.DataFrame, *, is_behind: bool) -> pl.DataFrame:
    """The number of each asked row, and the view's features."""
    found = asked.select(_ROW, *view.entity.key, _AT, _KNOWN_BY).lazy()
    found = _attach_latest(found, view, rows, is_behind=is_behind)
    found = _attach_running(found, view, rows.lazy(), is_behind=is_behind)
    frame = _attach_exact(found.collect(), view, rows, is_behind=is_behind)
    return _with_defaults(frame, view).select(_ROW, *(feature.name for feature in view.features))


def _attach_latest(asked: pl.LazyFrame, view: FeatureView, rows: pl.DataFrame, *, is_behind: bool) -> pl.LazyFrame:
    features = [feature for feature in view.features if not feature.aggregation.is_windowed]
    if not features:
        return asked
    values = [value_column(column) for column in columns_of(view, Aggregation.LATEST)]
    rows = _without_overtaken(view, rows.select(*view.entity.key, KNOWN, EVENT, *values))
    joined = _join(asked, rows.lazy(), view, _KNOWN_BY, is_behind)
    return joined.with_columns(_latest(feature, view.ttl) for feature in features).drop(EVENT, *values)


def _without_overtaken(view: FeatureView, rows: pl.DataFrame) -> pl.DataFrame:
    """``rows`` without those that were known only after a newer one of their entity: they are the latest never."""
    if rows[EVENT].is_sorted():
        return rows
    return rows.filter((pl.col(EVENT) >= pl.col(EVENT).cum_max()).over(view.entity.key))


def _latest(feature: Feature, ttl: timedelta | None) -> pl.Expr:
    age = pl.col(_AT) - pl.col(EVENT)
    if feature.aggregation is Aggregation.SINCE_LATEST:
        value = age.dt.total_microseconds() / 1e6
    else:
        value = pl.col(value_column(str(feature.column)))
    return (value if ttl is None else pl.when(age <= ttl).then(value)).alias(feature.name)


def _attach_running(asked: pl.LazyFrame, view: FeatureView, rows: pl.LazyFrame, *, is_behind: bool) -> pl.LazyFrame:
    """Prefix sums over each entity's rows; a window is the one at its end minus the one at its start."""
    running = [feature for feature in view.features if feature.aggregation.is_running]
    if not running:
        return asked
    prefixes = _prefixes(view)
    rows = rows.select(
        *view.entity.key, KNOWN, *(prefix.over(view.entity.key).alias(name) for name, prefix in prefixes.items())
    )
    asked = _join(asked, rows, view, _KNOWN_BY, is_behind)
    before = rows.rename({name: _before(name) for name in prefixes})
    for over, features in _by_window(running).items():
        start = pl.col(_AT) - over
        start = pl.min_horizontal(start, _KNOWN_BY) if is_behind else start
        asked = _join(asked.with_columns(start.alias(_FROM)), before, view, _FROM, is_behind)
        has_key = pl.all_horizontal(pl.col(*view.entity.key, _KNOWN_BY).is_not_null())
        asked = asked.with_columns(pl.when(has_key).then(_window(feature)).alias(feature.name) for feature in features)
        asked = asked.drop(_FROM, *(_before(name) for name in prefixes))
    return asked.drop(*prefixes)


def _by_window(features: Iterable[Feature]) -> dict[timedelta, list[Feature]]:
    windows: dict[timedelta, list[Feature]] = {}
    for feature in features:
        windows.setdefault(feature.over or timedelta(0), []).append(feature)
    return windows


def _prefixes(view: FeatureView) -> dict[str, pl.Expr]:
    prefixes: dict[str, pl.Expr] = {}
    if any(feature.aggregation is Aggregation.COUNT for feature in view.features):
        prefixes[_COUNT] = pl.int_range(1, pl.len() + 1)
    for column in columns_of(view, Aggregation.SUM, Aggregation.MEAN):
        number = pl.col(number_column(column))
        prefixes[_count_of(column)] = number.is_not_null().cum_sum().cast(pl.Int64)
        prefixes[_sum_of(column)] = number.fill_null(0.0).cum_sum()
    return prefixes


def _window(feature: Feature) -> pl.Expr:
    if feature.aggregation is Aggregation.COUNT:
        return _difference(_COUNT)
    count, total = _difference(_count_of(str(feature.column))), _difference(_sum_of(str(feature.column)))
    if feature.aggregation is Aggregation.MEAN:
        return pl.when(count > 0).then(total / count)
    return pl.when(count > 0).then(total).otherwise(0.0)


def _difference(name: str) -> pl.Expr:
    return pl.col(name).fill_null(0) - pl.col(_before(name)).fill_null(0)


def _attach_exact(asked: pl.DataFrame, view: FeatureView, rows: pl.DataFrame, *, is_behind: bool) -> pl.DataFrame:
    """Features for which a window's own rows are looked at: found by their place among the sorted rows."""
    features = [feature for feature in view.features if feature.aggregation.is_windowed]
    features = [feature for feature in features if not feature.aggregation.is_running]
    if not features:
        return asked
    exact = ExactWindows(view, rows)
    moments = asked.select(*view.entity.key, _AT, _KNOWN_BY)
    values = []
    for over, own in _by_window(features).items():
        starts, ends = exact.places(moments, _AT, over, known_by=_KNOWN_BY if is_behind else None)
        values += [exact.values(feature, starts, ends).cast(_type_of(feature, rows.schema)) for feature in own]
    has_key = pl.all_horizontal(pl.col(moments.columns).is_not_null())
    return asked.with_columns(pl.when(has_key).then(value).alias(value.name) for value in values)


def _type_of(feature: Feature, types: pl.Schema) -> pl.DataType:
    if feature.aggregation.gives == "column":
        return types[value_column(str(feature.column))]
    return pl.Int64() if feature.aggregation.gives == "integer" else pl.Float64()


def _with_defaults(asked: pl.DataFrame, view: FeatureView) -> pl.DataFrame:
    features = [feature for feature in view.features if feature.default is not None]
    schema = asked.schema
    return asked.with_columns(
        pl.col(feature.name).fill_null(_fitting(view, feature, schema[feature.name])) for feature in features
    )


def _fitting(view: FeatureView, feature: Feature, kind: pl.DataType) -> pl.Expr:
    """The default in the type of the feature's values."""
    value = feature.default
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = (
        (kind.is_float() and is_number)
        or (kind.is_integer() and is_number and value == int(value))  # type: ignore[arg-type]
        or (kind == pl.String and isinstance(value, str))
        or (kind == pl.Boolean and isinstance(value, bool))
    )
    if not fits:
        raise Invalid(f"feature {feature.name} of {view.name} is {kind}, and its default is {value!r}")
    return pl.lit(value).cast(kind)


def _join(asked: pl.LazyFrame, rows: pl.LazyFrame, view: FeatureView, on: str, is_behind: bool) -> pl.LazyFrame:
    if is_behind:  # otherwise every time that is joined on has the order of the asked times
        asked = asked.sort(on)
    # Both sides are sorted by time here; Polars cannot check that within keys, and would warn.
    return asked.join_asof(
        rows, left_on=on, right_on=KNOWN, by=list(view.entity.key), check_sortedness=False, coalesce=True
    ).drop(KNOWN, strict=False)


def _with_keys_of(schema: pl.Schema, rows: pl.LazyFrame, view: FeatureView) -> pl.LazyFrame:
    """The rows with key columns of the spine's types. A key that does not fit into them can match nothing."""
    types = rows.collect_schema()
    for name in view.entity.key:
        if _family(types[name]) != _family(schema[name]):
            raise Invalid(
                f"feature view {view.name}: key {name!r} is {schema[name]} in the rows asked about "
                f"and {types[name]} in source {view.source}"
            )
    casts = [pl.col(name).cast(schema[name], strict=False) for name in view.entity.key if types[name] != schema[name]]
    return rows.with_columns(casts).drop_nulls(list(view.entity.key)) if casts else rows


def _family(kind: pl.DataType) -> str:
    if kind.is_integer():
        return "integer"
    if kind == pl.String or isinstance(kind, (pl.Categorical, pl.Enum)):
        return "text"
    return str(kind)


def _check_spine(schema: pl.Schema, views: Sequence[FeatureView], at: str) -> None:
    for name in dict.fromkeys((at, *(key for view in views for key in view.entity.key))):
        if name not in schema:
            near = nearest(name, schema)
            hint = f"did you mean {near!r}?" if near else f"columns: {', '.join(schema)}"
            raise Invalid(f"the rows asked about have no column {name!r}, which the features need", hint=hint)
    kind = schema[at]
    if not isinstance(kind, pl.Datetime) or kind.time_zone is None:
        raise Invalid(f"the asked time {at!r} should hold aware datetimes, got {kind}")
    for view in views:
        for feature in view.features:
            if feature.name in schema:
                raise Invalid(f"feature {feature.name} of {view.name} has the name of a column that is there already")


def _count_of(column: str) -> str:
    return f"__count_{column}"


def _sum_of(column: str) -> str:
    return f"__sum_{column}"


def _before(name: str) -> str:
    return f"{name}_before"
