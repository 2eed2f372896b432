"""Tensors of the Open Inference Protocol V2 to the typed values of a column, as JSON and as bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from relevo.errors import Invalid
from relevo.runtimes.decoders import kind
from relevo.runtimes.model import Column, ColumnType
from relevo.runtimes.requests import cell, refusal

#: Datatypes of fixed width, as numpy reads them.
DTYPES = {
    "BOOL": "u1",  # what is neither 0 nor 1 is refused
    **{f"UINT{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": f"<f{size}" for size in (2, 4, 8)},
}
BYTES = "BYTES"
NUMBERS = tuple(name for name in DTYPES if name != "BOOL")

#: The datatypes that a column takes; the first is the one that the metadata names.
DATATYPES: dict[ColumnType, tuple[str, ...]] = {
    ColumnType.FLOAT: ("FP64", *(name for name in NUMBERS if name != "FP64")),
    ColumnType.INTEGER: ("INT64", *(name for name in NUMBERS if name != "INT64")),
    ColumnType.TEXT: (BYTES,),
    ColumnType.BOOLEAN: ("BOOL",),
    ColumnType.TIME: (BYTES, "INT64"),
}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOT_A_TIME = -(2**63)  # numpy's NaT
_LENGTH = struct.Struct("<I")

_Array = NDArray[Any]


def check_datatype(column: Column, datatype: str) -> None:
    """Raises Invalid unless the column takes the datatype."""
    taken = DATATYPES[column.type]
    if datatype not in taken:
        expected = f"one of {', '.join(taken)}" if len(taken) > 1 else taken[0]
        raise Invalid(f"Input {column.name!r}: expected datatype {expected}, got {datatype[:40]!r}.", field=column.name)


def from_json(column: Column, datatype: str, data: Sequence[object]) -> list[object]:
    """The values of a column whose tensor came as JSON, flattened. ``null`` is a missing value.

    Raises:
        Invalid: The column does not take the datatype, or a value is wrong.
    """
    check_datatype(column, datatype)
    if column.type is ColumnType.TIME and datatype == "INT64":
        counted = Column(column.name, ColumnType.INTEGER, column.nullable)
        return [None if value is None else _time(column, value, row) for row, value in enumerate(_cells(counted, data))]
    return _cells(column, data)


def from_bytes(column: Column, datatype: str, data: memoryview, size: int) -> list[object]:
    """The values of a column whose ``size`` elements came as bytes. NaN, and numpy's NaT, is a missing value.

    Raises:
        Invalid: The column does not take the datatype, the bytes are not ``size`` elements, or a value is wrong.
    """
    check_datatype(column, datatype)
    if datatype == BYTES:
        return _cells(column, _texts(column, data, size))
    return from_array(column, array(column.name, datatype, data, size))


def array(name: str, datatype: str, data: memoryview, size: int) -> _Array:
    """The ``size`` elements of a tensor of fixed width.

    Raises:
        Invalid: The bytes are not as many.
    """
    found = np.dtype(DTYPES[datatype])
    if len(data) != size * found.itemsize:
        raise Invalid(
            f"Input {name!r}: {size:,} elements of {datatype} take {size * found.itemsize:,} bytes, got {len(data):,}.",
            field=name,
        )
    return np.frombuffer(data, found)


def from_array(column: Column, values: _Array, first_row: int = 0) -> list[object]:
    """The values of a column from numbers, by the kind of the array; of booleans and times from integers.

    ``first_row`` is the number of the first, for refusals.

    Raises:
        Invalid: A value is wrong; the message names its row.
    """
    match column.type:
        case ColumnType.FLOAT:
            return _floats(column, values, first_row)
        case ColumnType.INTEGER:
            return _integers(column, values, first_row)
        case ColumnType.BOOLEAN:
            _refuse(column, values > 1, values, "byte", first_row)
            return values.astype(bool).tolist()  # type: ignore[no-any-return]
    return [
        _null(column, row) if value == _NOT_A_TIME else _time(column, value, row)
        for row, value in enumerate(values.tolist(), first_row)
    ]


def to_bytes(texts: Sequence[str]) -> bytes:
    r"""A tensor of BYTES: each element after its length.

    >>> to_bytes(["ab"])
    b'\x02\x00\x00\x00ab'
    """
    encoded = [text.encode() for text in texts]
    return b"".join(_LENGTH.pack(len(one)) + one for one in encoded)


def _cells(column: Column, values: Sequence[object]) -> list[object]:
    """The values as the column's type: at once when they are right, one by one to say what is wrong."""
    try:
        cells: list[object] = msgspec.convert(values, list[kind(column)])  # type: ignore[misc]
        if column.type is ColumnType.TIME:
            return [cell and cell.astimezone(UTC) for cell in cells]  # type: ignore[attr-defined]
        return cells
    except (msgspec.ValidationError, OverflowError):
        return [cell(column, value, row) for row, value in enumerate(values)]


