"""Frames: how one request lies in a log segment, so that damage costs only what it touches.

A frame is a magic number to find the next one after damage, the length of its payload, a CRC32 that covers both, and
the payload: one `Record` in MessagePack.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import msgspec

MAGIC = b"\xa7RLV"
MAX_PAYLOAD_BYTES = 64 << 20
MAX_BODY_BYTES = 4096
_HEADER = struct.Struct("<4sII")


class Layout(msgspec.Struct, array_like=True, frozen=True):
    """Names and types of the columns whose values a record holds, so that a segment can be read alone.

    Each column is ``(name, type)`` with the type one of ``float``, ``integer``, ``text``, ``boolean``, ``time``.
    """

    inputs: list[tuple[str, str]]
    keys: list[tuple[str, str]]


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False, kw_only=True):
    """One request as it was answered. Times are microseconds since 1970.

    ``logged_at_us`` is wall time; ``asked_at_us`` (one a row) and ``materialised_through_us`` are event time. Rows of
    ``inputs`` and ``keys`` follow ``layout``. ``predictions`` holds a number a row, or for more than two classes a list
    of probabilities a row; it is empty when the request failed. A request that failed before its rows were read has no
    ids, one ``asked_at_us``, and the first 4 KiB of its ``body``.

    ``looked_up`` says which inputs the online store gave and which the caller sent: a bit an input (`marks`), None in
    records of a time when this was not logged.

    ``sample`` is the share of the endpoint's answered rows that is logged; None is all of them, or a failure: those are
    always logged.

    ``shadow_of`` are the ids that callers got for the same rows from another version, when this one answered a copy of
    the request that nobody got; the record has no ids of its own. None is an answer to a caller.
    """

    endpoint: str
    version: int | None
    logged_at_us: int
    asked_at_us: list[int]
    ids: list[str]
    layout: msgspec.Raw
    inputs: Sequence[Sequence[Any]]
    keys: list[list[Any]]
    predictions: Sequence[float | Sequence[float]]
    materialised_through_us: int | None = None
    request_id: str | None = None
    status: Literal["ok", "failed"] = "ok"
    error: str | None = None
    body: bytes | None = None
    looked_up: bytes | None = None
    sample: float | None = None
    shadow_of: list[str] | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def layout(inputs: Sequence[tuple[str, str]], keys: Sequence[tuple[str, str]] = ()) -> msgspec.Raw:
    """The encoded layout of a version's rows: made once a version, and copied into each of its frames."""
    return msgspec.Raw(_encoder.encode(Layout(list(inputs), list(keys))))


NO_LAYOUT = layout(())


def marks(places: Iterable[int]) -> bytes:
    """A bit for each place, the lowest first: the inputs of a layout that were looked up.

    >>> list(marks([0, 9]))
    [1, 2]
    """
    bits = sum(1 << place for place in set(places))
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def marked(encoded: bytes) -> list[int]:
    """The places that `marks` marked, ascending.

    >>> marked(bytes([1, 2]))
    [0, 9]
    """
    bits = int.from_bytes(encoded, "little")
    return [place for place in range(bits.bit_length()) if bits >> place & 1]


def encode(record: Record) -> bytes:
    """``record`` as a frame.

    Raises:
        OverflowError: A value is an integer beyond 64 bits.
    """
    payload = _encoder.encode(record)
    size = len(payload)
    return _HEADER.pack(MAGIC, size, zlib.crc32(payload, size)) + payload


class Scan:
    """Reads the records of a segment's bytes; after the iteration, what could not be read is counted.

    Attributes:
        frames: Whole frames read.
        damaged_bytes: Bytes that are no frame and have a frame or other bytes after them.
        torn_bytes: Bytes of a last frame that was never written whole (its length runs past the end, or only zeros
            follow the last whole frame).
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.frames = 0
        self.damaged_bytes = 0
        self.torn_bytes = 0

    def __iter__(self) -> Iterator[Record]:
        data, offset, end = self._data, 0, len(self._data)
        while offset < end:
            found = _frame_at(data, offset)
            if found is None:
                following = _next_frame(data, offset)
                self._count_gap(offset, following)
                offset = following
                continue
            record, offset = found
            self.frames += 1
            yield record

    def _count_gap(self, start: int, stop: int) -> None:
        if stop == len(self._data) and _is_torn(self._data, start):
            self.torn_bytes += stop - start
        else:
            self.damaged_bytes += stop - start


def scan(data: bytes) -> Scan:
    """An iterable over the records in ``data`` that goes on behind damaged bytes and counts them."""
    return Scan(data)


def _frame_at(data: bytes, offset: int) -> tuple[Record, int] | None:
    """The record of the whole frame at ``offset`` and where it ends, or None."""
    start = offset + _HEADER.size
    if start > len(data):
        return None
    magic, size, checksum = _HEADER.unpack_from(data, offset)
    stop = start + size
    if magic != MAGIC or size > MAX_PAYLOAD_BYTES or stop > len(data):
        return None
    payload = memoryview(data)[start:stop]
    if zlib.crc32(payload, size) != checksum:
        return None
    try:
        return _decoder.decode(payload), stop
    except msgspec.MsgspecError:
        return None


def _next_frame(data: bytes, offset: int) -> int:
    """Where the next whole frame begins after the broken one at ``offset``, or the end of ``data``.

    When the broken frame's length still leads to a whole frame, its inside is not searched: request text that holds the
    bytes of a frame must not become a record.
    """
    if offset + _HEADER.size <= len(data):
        size: int = _HEADER.unpack_from(data, offset)[1]
        stop = offset + _HEADER.size + size
        if stop == len(data) or (stop < len(data) and _frame_at(data, stop) is not None):
            return stop
    following = data.find(MAGIC, offset + 1)
    while following >= 0 and _frame_at(data, following) is None:
        following = data.find(MAGIC, following + 1)
    return following if following >= 0 else len(data)


def _is_torn(data: bytes, offset: int) -> bool:
    """Whether the bytes from ``offset`` on are the beginning of a frame that was never finished."""
    rest = memoryview(data)[offset:]
    if not any(rest):
        return True
    if len(rest) < _HEADER.size:
        return bytes(rest[: len(MAGIC)]) == MAGIC[: len(rest)]
    magic, size, _ = _HEADER.unpack_from(rest)
    return bool(magic == MAGIC and size <= MAX_PAYLOAD_BYTES and _HEADER.size + size > len(rest))
