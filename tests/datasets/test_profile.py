import sys

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relevo.datasets.exploration import require_skrub
from relevo.datasets.profile import report, sample
from relevo.errors import Unavailable


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(1, 40), st.text("ab", max_size=3))
def test_a_sample_holds_different_rows_in_order_and_the_same_ones_again(rows: int, at_most: int, seed: str) -> None:
    frame = pl.LazyFrame({"x": range(rows), "y": [f"{row}" for row in range(rows)]})
    found = sample(frame, seed, at_most)
    values = found.frame["x"].to_list()
    assert len(values) == min(rows, at_most) and values == sorted(set(values))
    assert found.frame.columns == ["x", "y"] and found.of_rows == rows
    assert found.frame.equals(sample(frame, seed, at_most).frame)
    assert ("A sample of" in found.words) == (rows > at_most)


def test_each_row_has_the_same_chance() -> None:
    frame = pl.LazyFrame({"x": range(100)})
    drawn = [value for seed in range(400) for value in sample(frame, str(seed), 25).frame["x"]]
    counts = pl.Series(drawn).value_counts()["count"]
    assert len(counts) == 100
    assert counts.min() > 60 and counts.max() < 150  # binomial: 100 expected, deviation 8.7


def test_a_report_says_its_sample_and_holds_no_text_as_markup() -> None:
    frame = pl.DataFrame({"x": [1.0, None, 3.0], "<i>c</i>": ["<script>alert(1)</script>", "b", "b"]})
    page = report(sample(frame.lazy(), "", 2), "m/<b>s</b>")
    assert "A sample of 2 of 3 rows" in page
    assert "<title>m/&lt;b&gt;s&lt;/b&gt;</title>" in page
    assert "<script>alert(1)" not in page and "<i>c</i>" not in page and "<b>s" not in page
    assert "skrub-table-report" in page


def test_a_missing_skrub_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    require_skrub()
    monkeypatch.setitem(sys.modules, "skrub", None)
    with pytest.raises(Unavailable, match="skrub, which is not installed") as missing:
        require_skrub()
    assert missing.value.hint == "Install it with: pip install 'relevo[explore]'"
