import doctest

from relevo.datasets import comparison, wording
from relevo.datasets.differences import ColumnDifference, Summary


def test_examples_in_docstrings_hold() -> None:
    for module in (wording, comparison):
        assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_a_column_says_what_differs_and_nothing_else() -> None:
    before, after = Summary(0.1, mean=7.0, minimum=0, maximum=9), Summary(0.1, mean=8.0, minimum=0, maximum=9)
    kept = ColumnDifference("x", "Int64", "Int64", before, after, changed=1)
    assert wording.differences(kept) == ["1 cell changed", "mean 7 → 8"]
    assert (wording.schema_words(kept), wording.differs(kept)) == ("Int64", True)
    added = ColumnDifference("x", None, "Int64", None, after)
    assert wording.differences(added) == ["nulls 10 %", "mean 8", "from 0 to 9"]
    assert wording.schema_words(added) == "added, Int64"
    retyped = ColumnDifference("x", "Int64", "Float64", before, before)
    assert wording.schema_words(retyped) == "retyped, Int64 → Float64"
    assert not wording.differs(ColumnDifference("x", "Int64", "Int64", before, before, changed=0))
    text = ColumnDifference("c", "String", "String", Summary(0.0, distinct=3), Summary(0.0, distinct=4), changed=0)
    assert wording.differences(text) == ["3 different → 4 different"]
