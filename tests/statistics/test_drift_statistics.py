import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from relevo.platform.encoding import canonical, parse
from relevo.statistics.baseline import (
    Baseline,
    CategoryProfile,
    NumericProfile,
    category_profile,
    numeric_profile,
    parse_baseline,
    parse_profile,
)
from relevo.statistics.counts import (
    Counts,
    count_categories,
    count_numbers,
    merged_bins,
    merged_categories,
    of_baseline,
)
from relevo.statistics.distances import jensen_shannon, kolmogorov_smirnov, population_stability_index
from relevo.statistics.significance import benjamini_hochberg, chi_square_p_value, kolmogorov_smirnov_p_value

numbers = st.lists(st.one_of(st.floats(-1e6, 1e6), st.sampled_from([0.0, 1.0, math.nan, math.inf])), max_size=80)
categories = st.lists(st.one_of(st.none(), st.sampled_from("abcdef")), max_size=60)


def _same(left: Counts, right: Counts) -> bool:
    return (
        left.bins.tolist() == right.bins.tolist()
        and (left.nulls, left.outside) == (right.nulls, right.outside)
        and np.allclose(left.sums, right.sums, rtol=1e-9, atol=1e-3)
    )


def _tally(values: list[str | None]) -> dict[str | None, int]:
    return {value: values.count(value) for value in set(values)}


@given(numbers, numbers, numbers)
def test_counts_of_parts_add_up_to_the_counts_of_the_whole(base: list[float], a: list[float], b: list[float]) -> None:
    profile = numeric_profile(np.array(base))
    parts = count_numbers(profile, np.array(a)) + count_numbers(profile, np.array(b))
    assert _same(parts, count_numbers(profile, np.array(a + b)))
    assert parts.rows == len(a) + len(b)


@given(categories, categories, categories)
def test_category_counts_of_parts_add_up(base: list[str | None], a: list[str | None], b: list[str | None]) -> None:
    profile = category_profile(base, top=3)
    parts = count_categories(profile, _tally(a)) + count_categories(profile, _tally(b))
    assert _same(parts, count_categories(profile, _tally(a + b)))
    assert parts.rows == len(a) + len(b)


@given(numbers)
def test_the_baseline_counted_on_its_own_bins_is_itself(base: list[float]) -> None:
    profile = numeric_profile(np.array(base))
    counts = count_numbers(profile, np.array(base))
    assert _same(counts, of_baseline(profile))
    assert counts.outside == 0
    assert profile.rows == len(base)
    assert len(profile.counts) == len(profile.edges) + 1


@given(numbers, categories)
def test_profiles_come_back_from_json(base: list[float], names: list[str | None]) -> None:
    import json

    baseline = Baseline({"x": numeric_profile(np.array(base)), "c": category_profile(names)}, None)
    stored = json.loads(canonical(baseline))
    assert parse_baseline(stored) == baseline
    assert parse(NumericProfile, stored["columns"]["x"]) == baseline.columns["x"]
    assert parse(CategoryProfile, stored["columns"]["c"]) == baseline.columns["c"]


def test_what_is_not_a_profile_is_refused() -> None:
    with pytest.raises(ValueError, match="numeric or category, got 'histogram'"):
        parse_profile({"kind": "histogram"})
    with pytest.raises(ValueError, match="not a profile of kind numeric"):
        parse_profile({"kind": "numeric", "edges": []})


def test_a_profile_of_a_real_size_stays_small() -> None:
    profile = numeric_profile(np.random.default_rng(0).normal(size=100_000))
    assert len(profile.edges) == 64
    assert len(canonical(profile)) < 3500
    assert profile.mean == pytest.approx(sum(profile.sums) / sum(profile.counts))


def test_binned_ks_is_within_the_largest_bin_of_the_exact_one() -> None:
    rng = np.random.default_rng(1)
    for shift in (0.0, 0.1, 0.5):
        base, now = rng.normal(size=20_000), rng.normal(shift, size=2_000)
        profile = numeric_profile(base)
        exact = stats.ks_2samp(base, now).statistic
        binned = kolmogorov_smirnov(of_baseline(profile).bins, count_numbers(profile, now).bins)
        assert exact - 1 / 63 <= binned <= exact + 1e-12
        assert exact - binned < 0.012


