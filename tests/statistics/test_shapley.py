"""Shapley values by sampling, beside the exact ones by their definition."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.statistics.shapley import Array, Masks, shapley_values


def game(n_inputs: int, seed: int) -> dict[tuple[bool, ...], float]:
    """Any worth for each set of inputs."""
    random = np.random.default_rng(seed)
    return {mask: float(random.normal()) for mask in itertools.product((False, True), repeat=n_inputs)}


def exact(worth: dict[tuple[bool, ...], float], n_inputs: int) -> list[float]:
    """By the definition (Shapley 1953): the mean over all orders."""
    values = [0.0] * n_inputs
    for order in itertools.permutations(range(n_inputs)):
        known = [False] * n_inputs
        for place in order:
            before = worth[tuple(known)]
            known[place] = True
            values[place] += worth[tuple(known)] - before
    return [value / math.factorial(n_inputs) for value in values]


def asked(worth: dict[tuple[bool, ...], float]) -> Callable[[Masks], Array]:
    def answer(masks: Masks) -> Array:
        return np.array([[worth[tuple(mask.tolist())]] for mask in masks])

    return answer


@given(n_inputs=st.integers(1, 9), pairs=st.integers(1, 4), seed=st.integers(0, 999))
def test_base_and_contributions_sum_to_the_answer(n_inputs: int, pairs: int, seed: int) -> None:
    worth = game(n_inputs, seed)
    base, added = shapley_values(asked(worth), n_inputs, pairs=pairs, random=np.random.default_rng(seed))
    assert base.tolist() == [worth[(False,) * n_inputs]]
    assert base[0] + added.sum() == pytest.approx(worth[(True,) * n_inputs], abs=1e-9)


def test_many_orders_come_close_to_the_definition() -> None:
    worth = game(5, seed=3)
    _, added = shapley_values(asked(worth), 5, pairs=4_000, random=np.random.default_rng(1))
    assert added[:, 0] == pytest.approx(exact(worth, 5), abs=0.05)


def test_one_pair_is_exact_where_inputs_act_two_by_two() -> None:
    random = np.random.default_rng(5)
    main, both = random.normal(size=6), np.triu(random.normal(size=(6, 6)), 1)

    def answer(masks: Masks) -> Array:
        known = masks.astype(np.float64)
        return (known @ main + np.einsum("ni,ij,nj->n", known, both, known))[:, None]

    _, added = shapley_values(answer, 6, pairs=1, random=np.random.default_rng(0))
    assert added[:, 0] == pytest.approx(main + (both.sum(0) + both.sum(1)) / 2)


def test_an_input_that_changes_nothing_adds_nothing() -> None:
    _, added = shapley_values(lambda masks: masks[:, :2] * 3.0, 4, pairs=2, random=np.random.default_rng(0))
    assert added.tolist() == [[3.0, 0.0], [0.0, 3.0], [0.0, 0.0], [0.0, 0.0]]
