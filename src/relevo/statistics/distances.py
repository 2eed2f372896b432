"""How far two samples are apart, from their counts on the same bins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Cells = NDArray[np.int64]

#: Added to each cell where a logarithm needs one, so that an empty cell gives a large distance, not an infinite one.
PSEUDO_COUNT = 0.5


def population_stability_index(expected: Cells, actual: Cells) -> float:
    """``sum (a - e) ln(a / e)`` over cells of shares (Siddiqi 2006, p. 137), each count with one half added.

    By convention below 0.1 is small and above 0.25 large. NaN when either sample is empty. Under no change it is about
    ``(cells - 1) (1/n + 1/m)`` (Yurdakul & Naranjo 2020), so few cells and many rows make it meaningful.

    >>> round(population_stability_index(np.array([500, 500]), np.array([700, 300])), 3)
    0.169
    """
    if expected.sum() == 0 or actual.sum() == 0:
        return float("nan")
    e = (expected + PSEUDO_COUNT) / (expected + PSEUDO_COUNT).sum()
    a = (actual + PSEUDO_COUNT) / (actual + PSEUDO_COUNT).sum()
    return float(np.sum((a - e) * np.log(a / e)))


def kolmogorov_smirnov(expected: Cells, actual: Cells) -> float:
    """Largest difference of the two distribution functions at the edges of ordered bins; NaN when one is empty.

    It is at most the exact statistic, and less by at most the share of the largest bin.

    >>> round(kolmogorov_smirnov(np.array([1, 1, 2]), np.array([3, 1, 0])), 6)
    0.5
    """
    if expected.sum() == 0 or actual.sum() == 0:
        return float("nan")
    return float(np.abs(np.cumsum(expected) / expected.sum() - np.cumsum(actual) / actual.sum()).max())


def jensen_shannon(expected: Cells, actual: Cells) -> float:
    """Jensen-Shannon distance, base 2, in 0 to 1 (Lin 1991; Endres & Schindelin 2003); NaN when one is empty.

    >>> jensen_shannon(np.array([1, 0]), np.array([0, 1]))
    1.0
    >>> round(jensen_shannon(np.array([1, 1]), np.array([1, 3])), 4)
    0.2209
    """
    if expected.sum() == 0 or actual.sum() == 0:
        return float("nan")
    e, a = expected / expected.sum(), actual / actual.sum()
    middle = (e + a) / 2
    return float(np.sqrt(max(0.0, (_divergence(e, middle) + _divergence(a, middle)) / 2)))


def _divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    held = p > 0
    return float(np.sum(p[held] * np.log2(p[held] / q[held])))