def test_ks_p_value_agrees_with_scipy() -> None:
    for statistic, n, m in ((0.02, 6000, 20_000), (0.1, 500, 500), (0.05, 900, 3000)):
        expected = stats.kstwo.sf(statistic, round(n * m / (n + m)))
        assert kolmogorov_smirnov_p_value(statistic, n, m) == pytest.approx(expected, rel=0.15, abs=1e-9)


def test_jensen_shannon_agrees_with_scipy() -> None:
    rng = np.random.default_rng(2)
    for _ in range(10):
        e, a = rng.integers(0, 50, 12), rng.integers(0, 50, 12)
        assert jensen_shannon(e, a) == pytest.approx(jensenshannon(e, a, base=2))


def test_chi_square_agrees_with_scipy_when_no_cell_is_rare() -> None:
    rng = np.random.default_rng(3)
    for _ in range(10):
        e, a = rng.integers(40, 90, 8), rng.integers(40, 90, 8)
        expected = stats.chi2_contingency(np.stack([e, a]), correction=False).pvalue
        assert chi_square_p_value(e, a) == pytest.approx(expected)


def test_chi_square_takes_rare_cells_together() -> None:
    e, a = np.array([500, 500, 1, 1, 1, 1, 1, 1, 1, 1]), np.array([500, 500, 1, 1, 1, 1, 1, 1, 1, 1])
    assert chi_square_p_value(e, a) == pytest.approx(1)
    assert chi_square_p_value(np.array([10, 0]), np.array([20, 0])) == 1


def test_benjamini_hochberg_agrees_with_scipy_and_leaves_nan_out() -> None:
    p = np.random.default_rng(4).uniform(size=30) ** 2
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))
    with_nan = np.insert(p, 3, np.nan)
    adjusted = benjamini_hochberg(with_nan)
    assert np.isnan(adjusted[3])
    assert np.delete(adjusted, 3) == pytest.approx(stats.false_discovery_control(p))


@pytest.mark.parametrize("distance", [population_stability_index, kolmogorov_smirnov, jensen_shannon])
def test_a_distance_is_zero_for_the_same_shares_and_nan_for_nothing(distance: object) -> None:
    cells = np.array([30, 20, 50])
    assert callable(distance)
    assert distance(cells, cells) == pytest.approx(0, abs=1e-9)
    assert math.isnan(distance(cells, np.zeros(3, dtype=int)))


def test_psi_agrees_with_its_formula_and_survives_empty_cells() -> None:
    e, a = np.array([4000, 3000, 3000]), np.array([2000, 5000, 3000])
    shares = np.log([0.2 / 0.4, 0.5 / 0.3]) @ [0.2 - 0.4, 0.5 - 0.3]
    assert population_stability_index(e, a) == pytest.approx(shares, rel=1e-3)
    assert 1 < population_stability_index(np.array([1000, 0]), np.array([0, 1000])) < 20


@given(st.lists(st.integers(0, 500), min_size=1, max_size=70), st.integers(1, 12))
def test_merging_bins_keeps_every_row(cells: list[int], n_groups: int) -> None:
    expected, actual = np.array(cells), np.array(cells[::-1])
    for merge in (merged_bins, merged_categories):
        e, a = merge(expected, actual, n_groups)
        assert e.sum() == expected.sum() and a.sum() == actual.sum()
        assert len(e) == len(a) <= max(n_groups, 1)


def test_deciles_from_64_bins_hold_about_a_tenth_each() -> None:
    profile = numeric_profile(np.random.default_rng(5).normal(size=30_000))
    e, _ = merged_bins(of_baseline(profile).bins, of_baseline(profile).bins)
    assert len(e) == 10
    assert (e / e.sum()).min() > 0.07 and (e / e.sum()).max() < 0.13
