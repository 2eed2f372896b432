"""Frames: what was written is read, and damage costs only what it touches."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relevo.predictions import frames
from relevo.predictions.frames import MAGIC, Record, encode, scan

RecordMaker = Callable[..., Record]
within_fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def test_a_record_comes_back_as_it_was(record: RecordMaker) -> None:
    time = datetime(2013, 8, 15, 1, 2, 3, 4, UTC)
    layout = frames.layout([("a", "float"), ("b", "text"), ("c", "integer"), ("d", "time"), ("e", "boolean")], [])
    written = record(
        layout=layout,
        inputs=[[math.inf, "été", -(2**63), time, None]],
        keys=[],
        request_id="r-1",
        predictions=[[0.1, 0.9]],
    )
    found = scan(encode(written))
    [read] = list(found)
    assert read.inputs == written.inputs and read.predictions == [[0.1, 0.9]] and read.request_id == "r-1"
    assert bytes(read.layout) == bytes(layout)
    assert (found.frames, found.damaged_bytes, found.torn_bytes) == (1, 0, 0)


def test_a_torn_tail_is_cut_at_the_last_whole_frame_wherever_it_tears(record: RecordMaker) -> None:
    first, second = encode(record()), encode(record())
    for cut in range(1, len(second)):
        found = scan(first + second[:cut])
        assert len(list(found)) == 1
        assert (found.torn_bytes, found.damaged_bytes) == (cut, 0)


def test_zeros_after_the_last_frame_are_a_torn_tail(record: RecordMaker) -> None:
    found = scan(encode(record()) + bytes(4096))
    assert len(list(found)) == 1
    assert (found.torn_bytes, found.damaged_bytes) == (4096, 0)


@given(data=st.data())
@within_fixtures
def test_a_flipped_bit_costs_one_frame_and_is_counted(record: RecordMaker, data: st.DataObject) -> None:
    written = [encode(record(version=n)) for n in range(5)]
    hit = data.draw(st.integers(0, 4))
    place = data.draw(st.integers(0, len(written[hit]) - 1))
    broken = bytearray(written[hit])
    broken[place] ^= 1 << data.draw(st.integers(0, 7))
    found = scan(b"".join([*written[:hit], bytes(broken), *written[hit + 1 :]]))
    assert [read.version for read in found] == [n for n in range(5) if n != hit]
    assert found.damaged_bytes + found.torn_bytes == len(broken)
    assert hit == 4 or found.torn_bytes == 0


@given(st.binary(max_size=400))
@within_fixtures
def test_any_bytes_between_frames_are_skipped_and_counted(record: RecordMaker, junk: bytes) -> None:
    frame = encode(record())
    found = scan(frame + junk + frame + frame)
    assert len(list(found)) == 3
    assert found.damaged_bytes == len(junk)


def test_a_frame_inside_the_text_of_a_damaged_request_is_not_a_record(record: RecordMaker) -> None:
    forged = encode(record(version=666))
    carrier = bytearray(encode(record(status="failed", body=forged)))
    carrier[14] ^= 0xFF
    found = scan(bytes(carrier) + encode(record(version=4)))
    assert [read.version for read in found] == [4]
    assert found.damaged_bytes == len(carrier)


def test_a_whole_frame_with_another_payload_is_damage(record: RecordMaker) -> None:
    payload = b"\x93\x01\x02\x03"
    foreign = struct.pack("<4sII", MAGIC, len(payload), zlib.crc32(payload, len(payload))) + payload
    found = scan(foreign + encode(record()))
    assert len(list(found)) == 1
    assert found.damaged_bytes == len(foreign)


def test_a_record_of_a_release_that_did_not_log_what_was_looked_up_is_read(record: RecordMaker) -> None:
    fields = msgspec.msgpack.decode(encode(record())[12:])
    assert fields.pop() is None  # the last field is the newest
    payload = msgspec.msgpack.encode(fields)
    frame = struct.pack("<4sII", MAGIC, len(payload), zlib.crc32(payload, len(payload))) + payload
    [read] = list(scan(frame))
    assert read == record(ids=read.ids)
    assert read.looked_up is None


@given(st.sets(st.integers(0, 300)))
def test_what_was_looked_up_comes_back_whatever_the_number_of_inputs(places: set[int]) -> None:
    assert frames.marked(frames.marks(places)) == sorted(places)
