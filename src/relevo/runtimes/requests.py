"""The plain reader of request bodies: slower than the decoders, and able to say what is wrong and where."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from relevo.errors import Invalid, nearest
from relevo.runtimes.model import Column, ColumnType, Signature

#: Longest ``request_id``, in characters.
MAX_REQUEST_ID = 128

_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
#: Not JSON, and what Python writes: NaN is how pandas, and MLflow's client with it, says that a value is missing.
_CONSTANTS = {"NaN": None, "Infinity": math.inf, "-Infinity": -math.inf}
#: What a column of each type takes, in words.
EXPECTED = {
    ColumnType.FLOAT: "a number",
    ColumnType.INTEGER: "an integer",
    ColumnType.TEXT: "text",
    ColumnType.BOOLEAN: "true or false",
    ColumnType.TIME: "an ISO 8601 time with offset",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that a request may have, by name: inputs, then keys, then the asked time."""

    signature: Signature
    columns: Mapping[str, Column]

    @classmethod
    def of(cls, signature: Signature) -> Layout:
        """The layout of ``signature``; an input that is also the asked time stands once."""
        columns = {column.name: column for column in (*signature.inputs, *signature.keys)}
        if len(columns) != len(signature.inputs) + len(signature.keys):
            raise Invalid("a signature names a column twice")
        if signature.at is not None and signature.at not in columns:
            columns[signature.at] = Column(signature.at, ColumnType.TIME)
        return cls(signature, columns)

    def check_columns(self, sent: Sequence[str]) -> None:
        """Raises Invalid when a column is unknown, doubled, or missing.

        Inputs that a view fills may be absent, and then the keys that find them may not; computed ones may be absent.
        """
        for name in sent:
            if name not in self.columns:
                raise unknown("column", name, self.columns, field=name)
        if len(set(sent)) != len(sent):
            twice = next(name for name in sent if sent.count(name) > 1)
            raise Invalid(f"Column {twice!r} is given twice.", field=twice)
        absent = [column for column in self.signature.inputs if column.name not in sent]
        required = [column.name for column in absent if column.is_asked]
        if any(not column.is_computed for column in absent):
            required += [key.name for key in self.signature.keys if key.name not in sent]
        if required:
            names = ", ".join(repr(name) for name in required)
            raise Invalid(f"Missing {'column' if len(required) == 1 else 'columns'} {names}.", field=required[0])


def unknown(kind: str, name: str, valid: Iterable[str], *, field: str | None = None) -> Invalid:
    """The refusal of an unknown name, with the nearest valid one."""
    valid = list(valid)
    near = nearest(name, valid)
    hint = f"Did you mean {near!r}?" if near else f"Expected: {', '.join(valid)}."
    return Invalid(f"Unknown {kind} {shown(name)}. {hint}", field=None if field is None else _plain(field), hint=hint)


def _plain(field: str) -> str:
    """A name that came with the request, as the field of a refusal: short, and safe to encode."""
    return field if len(field) <= 60 and not _has_half_a_pair(field) else shown(field)


