"""Drift that was put in is found; where there is none, windows stay quiet."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from relevo.monitoring.analysis import drift_of
from relevo.statistics.baseline import Baseline, CategoryProfile, category_profile, numeric_profile

Shuffled = Callable[[np.random.Generator, int], pl.DataFrame]
N_COLUMNS = 10


def _baseline(frame: pl.DataFrame) -> Baseline:
    profiles = {
        name.removeprefix("x_"): category_profile(frame[name].to_list())
        if frame[name].dtype == pl.String
        else numeric_profile(frame[name].to_numpy())
        for name in frame.columns
        if name != "prediction"
    }
    return Baseline(profiles, numeric_profile(frame["prediction"].to_numpy()))


@pytest.mark.parametrize("rows", [500, 2000])
def test_at_most_two_windows_in_a_hundred_alarm_on_shuffled_data(rows: int) -> None:
    rng = np.random.default_rng(rows)
    table = pl.DataFrame(
        {f"x_n{i}": rng.gamma(1 + i, size=40_000).round(1) for i in range(N_COLUMNS)}
        | {"x_c3": rng.choice(list("abc"), 40_000), "x_c200": rng.zipf(1.3, 40_000).clip(0, 200).astype(str)}
        | {"prediction": rng.beta(2, 5, 40_000)}
    )
    baseline = _baseline(table.slice(0, 20_000))
    alarms = 0
    for _ in range(100):
        window = table[20_000 + rng.permutation(20_000)[:rows]]
        alarms += any(column.is_drifted for column in drift_of(window, baseline))
    assert alarms <= 2


@pytest.mark.parametrize("rows", [500, 5000])
def test_a_shift_of_half_a_standard_deviation_is_found_in_that_column_alone(shuffled: Shuffled, rows: int) -> None:
    rng = np.random.default_rng(1)
    baseline = _baseline(shuffled(rng, 20_000))
    window = shuffled(rng, rows).with_columns(pl.col("x_speed") + 7.5)
    assert {column.column for column in drift_of(window, baseline) if column.is_drifted} == {"speed"}


def test_other_shares_of_categories_are_found(shuffled: Shuffled) -> None:
    rng = np.random.default_rng(2)
    baseline = _baseline(shuffled(rng, 20_000))
    assert not any(column.is_drifted for column in drift_of(shuffled(rng, 2000), baseline))
    window = shuffled(rng, 2000).with_columns(
        x_origin=pl.Series(rng.choice(["EWR", "JFK", "LGA"], 2000, p=[0.2, 0.6, 0.2]))
    )
    assert {column.column for column in drift_of(window, baseline) if column.is_drifted} == {"origin"}


def test_nulls_and_values_never_seen_are_counted(shuffled: Shuffled) -> None:
    rng = np.random.default_rng(3)
    baseline = _baseline(shuffled(rng, 20_000))
    window = shuffled(rng, 1000).with_columns(
        x_speed=pl.when(pl.int_range(pl.len()) < 100).then(None).otherwise(pl.col("x_speed") + 1000),
        x_origin=pl.lit("ORD"),
    )
    found = {column.column: column for column in drift_of(window, baseline)}
    assert found["speed"].null_rate == pytest.approx(0.1)
    assert found["speed"].outside_rate == 1
    assert found["origin"].outside_rate == 1
    assert found["hour"].outside_rate == 0


def test_a_column_without_values_has_no_verdict(shuffled: Shuffled) -> None:
    rng = np.random.default_rng(4)
    baseline = _baseline(shuffled(rng, 5000))
    window = shuffled(rng, 1000).with_columns(x_speed=pl.lit(None, dtype=pl.Float64))
    speed = next(column for column in drift_of(window, baseline) if column.column == "speed")
    assert (speed.psi, speed.distance, speed.p_value, speed.is_drifted) == (None, None, None, False)
    assert speed.null_rate == 1


def test_columns_that_were_not_logged_are_left_out(shuffled: Shuffled) -> None:
    baseline = Baseline({"gone": CategoryProfile({"a": 1}, 0, 0, 1)}, None)
    assert drift_of(shuffled(np.random.default_rng(5), 10), baseline) == ()