def _texts(column: Column, data: memoryview, size: int) -> list[str]:
    texts = []
    place = 0
    for row in range(size):
        start = place + 4
        if start > len(data):
            raise _short(column, row)
        place = start + _LENGTH.unpack_from(data, place)[0]
        if place > len(data):
            raise _short(column, row)
        try:
            texts.append(str(data[start:place], "utf-8"))
        except UnicodeDecodeError as error:
            raise refusal(column, row, f"bytes that are not UTF-8: {error.reason}") from None
    if place != len(data):
        message = f"Input {column.name!r}: {len(data) - place:,} bytes are left after {size:,} elements of BYTES."
        raise Invalid(message, field=column.name)
    return texts


def _short(column: Column, row: int) -> Invalid:
    return Invalid(f"Input {column.name!r}: the bytes end within element {row} of BYTES.", field=column.name)


def _floats(column: Column, values: _Array, first_row: int) -> list[object]:
    numbers = values.astype(np.float64)
    finite = np.isfinite(numbers)
    if finite.all():
        return numbers.tolist()  # type: ignore[no-any-return]
    missing = np.isnan(numbers)
    _refuse(column, ~(finite | missing), numbers, "number", first_row)
    return _with_nulls(column, numbers.tolist(), missing, first_row)


def _integers(column: Column, values: _Array, first_row: int) -> list[object]:
    """Whole numbers count as integers: a frame with nulls writes its integers as floats."""
    if values.dtype.kind != "f":
        if values.dtype == np.uint64:
            _refuse(column, values > 2**63 - 1, values, "integer", first_row)
        return values.tolist()  # type: ignore[no-any-return]
    numbers = values.astype(np.float64)
    missing = np.isnan(numbers)
    wrong = ~missing & ~((np.abs(numbers) < 2**63) & (numbers == np.floor(numbers)))
    _refuse(column, wrong, numbers, "number", first_row)
    return _with_nulls(column, np.where(missing, 0, numbers).astype(np.int64).tolist(), missing, first_row)


def _with_nulls(column: Column, values: list[object], missing: _Array, first_row: int) -> list[object]:
    for row in np.flatnonzero(missing).tolist():
        values[row] = _null(column, first_row + row)
    return values


def _null(column: Column, row: int) -> object:
    if column.nullable:
        return None
    raise refusal(column, row, "a missing value")


def _refuse(column: Column, wrong: _Array, values: _Array, what: str, first_row: int) -> None:
    """Refuse the first value that is wrong."""
    if wrong.any():
        row = int(np.argmax(wrong))
        raise refusal(column, first_row + row, f"{what} {values[row].item()}")


def _time(column: Column, value: Any, row: int) -> datetime:
    """Microseconds since 1970 as a time."""
    try:
        return _EPOCH + timedelta(microseconds=value)
    except OverflowError:
        raise refusal(column, row, f"{value} microseconds since 1970") from None