def _has_half_a_pair(text: str) -> bool:
    """Whether it holds half a surrogate pair, which JSON can write and UTF-8 cannot."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def read(layout: Layout, body: bytes) -> tuple[tuple[str, ...], list[tuple[Any, ...]], str | None]:
    """The columns as sent, the typed rows in that order, and the request id.

    Raises:
        Invalid: With the column in ``field``; the message names the row, what was expected and what was got.
    """
    request = _object(body)
    for name in request:
        if name not in (*_FORMS, "request_id"):
            raise unknown("field", name, (*_FORMS, "request_id"), field=name)
    given = [form for form in _FORMS if form in request]
    if len(given) != 1:
        problem = f"{' and '.join(given)} were sent" if given else "none was sent"
        raise Invalid(f"Expected exactly one of {', '.join(_FORMS)}; {problem}.")
    columns, rows = _table(layout, given[0], request[given[0]])
    if not rows:
        raise Invalid("Expected at least one row, got none.", field=given[0])
    layout.check_columns(columns)
    described = [layout.columns[name] for name in columns]
    typed = [
        tuple(cell(column, value, index) for column, value in zip(described, row, strict=True))
        for index, row in enumerate(rows)
    ]
    return columns, typed, _request_id(request.get("request_id"))


def _object(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body.decode(), parse_constant=_CONSTANTS.get)
    except UnicodeDecodeError as error:
        raise Invalid(f"The body is not UTF-8 text: {error.reason} at byte {error.start}.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Invalid(f"The body is not valid JSON: {error.msg} at {where}.") from None
    except RecursionError:
        raise Invalid("The body is nested too deeply.") from None
    except ValueError:
        raise Invalid("The body has an integer of thousands of digits.") from None
    if not isinstance(request, dict):
        raise Invalid(f"Expected a JSON object, got {kind_of(request)}.")
    return request


def _split(form: Any) -> tuple[tuple[str, ...], list[list[Any]]]:
    if not isinstance(form, dict):
        raise Invalid(f"Expected an object with columns and data, got {kind_of(form)}.", field="dataframe_split")
    for name in form:
        if name not in ("columns", "data", "index"):  # pandas writes an index; it says nothing here
            raise unknown("field", name, ("columns", "data"), field=f"dataframe_split.{name}")
    for name in ("columns", "data"):
        if not isinstance(form.get(name), list):
            got = kind_of(form[name]) if name in form else "nothing"
            raise Invalid(f"Expected a list, got {got}.", field=f"dataframe_split.{name}")
    columns, rows = form["columns"], form["data"]
    for index, name in enumerate(columns):
        if not isinstance(name, str):
            where = f"dataframe_split.columns[{index}]"
            raise Invalid(f"Expected a column name, got {kind_of(name)}.", field=where)
    for index, row in enumerate(rows):
        where = f"dataframe_split.data[{index}]"
        if not isinstance(row, list):
            raise Invalid(f"Row {index}: expected a list of values, got {kind_of(row)}.", field=where)
        if len(row) != len(columns):
            raise Invalid(f"Row {index}: expected {len(columns)} values, got {len(row)}.", field=where)
    return tuple(columns), rows


def _table(layout: Layout, name: str, form: Any) -> tuple[tuple[str, ...], list[list[Any]]]:
    """The columns and the rows of a form."""
    if name == "dataframe_split":
        return _split(form)
    if name == "inputs" and isinstance(form, dict):
        return _columns(form)
    if not isinstance(form, list):
        expected = "an object of columns, or a list of rows" if name == "inputs" else "a list of rows"
        raise Invalid(f"Expected {expected}, got {kind_of(form)}.", field=name)
    if name == "dataframe_records" or (form and isinstance(form[0], dict)):
        return _records(name, form)
    return _lists(layout, name, form)


def _records(name: str, form: list[Any]) -> tuple[tuple[str, ...], list[list[Any]]]:
    for index, record in enumerate(form):
        if not isinstance(record, dict):
            where = f"{name}[{index}]"
            raise Invalid(f"Row {index}: expected an object, got {kind_of(record)}.", field=where)
        if record.keys() != form[0].keys():
            column = sorted(record.keys() ^ form[0].keys())[0]
            lacking, having = (index, 0) if column in form[0] else (0, index)
            message = f"Column {shown(column)} is in row {having} and not in row {lacking}: send the same ones in each."
            raise Invalid(message, field=_plain(column))
    columns = tuple(form[0]) if form else ()
    return columns, [[record[column] for column in columns] for record in form]


def _lists(layout: Layout, name: str, form: list[Any]) -> tuple[tuple[str, ...], list[list[Any]]]:
    """Rows without names: every input in the signature's order; of one input, the values may stand alone."""
    columns = tuple(column.name for column in layout.signature.inputs)
    if len(columns) == 1:
        form = [row if isinstance(row, list) else [row] for row in form]
    for index, row in enumerate(form):
        where = f"{name}[{index}]"
        if not isinstance(row, list):
            raise Invalid(f"Row {index}: expected a list of {len(columns)} values, got {kind_of(row)}.", field=where)
        if len(row) != len(columns):
            inputs = ", ".join(columns)
            message = f"Row {index}: expected {len(columns)} values ({inputs}), got {len(row)}."
            raise Invalid(message, field=where)
    return columns, form


