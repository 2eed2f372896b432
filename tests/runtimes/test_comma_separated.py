"""CSV bodies: each value by its column's type."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from relevo.contract.model import Task
from relevo.errors import Invalid, TooLarge
from relevo.runtimes.comma_separated import CommaSeparated
from relevo.runtimes.decoders import Decoded
from relevo.runtimes.exchange import Question
from relevo.runtimes.model import Column, ColumnType, Signature

SIGNATURE = Signature(
    Task.REGRESSION,
    (
        Column("distance", ColumnType.FLOAT),
        Column("carrier", ColumnType.TEXT),
        Column("seats", ColumnType.INTEGER, nullable=False),
        Column("is_weekend", ColumnType.BOOLEAN),
        Column("built_at", ColumnType.TIME),
    ),
)
HEADER = "seats,distance,carrier,is_weekend,built_at\r\n"


def decode(text: str | bytes) -> Decoded:
    body = text if isinstance(text, bytes) else text.encode()
    return CommaSeparated(SIGNATURE).decode(Question(body, max_rows=3))


def test_values_have_the_type_of_their_column() -> None:
    text = (
        HEADER
        + '180,1.5,"New York, ""NY""",true,2001-02-03T04:05:06Z\r\n9007199254740993,7,"a\nb",False,\r\n2.0,,,,\r\n'
    )
    at = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)

    for body in (text.encode(), b"\xef\xbb\xbf" + text.encode(), text.rstrip().encode()):
        rows = [list(row) for row in decode(body).rows]
        assert rows == [
            [1.5, 'New York, "NY"', 180, True, at],
            [7.0, "a\nb", 2**53 + 1, False, None],
            [None, None, 2, None, None],
        ]
        assert [type(value) for value in rows[1][:3]] == [float, str, int]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "Missing columns"),
        (HEADER, "at least one row"),
        (HEADER + "1,2,3\n", "Row 0: expected 5 values, got 3."),
        (HEADER + "1,2,a,true,\n\n", "Row 1: expected 5 values, got 0."),
        (HEADER + ",2,a,true,\n", "Column 'seats', row 0: expected an integer, got null."),
        (HEADER + "1.5,2,a,true,\n", "expected an integer, got number 1.5."),
        (HEADER + "1_0,2,a,true,\n", "expected an integer, got '1_0'."),
        (HEADER + "1,nan,a,true,\n", "Column 'distance', row 0: expected a number, got 'nan'."),
        (HEADER + "1,1e999,a,true,\n", "expected a number, got one that is not finite."),
        (HEADER + f"1,{'9' * 5000},a,true,\n", "expected a number, got"),
        (HEADER + "1, 2,a,true,\n", "expected a number, got ' 2'."),
        (HEADER + "1,2,a,yes,\n", "Column 'is_weekend', row 0: expected true or false, got 'yes'."),
        (HEADER + "1,2,a,true,2001-02-03\n", "Column 'built_at', row 0: expected an ISO 8601 time with offset"),
        (HEADER + '1,2,"a,true,', "no valid CSV"),
        (HEADER.replace("carrier", "carier") + "1,2,a,true,\n", "Unknown column 'carier'. Did you mean 'carrier'?"),
        (b"seats\xff", "not UTF-8 text: invalid start byte at byte 5."),
    ],
)
def test_what_does_not_fit_is_refused_by_name(text: str | bytes, expected: str) -> None:
    with pytest.raises(Invalid) as caught:
        decode(text)

    assert expected in caught.value.message


def test_too_many_rows_are_refused() -> None:
    with pytest.raises(TooLarge, match="at most 3 rows"):
        decode(HEADER + "1,2,a,true,\n" * 4)
