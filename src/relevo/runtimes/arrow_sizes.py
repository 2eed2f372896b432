"""What an Arrow IPC message says of the rows and the memory that it takes, before any of it is taken.

pyarrow has no limit for what the buffers of a message expand to. This reads the few fields of the flatbuffer that say
it (format/Message.fbs and format/File.fbs of Apache Arrow); the buffers themselves are pyarrow's to read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_DICTIONARY, _RECORDS = 2, 3  # MessageHeader
_FILE_END = b"ARROW1"

_u8 = struct.Struct("<B").unpack_from
_u16 = struct.Struct("<H").unpack_from
_i32 = struct.Struct("<i").unpack_from
_u32 = struct.Struct("<I").unpack_from
_i64 = struct.Struct("<q").unpack_from
_BUFFER = struct.Struct("<qq")  # offset in the body, length
_BLOCK = struct.Struct("<qi4xq")  # offset in the file, length of the metadata, length of the body


class Broken(ValueError):
    """A field points to where nothing is, or says what cannot be."""


class Size(NamedTuple):
    """What one message takes: its rows, which a dictionary has none of, and the bytes of its expanded buffers."""

    rows: int
    bytes: int


def size_of(metadata: memoryview, body: memoryview) -> Size:
    """The size of a message with records or a dictionary; any other has none.

    Raises:
        Broken: The metadata is no such message.
    """
    try:
        message = _Table.root(metadata)
        kind = message.scalar(1, _u8)
        if kind not in (_DICTIONARY, _RECORDS):
            return Size(0, 0)
        header = message.table(2)
        batch = header.table(1) if header is not None and kind == _DICTIONARY else header
        if batch is None:
            raise Broken("a message has no header")
        rows = batch.scalar(0, _i64)
        expanded = 0
        is_compressed = batch.table(3) is not None
        for offset, length in batch.structs(2, _BUFFER):
            if offset < 0 or length < 0 or offset + length > len(body):
                raise Broken("a buffer lies beyond the body")
            size = _i64(body, offset)[0] if is_compressed and length else length
            if size < -1 or rows < 0:
                raise Broken("a size is negative")
            expanded += length if size == -1 else size  # -1: this one is not compressed
    except (struct.error, IndexError) as error:
        raise Broken("the metadata of a message is cut off") from error
    return Size(0 if kind == _DICTIONARY else rows, expanded)


def messages_of_file(body: memoryview) -> Iterator[memoryview]:
    """The messages of a file, dictionaries first, each from its length on.

    Raises:
        Broken: The footer is cut off, or says more than the file has.
    """
    try:
        if bytes(body[-len(_FILE_END) :]) != _FILE_END:
            raise Broken("the file does not end as an Arrow file does")
        length = _i32(body, len(body) - len(_FILE_END) - 4)[0]
        end = len(body) - len(_FILE_END) - 4
        if not 0 < length <= end:
            raise Broken("the footer lies beyond the file")
        footer = _Table.root(body[end - length : end])
        blocks = [*footer.structs(2, _BLOCK), *footer.structs(3, _BLOCK)]
        left = len(body)
        for offset, metadata, size in blocks:
            left -= metadata + size
            if min(offset, metadata, size, left) < 0 or offset + metadata + size > len(body):
                raise Broken("a block lies beyond the file")
            yield body[offset : offset + metadata + size]
    except (struct.error, IndexError) as error:
        raise Broken("the footer is cut off") from error


class _Table:
    """A table of a flatbuffer: its fields by number, absent ones as flatbuffers have them."""

    def __init__(self, buffer: memoryview, place: int) -> None:
        if place < 0:
            raise Broken("an offset is negative")
        self._buffer = buffer
        self._place = place
        self._fields = place - _i32(buffer, place)[0]
        if self._fields < 0:
            raise Broken("an offset is negative")

    @classmethod
    def root(cls, buffer: memoryview) -> _Table:
        return cls(buffer, _u32(buffer, 0)[0])

    def _field(self, number: int) -> int | None:
        slot = 4 + 2 * number
        if slot >= _u16(self._buffer, self._fields)[0]:
            return None
        offset: int = _u16(self._buffer, self._fields + slot)[0]
        return self._place + offset if offset else None

    def scalar(self, number: int, unpack: struct._UnpackFrom) -> int:  # type: ignore[name-defined]
        place = self._field(number)
        return 0 if place is None else unpack(self._buffer, place)[0]

    def table(self, number: int) -> _Table | None:
        place = self._field(number)
        return None if place is None else _Table(self._buffer, place + _u32(self._buffer, place)[0])

    def structs(self, number: int, layout: struct.Struct) -> Iterator[tuple[int, ...]]:
        place = self._field(number)
        if place is None:
            return
        start = place + _u32(self._buffer, place)[0]
        count = _u32(self._buffer, start)[0]
        if start + 4 + count * layout.size > len(self._buffer):
            raise Broken("a list lies beyond the metadata")
        for index in range(count):
            yield layout.unpack_from(self._buffer, start + 4 + index * layout.size)
