"""p-values of "both samples come from one distribution", from counts, and their correction for many columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

Cells = NDArray[np.int64]

#: Expected count below which the chi-square approximation is not used (Cochran 1954).
MIN_EXPECTED = 5.0


def chi_square_p_value(expected: Cells, actual: Cells) -> float:
    """Pearson's test of homogeneity on a table of two rows (Pearson 1900).

    Cells whose expected count is below 5 in either row are taken together first. 1 when nothing is left to compare,
    NaN when either sample is empty.

    >>> round(chi_square_p_value(np.array([30, 70]), np.array([50, 50])), 5)
    0.00389
    """
    n, m = int(expected.sum()), int(actual.sum())
    if n == 0 or m == 0:
        return float("nan")
    table = np.stack([expected, actual]).astype(np.float64)
    rare = table.sum(axis=0) * min(n, m) / (n + m) < MIN_EXPECTED
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0
    under_h0 = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    statistic = float(((table - under_h0) ** 2 / under_h0).sum())
    return float(special.chdtrc(table.shape[1] - 1, statistic))


def kolmogorov_smirnov_p_value(statistic: float, n: int, m: int) -> float:
    """Two-sample Kolmogorov-Smirnov test, asymptotic with the correction of Stephens (1970).

    From bins or with ties it is conservative: the p-value is at least the true one.

    >>> round(kolmogorov_smirnov_p_value(0.1, 500, 500), 4)
    0.0124
    """
    if n == 0 or m == 0 or np.isnan(statistic):
        return float("nan")
    root = float(np.sqrt(n * m / (n + m)))
    return float(special.kolmogorov((root + 0.12 + 0.11 / root) * statistic))


def benjamini_hochberg(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """p-values adjusted so that "below q" keeps the false discovery rate at q (Benjamini & Hochberg 1995).

    NaN stays NaN and does not count as a test.

    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03, 0.5])).round(4).tolist()
    [0.04, 0.0533, 0.0533, 0.5]
    """
    adjusted = np.full(len(p_values), np.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    if len(tested) == 0:
        return adjusted
    order = tested[np.argsort(p_values[tested])]
    scaled = p_values[order] * len(order) / np.arange(1, len(order) + 1)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return adjusted
