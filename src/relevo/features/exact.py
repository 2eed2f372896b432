"""Features of a window's own rows: where each asked window begins and ends among an entity's rows, and its values."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl

from relevo.features import windows
from relevo.features.model import Aggregation, Feature, FeatureView
from relevo.features.rows import KNOWN, bound_column, number_column, value_column
from relevo.features.windows import Integers

_PLACE, _FIRST, _FROM, _ORDER = "__place", "__first", "__from", "__order"


class ExactWindows:
    """The rows of one view, entity after entity, each in the order in which they began to count.

    Args:
        view: Whose rows.
        rows: As ``read_rows`` gives them.
    """

    def __init__(self, view: FeatureView, rows: pl.DataFrame) -> None:
        self._key = list(view.entity.key)
        self._rows = rows.sort(self._key, maintain_order=True)
        places = self._rows.select(*self._key, KNOWN, pl.int_range(pl.len(), dtype=pl.Int64).alias(_PLACE))
        places = places.with_columns(pl.col(_PLACE).min().over(self._key).alias(_FIRST))
        # Of rows of an entity that became known at once, the last stands for all: engines differ in which they take.
        is_last = pl.struct(*self._key, KNOWN).ne_missing(pl.struct(*self._key, KNOWN).shift(-1))
        self._places = places.filter(is_last).sort(KNOWN)

    def places(
        self, moments: pl.DataFrame, at: str, over: timedelta, *, known_by: str | None = None
    ) -> tuple[Integers, Integers]:
        """First row, and row after the last, of the window before each moment; both 0 where nothing is in it.

        Args:
            moments: Entity keys and the column ``at``, sorted by it unless ``known_by`` is given.
            at: The column with the asked time.
            over: Length of the windows.
            known_by: The column with the time through which rows are known, where that is not the asked time.
        """
        counted = self._until(moments, at) if known_by is None else self._until_unsorted(moments, known_by)
        ends = (counted[_PLACE] + 1).fill_null(0).to_numpy()
        if known_by is None:
            earlier = self._until(moments.with_columns((pl.col(at) - over).alias(_FROM)), _FROM)
        else:
            start = pl.when(pl.col(known_by).is_not_null()).then(pl.min_horizontal(pl.col(at) - over, known_by))
            earlier = self._until_unsorted(moments.with_columns(start.alias(_FROM)), _FROM)
        starts = (earlier[_PLACE] + 1).fill_null(counted[_FIRST]).fill_null(0).to_numpy()
        return starts, ends

    def values(self, feature: Feature, starts: Integers, ends: Integers) -> pl.Series:
        """The feature of each window."""
        column = str(feature.column)
        found: np.ndarray[Any, Any]
        match feature.aggregation:
            case Aggregation.MINIMUM | Aggregation.MAXIMUM:
                pick = np.fmin if feature.aggregation is Aggregation.MINIMUM else np.fmax
                found = windows.extremes(pick, self._numbers(bound_column(column)), starts, ends)
            case Aggregation.DEVIATION:
                found = windows.deviations(self._numbers(number_column(column)), starts, ends)
            case Aggregation.DISTINCT:
                found = windows.distinct_counts(self._previous(value_column(column)), starts, ends)
            case Aggregation.LAST:
                values = self._rows[value_column(column)]
                places = windows.last_places(values.is_not_null().to_numpy(), starts, ends)
                taken = pl.Series(places, dtype=pl.Int64)
                return values.gather(taken.set(taken < 0, None)).alias(feature.name)
            case other:
                raise AssertionError(f"{other} is not a feature of a window's own rows")
        return pl.Series(feature.name, found, nan_to_null=True)

    def _until(self, moments: pl.DataFrame, at: str) -> pl.DataFrame:
        return moments.join_asof(
            self._places, left_on=at, right_on=KNOWN, by=self._key, check_sortedness=False, coalesce=True
        )

    def _until_unsorted(self, moments: pl.DataFrame, at: str) -> pl.DataFrame:
        return self._until(moments.with_row_index(_ORDER).sort(at), at).sort(_ORDER)

    def _numbers(self, name: str) -> windows.Floats:
        return self._rows[name].fill_null(float("nan")).to_numpy()

    def _previous(self, name: str) -> Integers:
        """For ``distinct_counts``: the row before with the same entity and value."""
        # The place is a column of its own: made inside ``over`` it would count within the group.
        rows = self._rows.select(*self._key, name, pl.int_range(pl.len(), dtype=pl.Int64).alias(_PLACE))
        earlier = pl.col(_PLACE).shift(1).over([*self._key, name]).fill_null(-1)
        found = rows.select(pl.when(pl.col(name).is_null()).then(pl.len().cast(pl.Int64)).otherwise(earlier))
        return found.to_series().to_numpy()
