"""The profile of a column that later windows are compared with: counts on fixed bins, sealed with the model.

A profile is small (about 0.5 KB a column) and says how to count: a window's values become counts on the profile's
bins, and counts of parts add up to the counts of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

N_EDGES = 64
TOP_CATEGORIES = 1000
OTHER = "(other)"


@dataclass(frozen=True, slots=True)
class NumericProfile:
    """Counts of a numeric column on the bins between quantiles of the baseline itself.

    ``edges`` are at most 64 distinct quantiles, the first the least value, the last the greatest. Bin ``i`` is open
    on the left and closed on the right, so a value that many rows share has a bin of its own: bin 0 is
    ``<= edges[0]``, the last bin ``> edges[-1]``; there is one bin more than edges. ``sums`` are
    the sums of the values in each bin. ``nulls`` counts nulls, NaN and infinities.
    ``mean`` and ``std`` are None without any value.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    sums: tuple[float, ...]
    nulls: int
    mean: float | None
    std: float | None
    kind: Literal["numeric"] = "numeric"

    @property
    def rows(self) -> int:
        """Rows seen, nulls among them."""
        return sum(self.counts) + self.nulls

    @property
    def null_rate(self) -> float:
        """Share of nulls; 0 without rows."""
        return self.nulls / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class CategoryProfile:
    """Counts of the most frequent categories, of all ``other`` ones together, and of nulls.

    ``distinct`` is how many categories there were, the others among them.
    """

    counts: dict[str, int]
    other: int
    nulls: int
    distinct: int
    kind: Literal["category"] = "category"

    @property
    def rows(self) -> int:
        """Rows seen, nulls among them."""
        return sum(self.counts.values()) + self.other + self.nulls

    @property
    def null_rate(self) -> float:
        """Share of nulls; 0 without rows."""
        return self.nulls / self.rows if self.rows else 0.0


Profile = NumericProfile | CategoryProfile


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is sealed in a bundle as ``baseline.json``: a profile of each input, and of the predictions."""

    columns: dict[str, Profile] = field(default_factory=dict)
    prediction: Profile | None = None


def numeric_profile(values: NDArray[Any]) -> NumericProfile:
    """The profile of ``values`` ``(n,)``, numbers or booleans; NaN and infinities count as nulls.

    >>> profile = numeric_profile(np.array([0.0, 0.0, 0.0, 1.0, np.nan]))
    >>> profile.edges, profile.counts, profile.nulls, profile.mean
    ((0.0, 1.0), (3, 1, 0), 1, 0.25)
    """
    numbers = np.asarray(values, dtype=np.float64)
    kept = numbers[np.isfinite(numbers)]
    nulls = len(numbers) - len(kept)
    if len(kept) == 0:
        return NumericProfile((), (0,), (0.0,), nulls, None, None)
    # An edge must be a value of the data, else a discrete column would get bins between its values.
    edges = np.unique(np.quantile(kept, np.linspace(0, 1, N_EDGES), method="inverted_cdf"))
    bins = bin_of(edges, kept)
    counts = np.bincount(bins, minlength=len(edges) + 1)
    sums = np.bincount(bins, weights=kept, minlength=len(edges) + 1)
    return NumericProfile(
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        sums=tuple(sums.tolist()),
        nulls=nulls,
        mean=float(kept.mean()),
        std=float(kept.std()),
    )


def category_profile(values: Iterable[str | None], top: int = TOP_CATEGORIES) -> CategoryProfile:
    """The profile of ``values``: the ``top`` most frequent categories by name (ties in the order of the names).

    >>> category_profile(["b", "a", "b", None, "c"], top=2)
    CategoryProfile(counts={'b': 2, 'a': 1}, other=1, nulls=1, distinct=3, kind='category')
    """
    counted: dict[str | None, int] = {}
    for value in values:
        counted[value] = counted.get(value, 0) + 1
    nulls = counted.pop(None, 0)
    ranked = sorted(((str(name), count) for name, count in counted.items()), key=lambda item: (-item[1], item[0]))
    return CategoryProfile(
        counts=dict(ranked[:top]),
        other=sum(count for _, count in ranked[top:]),
        nulls=nulls,
        distinct=len(ranked),
    )


def bin_of(edges: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.intp]:
    """The bin of each finite value: the number of edges below it.

    >>> bin_of(np.array([0.0, 1.0]), np.array([-5.0, 0.0, 0.5, 1.0, 2.0])).tolist()
    [0, 0, 1, 1, 2]
    """
    return np.asarray(np.searchsorted(edges, values, side="left"))


def parse_profile(json: Mapping[str, Any]) -> Profile:
    """A profile from its plain JSON form.

    Raises:
        ValueError: When ``kind`` is not that of a profile, or a field is missing.
    """
    kinds: dict[str, Callable[..., Profile]] = {"numeric": NumericProfile, "category": CategoryProfile}
    kind = kinds.get(str(json.get("kind")))
    if kind is None:
        raise ValueError(f"a profile is of kind numeric or category, got {json.get('kind')!r}")
    try:
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in json.items()})
    except TypeError as error:
        raise ValueError(f"not a profile of kind {json['kind']}: {error}") from error


def parse_baseline(json: Mapping[str, Any]) -> Baseline:
    """The content of ``baseline.json``.

    Raises:
        ValueError: When it is not one.
    """
    prediction = json.get("prediction")
    return Baseline(
        columns={name: parse_profile(profile) for name, profile in json.get("columns", {}).items()},
        prediction=parse_profile(prediction) if prediction is not None else None,
    )
