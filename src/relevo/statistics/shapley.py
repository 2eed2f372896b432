"""Shapley values of one answer of any model: what each input adds to it, from answers to mixtures with other rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Masks = NDArray[np.bool_]


def shapley_values(
    worth: Callable[[Masks], Array], n_inputs: int, *, pairs: int, random: np.random.Generator
) -> tuple[Array, Array]:
    """The base and what each input adds, by sampled orders of the inputs (Strumbelj & Kononenko 2014).

    Each order is taken forwards and backwards, which cancels much of the noise (Mitchell et al. 2022, section 4.3), and
    all of it where inputs act at most two by two. Base and contributions sum to the worth of all inputs exactly.

    Args:
        worth: The expected answers ``(n, n_outputs)`` when only the inputs that are true in ``(n, n_inputs)`` are
            known. Called once.
        n_inputs: At least 1.
        pairs: Orders to sample, each with its reverse.
        random: Draws the orders.

    Returns:
        The base ``(n_outputs,)``, the worth of knowing nothing, and the contributions ``(n_inputs, n_outputs)``.

    >>> base, added = shapley_values(lambda m: 1.0 + m[:, :1] * 3.0 + m[:, :1] * m[:, 1:] * 2.0, 2, pairs=1,
    ...                              random=np.random.default_rng(0))
    >>> base.tolist(), added.tolist()
    ([1.0], [[4.0], [1.0]])
    """
    forwards = [random.permutation(n_inputs) for _ in range(pairs)]
    orders = [order for forward in forwards for order in (forward, forward[::-1])]
    masks = np.zeros((len(orders), n_inputs + 1, n_inputs), dtype=np.bool_)
    for place, order in enumerate(orders):
        for step, known in enumerate(order):
            masks[place, step + 1 :, known] = True
    distinct, where = np.unique(masks.reshape(-1, n_inputs), axis=0, return_inverse=True)
    answers = worth(distinct)[where.ravel()].reshape(len(orders), n_inputs + 1, -1)
    added = np.zeros((n_inputs, answers.shape[2]))
    for place, order in enumerate(orders):
        added[order] += np.diff(answers[place], axis=0)
    return answers[0, 0], added / len(orders)