def _columns(form: dict[str, Any]) -> tuple[tuple[str, ...], list[list[Any]]]:
    """Whole columns by name; a value may stand in a list of its own, as in a column of shape (n, 1)."""
    for name, values in form.items():
        if not isinstance(values, list):
            raise Invalid(
                f"Column {shown(name)}: expected a list of values, got {kind_of(values)}.", field=_plain(name)
            )
    sizes = {name: len(values) for name, values in form.items()}
    first = next(iter(sizes), "")
    for name, size in sizes.items():
        if size != sizes[first]:
            message = f"Column {shown(name)} has {size} rows, and column {shown(first)} has {sizes[first]}."
            raise Invalid(message, field=_plain(name))
    plain = ([v[0] if isinstance(v, list) and len(v) == 1 else v for v in values] for values in form.values())
    return tuple(form), [list(row) for row in zip(*plain, strict=True)]


def cell(column: Column, value: Any, row: int) -> object:
    """``value`` as the column's type; refuses everything else."""
    if value is None:
        if column.nullable:
            return None
        raise refusal(column, row, "null")
    match column.type, value:
        case ColumnType.BOOLEAN, bool():
            return value
        case ((ColumnType.FLOAT | ColumnType.INTEGER), bool()):
            pass
        case ColumnType.FLOAT, int() | float():
            return _number(column, value, row)
        case ColumnType.INTEGER, int() | float():
            return _integer(column, value, row)
        case ColumnType.TEXT, str():
            if not _has_half_a_pair(value):
                return value
            raise refusal(column, row, "text with half a surrogate pair")
        case ColumnType.TIME, str():
            return _time(column, value, row)
    raise refusal(column, row, f"{kind_of(value)} {shown(value)}")


def _number(column: Column, value: float, row: int) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise refusal(column, row, "one that is not finite", hint="Send null for a missing value.")
    return number


def _integer(column: Column, value: float, row: int) -> int:
    """Whole numbers with a fraction part of zero count: a frame with nulls writes its integers so."""
    if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
        raise refusal(column, row, f"number {value}")
    if not -(2**63) <= value < 2**63:
        raise refusal(column, row, "one beyond 64 bits")
    return int(value)


def _time(column: Column, value: str, row: int) -> datetime:
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise refusal(column, row, f"text {shown(value)}") from None
    raise refusal(column, row, f"{shown(value)}, which has no offset", hint="Add Z for UTC, or +HH:MM.")


def _request_id(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_REQUEST_ID:
        raise Invalid(f"Expected text of 1 to {MAX_REQUEST_ID} characters, got {shown(value)}.", field="request_id")
    return cell(Column("request_id", ColumnType.TEXT), value, 0)  # type: ignore[return-value]


def refusal(column: Column, row: int, got: str, *, hint: str | None = None) -> Invalid:
    """The refusal of one value."""
    message = f"Column {column.name!r}, row {row}: expected {EXPECTED[column.type]}, got {got}."
    return Invalid(message if hint is None else f"{message} {hint}", field=column.name, hint=hint)


def kind_of(value: object) -> str:
    """What JSON calls the kind of ``value``."""
    names = {bool: "boolean", int: "integer", float: "number", str: "text", list: "list", dict: "object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def shown(value: object) -> str:
    """``value`` for a message: short, and safe to encode."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
