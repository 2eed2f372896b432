"""A window of values as counts on the bins of a profile. Counts of parts add up to the counts of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relevo.statistics.baseline import CategoryProfile, NumericProfile, Profile, bin_of

Cells = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Counts on the bins of one profile.

    ``bins`` are those of a numeric profile, or its named categories in their order and all others last. ``outside``
    counts values below the baseline's least or above its greatest; for categories those that it does not name.
    ``sums`` are the sums of the values in each bin, empty for categories.
    """

    bins: Cells
    nulls: int
    outside: int
    sums: NDArray[np.float64]

    def __add__(self, other: Counts) -> Counts:
        """Counts of both parts together; they must come from the same profile."""
        return Counts(
            bins=self.bins + other.bins,
            nulls=self.nulls + other.nulls,
            outside=self.outside + other.outside,
            sums=self.sums + other.sums,
        )

    @property
    def values(self) -> int:
        """Rows that have a value."""
        return int(self.bins.sum())

    @property
    def rows(self) -> int:
        """Rows seen, nulls among them."""
        return self.values + self.nulls

    @property
    def null_rate(self) -> float:
        """Share of nulls; 0 without rows."""
        return self.nulls / self.rows if self.rows else 0.0

    @property
    def outside_rate(self) -> float:
        """Share of values that the baseline does not cover; 0 without values."""
        return self.outside / self.values if self.values else 0.0


def count_numbers(profile: NumericProfile, values: NDArray[Any]) -> Counts:
    """Counts of ``values`` ``(n,)``; NaN and infinities count as nulls.

    >>> profile = NumericProfile((0.0, 1.0), (3, 1, 0), (0.0, 1.0, 0.0), 0, 0.25, 0.43)
    >>> counts = count_numbers(profile, np.array([-1.0, 0.0, 1.0, 9.0, np.nan]))
    >>> counts.bins.tolist(), counts.nulls, counts.outside
    ([2, 1, 1], 1, 2)
    """
    numbers = np.asarray(values, dtype=np.float64)
    kept = numbers[np.isfinite(numbers)]
    edges = np.asarray(profile.edges, dtype=np.float64)
    bins = bin_of(edges, kept)
    below = int((kept < edges[0]).sum()) if len(edges) else 0
    cells = np.bincount(bins, minlength=len(edges) + 1)
    return Counts(
        bins=cells,
        nulls=len(numbers) - len(kept),
        outside=below + int(cells[-1]),
        sums=np.bincount(bins, weights=kept, minlength=len(edges) + 1).astype(np.float64),
    )


def count_categories(profile: CategoryProfile, counted: Mapping[str | None, int]) -> Counts:
    """Counts of rows by category, null among them, on the categories that ``profile`` names.

    >>> count_categories(CategoryProfile({"a": 5, "b": 2}, 0, 0, 2), {"b": 3, "z": 1, None: 4}).bins.tolist()
    [0, 3, 1]
    """
    named = [counted.get(name, 0) for name in profile.counts]
    nulls = counted.get(None, 0)
    other = sum(counted.values()) - nulls - sum(named)
    return Counts(np.array([*named, other], dtype=np.int64), nulls, other, np.empty(0))


def of_baseline(profile: Profile) -> Counts:
    """The baseline's own counts, in the same bins as a window's."""
    if isinstance(profile, NumericProfile):
        return Counts(np.array(profile.counts, dtype=np.int64), profile.nulls, 0, np.array(profile.sums))
    bins = np.array([*profile.counts.values(), profile.other], dtype=np.int64)
    return Counts(bins, profile.nulls, profile.other, np.empty(0))


def merged_bins(expected: Cells, actual: Cells, n_groups: int = 10) -> tuple[Cells, Cells]:
    """Neighbouring bins merged into at most ``n_groups`` of about equal baseline count: deciles from finer bins.

    >>> merged_bins(np.array([4, 4, 4, 4]), np.array([1, 2, 3, 4]), n_groups=2)
    (array([8, 8]), array([3, 7]))
    """
    middles = np.cumsum(expected) - expected / 2
    group = np.minimum((middles / max(expected.sum(), 1) * n_groups).astype(np.int64), n_groups - 1)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    return np.add.reduceat(expected, starts), np.add.reduceat(actual, starts)


def merged_categories(expected: Cells, actual: Cells, n_groups: int = 20) -> tuple[Cells, Cells]:
    """The ``n_groups - 1`` categories most frequent in the baseline, and all others as one last cell.

    Without this, a column of hundreds of categories shows a distance that is only the noise of rare ones: under no
    change the population stability index is about ``cells / rows``.

    >>> merged_categories(np.array([9, 5, 1, 1]), np.array([1, 2, 3, 4]), n_groups=3)
    (array([9, 5, 2]), array([1, 2, 7]))
    """
    if len(expected) <= n_groups:
        return expected, actual
    kept = np.sort(np.argsort(-expected, kind="stable")[: n_groups - 1])
    return _with_rest(expected, kept), _with_rest(actual, kept)


def _with_rest(cells: Cells, kept: NDArray[np.intp]) -> Cells:
    return np.append(cells[kept], cells.sum() - cells[kept].sum())
