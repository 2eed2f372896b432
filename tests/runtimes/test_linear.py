"""The linear runtime: that many rows are answered as each of them is alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.contract.model import Task
from relevo.errors import Invalid
from relevo.runtimes.linear import LinearModel, LinearRuntime, Number, Table
from relevo.runtimes.model import Column, ColumnType, Link, Signature

SIGNATURE = Signature(
    Task.CLASSIFICATION,
    (
        Column("distance", ColumnType.FLOAT),
        Column("carrier", ColumnType.TEXT),
        Column("asked", ColumnType.INTEGER),
        Column("is_weekend", ColumnType.BOOLEAN),
    ),
    classes=("0", "1"),
)
CARRIERS = Table(1, (("UA", (0.5,)), ("DL", (-1.25,))), missing=(0.1,), unknown=(0.0,))


def runtime(link: Link = Link.LOGISTIC, *, fill: float | None = 7.5, carriers: Table = CARRIERS) -> LinearRuntime:
    numbers = (
        Number(0, 1000.0, 250.0, (0.75,), fill),
        Number(2, 1.7e9, 3600.0, (1e-3,), 1.7e9),  # seconds of an epoch
        Number(3, 0.0, 1.0, (-0.3,), 0.0),
    )
    return LinearRuntime(LinearModel(link, (0.25,), numbers, (carriers,)), SIGNATURE)


rows = st.tuples(
    st.none() | st.floats(-1e12, 1e12),
    st.none() | st.sampled_from(["UA", "DL", "unseen"]),
    st.none() | st.integers(0, 2**62),
    st.none() | st.booleans(),
)


@pytest.mark.parametrize("link", [Link.LOGISTIC, Link.IDENTITY])
@given(asked=st.lists(rows, min_size=4, max_size=20))
def test_many_rows_are_answered_as_each_of_them_is_alone(link: Link, asked: list[tuple[object, ...]]) -> None:
    model = runtime(link)
    alone = [answer for row in asked for answer in model.predict([row])]
    assert model.predict(asked) == alone


@pytest.mark.parametrize(
    ("model", "row", "field"),
    [
        (runtime(fill=None), (None, "UA", 1, True), "distance"),
        (runtime(carriers=Table(1, CARRIERS.values)), (1.0, "unseen", 1, True), "carrier"),
        (runtime(carriers=Table(1, CARRIERS.values)), (1.0, None, 1, True), "carrier"),
    ],
)
@pytest.mark.parametrize("n_rows", [1, 50])
def test_a_value_that_cannot_be_answered_is_refused_among_few_and_among_many(
    model: LinearRuntime, row: tuple[object, ...], field: str, n_rows: int
) -> None:
    good = (1.0, "UA", 1, True)
    with pytest.raises(Invalid, match="the model cannot answer") as refused:
        model.predict([*[good] * (n_rows - 1), row])
    assert refused.value.field == field
