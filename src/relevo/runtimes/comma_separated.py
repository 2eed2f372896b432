"""Rows as comma-separated text with a header, as MLflow's scoring server takes them; answered in JSON."""

from __future__ import annotations

import csv
import io
import math
from itertools import islice

import msgspec

from relevo.errors import Invalid, TooLarge
from relevo.runtimes.decoders import Arranging, Decoded
from relevo.runtimes.exchange import Answer, Question, Reply
from relevo.runtimes.model import Column, ColumnType, Signature
from relevo.runtimes.requests import Layout, cell, refusal, shown

TYPE = "text/csv"

_BOOLEANS = {"true": True, "false": False}
_FRACTIONAL = frozenset(".eE")
_NUMERIC = frozenset("0123456789+-") | _FRACTIONAL
_encode = msgspec.json.Encoder().encode


class CommaSeparated:
    """RFC 4180 in UTF-8 for one signature. Nothing between two commas is a missing value, quoted or not."""

    def __init__(self, signature: Signature) -> None:
        self._layout = Layout.of(signature)
        self._arrange = Arranging(self._layout)

    def decode(self, question: Question) -> Decoded:
        """Columns by the names in the first line, each value read as its column's type.

        Raises:
            Invalid: The text is none, or a value does not fit; the error names the column and the row.
            TooLarge: There are more rows than the question allows.
        """
        try:
            text = question.body.decode("utf-8-sig")
            lines = csv.reader(io.StringIO(text, newline=""), strict=True)
            names = next(lines, [])
            self._layout.check_columns(names)
            limit = None if question.max_rows is None else question.max_rows + 1
            rows = list(islice(lines, limit))
        except UnicodeDecodeError as error:
            raise Invalid(f"The body is not UTF-8 text: {error.reason} at byte {error.start}.") from None
        except csv.Error as error:
            raise Invalid(f"The body is no valid CSV: {error}.") from None
        if question.max_rows is not None and len(rows) > question.max_rows:
            raise TooLarge(f"A request brings at most {question.max_rows:,} rows, got more.")
        for index, row in enumerate(rows):
            if len(row) != len(names):
                raise Invalid(f"Row {index}: expected {len(names)} values, got {len(row)}.")
        columns = [self._layout.columns[name] for name in names]
        values = {column.name: _values(column, [row[place] for row in rows]) for place, column in enumerate(columns)}
        return self._arrange(values, None)

    def encode(self, request: Decoded, answer: Answer) -> Reply:
        """As ``MlflowJson`` has it."""
        return Reply(_encode(answer))


def _values(column: Column, texts: list[str]) -> list[object]:
    """The values of a column: at once when they are usual, one by one to read the others or say what is wrong."""
    if column.nullable and column.type is ColumnType.TEXT:
        return [text or None for text in texts]
    if column.nullable and column.type is ColumnType.FLOAT and _NUMERIC.issuperset("".join(texts)):
        try:
            numbers = [float(text) if text else None for text in texts]
        except ValueError:
            numbers = [math.inf]
        if all(number is None or math.isfinite(number) for number in numbers):
            return list(numbers)
    return [_value(column, text, row) for row, text in enumerate(texts)]


def _value(column: Column, text: str, row: int) -> object:
    if text == "":
        return cell(column, None, row)
    match column.type:
        case ColumnType.BOOLEAN:
            value = _BOOLEANS.get(text.lower())
            if value is None:
                raise refusal(column, row, shown(text))
            return value
        case ColumnType.FLOAT | ColumnType.INTEGER:
            return cell(column, _number(column, text, row), row)
    return cell(column, text, row)


def _number(column: Column, text: str, row: int) -> float:
    try:
        if not _NUMERIC.issuperset(text):  # Python reads more as a number: 1_000, other scripts' digits, spaces
            raise ValueError(text)
        return float(text) if _FRACTIONAL.intersection(text) else int(text)
    except ValueError:
        raise refusal(column, row, shown(text)) from None
