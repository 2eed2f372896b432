"""Bytes that no client should send, on raw sockets: refused with a cause, and the worker goes on as if nothing was."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from fuzzed import gateway
from gateway_home import ENDPOINT, Home
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relevo.serving.connections import HEAD_BYTES

ROW = {"distance": 1.0, "carrier": "UA", "seats": 1, "is_early": True, "booked_at": None, "origin": "JFK"}
GOOD = json.dumps({"dataframe_records": [ROW]}).encode()
INVOKE = f"/endpoints/{ENDPOINT}/invocations".encode()
INFER = f"/v2/models/{ENDPOINT}/infer".encode()
LABEL = f"/endpoints/{ENDPOINT}/labels".encode()
DEEP = b"[" * 100_000


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    yield from gateway(tmp_path_factory.mktemp("hostile") / "home")


@pytest.fixture(autouse=True)
def _the_same_worker_goes_on(fuzzed: Home) -> Iterator[None]:
    (before,) = fuzzed.serving.live_workers()
    yield
    assert fuzzed.workers[0].poll() is None
    assert status(exchange(fuzzed, request(fuzzed, GOOD))) == 200
    (after,) = fuzzed.serving.live_workers()
    assert after.pid == before.pid


def request(
    home: Home, body: bytes = b"", path: bytes = INVOKE, *, head: bytes | None = None, more: bytes = b""
) -> bytes:
    """A POST whose connection stays open; ``head`` stands in place of its length, ``more`` are further headers."""
    framing = b"Content-Length: %d\r\n" % len(body) if head is None else head
    token = f"Authorization: Bearer {home.admin}\r\n".encode()
    return b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\n" + token + framing + more + b"\r\n" + body


def exchange(home: Home, *sent: bytes, is_half_closed: bool = False, answers: int = 1) -> bytes:
    """Everything that comes back until so many whole answers have come, or the gateway closes."""
    received = b""
    with socket.create_connection(home.listener.getsockname(), timeout=10) as connection:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # it has answered before it had all
            for part in sent:
                connection.sendall(part)
            if is_half_closed:
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while len(split(received)) < answers and (part := connection.recv(65_536)):
                received += part
    return received


def split(received: bytes) -> list[tuple[int, bytes]]:
    """The status and the body of each whole answer."""
    answers = []
    while b"\r\n\r\n" in received:
        head, _, received = received.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        number = int(lines[0].split()[1])
        length = next((int(line[15:]) for line in lines if line.lower().startswith(b"content-length:")), 0)
        if len(received) < length:
            break
        if number != 100:
            answers.append((number, received[:length]))
        received = received[length:]
    return answers


def status(received: bytes) -> int:
    return split(received)[0][0]


def refused(received: bytes, expected: int) -> str:
    """The message of the one refusal that came back, which has the shape of its path."""
    ((number, body),) = split(received)
    assert number == expected, (number, body)
    error = json.loads(body)["error"]
    message: str = error if isinstance(error, str) else error["message"]
    assert message
    if not isinstance(error, str):
        assert error.keys() == {"code", "message", "field", "hint"}
    return message


def record(**changes: bytes) -> bytes:
    """A body of one record, with values as they are written in JSON."""
    values = {**{name: json.dumps(value).encode() for name, value in ROW.items()}, **changes}
    return b'{"dataframe_records":[{' + b",".join(b'"%b":%b' % (k.encode(), v) for k, v in values.items()) + b"}]}"


def tensors(**changes: tuple[str, Any]) -> bytes:
    """A request of the Open Inference Protocol with one tensor a column."""
    kinds = {"distance": "FP64", "seats": "INT64", "is_early": "BOOL"}
    columns = {name: (kinds.get(name, "BYTES"), value) for name, value in ROW.items()} | changes
    inputs = [{"name": n, "shape": [1], "datatype": kind, "data": [value]} for n, (kind, value) in columns.items()]
    return json.dumps({"inputs": inputs}).encode()


HUGE = (b"1e999", b"-1e999", b"1" + b"0" * 400, b"Infinity", b"-Infinity")
BODIES = [
    (INVOKE, b"", "not valid JSON"),
    (INVOKE, bytes(10), "not valid JSON"),
    (INVOKE, b'{"dataframe_records":[{"carrier":"\xff\xfe"}]}', "not UTF-8"),
    (INVOKE, GOOD.decode().encode("utf-16"), "not UTF-8"),
    (INVOKE, b"\xef\xbb\xbf" + GOOD, "BOM"),
    (INVOKE, DEEP, "nested too deeply"),
    (INVOKE, b'{"dataframe_records":' + DEEP, "nested too deeply"),
    (INVOKE, b'{"dataframe_records":[],"dataframe_records":3}', "got integer"),
    (INVOKE, b'{"%b":1}' % (b"a" * 300_000), "Unknown field"),
    (INVOKE, b'{"\\ud800":1}', "Unknown field '\\ud800'"),
    (INVOKE, b'{"dataframe_split":{"\\ud800":1}}', "Unknown field '\\ud800'"),
    (INVOKE, b'{"dataframe_split":{"columns":["\\ud800"],"data":[[1]]}}', "Unknown column '\\ud800'"),
    (INVOKE, b'{"dataframe_records":[{"\\ud800":1}]}', "Unknown column '\\ud800'"),
    (INVOKE, b'{"dataframe_records":[{"z":1},{"\\ud800":1}]}', "send the same ones"),
    (INVOKE, b'{"inputs":{"\\ud800":1}}', "Column '\\ud800'"),
    (INVOKE, b'{"inputs":{"z":[1],"\\ud800":[]}}', "Column '\\ud800' has 0 rows"),
    *((INVOKE, record(distance=huge), "not finite") for huge in HUGE),
    (INVOKE, record(distance=b"1" + b"0" * 5_000), "thousands of digits"),
    (INVOKE, record(distance=b"NaN"), "got null"),
    (INVOKE, record(seats=b"1" + b"0" * 400), "beyond 64 bits"),
    (INVOKE, record(booked_at=b'"0001-01-01T00:00:00+05:00"'), "ISO 8601"),
    (INVOKE, record(scheduled_at=b'"0001-01-01T00:00:00Z"'), "no local time elsewhere"),
    (INFER, b'{"inputs":' + DEEP, "Expected `object`"),
    (INFER, b'{"inputs":[],"parameters":{"a":' + DEEP, "nested too deeply"),
    (INFER, tensors(distance=("FP64", 10**400)), "not finite"),
    (INFER, tensors(booked_at=("BYTES", "0001-01-01T00:00:00+05:00")), "'booked_at', row 0"),
    (INFER, tensors(scheduled_at=("BYTES", "9999-12-31T23:59:59-05:00")), "'scheduled_at', row 0"),
    (INFER, tensors(scheduled_at=("INT64", -62_135_596_800_000_000)), "no local time elsewhere"),
    (LABEL, b'{"labels":' + DEEP, "Expected `object`"),
    (LABEL, b'{"labels":[{"prediction_id":"a","value":1e999}]}', "out of range"),
    (LABEL, b'{"labels":[{"prediction_id":"a","value":1%b}]}' % (b"0" * 5_000), "out of range"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "cause"), BODIES)
def test_a_body_is_refused_with_its_cause(fuzzed: Home, path: bytes, body: bytes, cause: str) -> None:
    assert cause in refused(exchange(fuzzed, request(fuzzed, body, path)), 400)


@pytest.mark.parametrize("name", ["", "a" * 36, "é" * 36, "\0" * 36, "A" * 1_000_000])
def test_prediction_ids_that_are_none_are_unknown(fuzzed: Home, name: str) -> None:
    body = json.dumps({"labels": [{"prediction_id": name, "value": 1}]}).encode()
    ((number, answer),) = split(exchange(fuzzed, request(fuzzed, body, LABEL)))
    assert (number, json.loads(answer)["unknown"]) == (400, [name])


@pytest.mark.parametrize(
    ("framing", "cause"),
    [
        (b"Content-Length: abc\r\n", "Content-Length"),
        (b"Content-Length: -1\r\n", "Content-Length"),
        (b"Content-Length: +5\r\n", "Content-Length"),
        (b"Content-Length: 0x10\r\n", "Content-Length"),
        (b"Content-Length: \xc2\xb2\r\n", "Content-Length"),
        (b"Content-Length:\r\n", "Content-Length"),
        (b"Content-Length: 5, 5\r\n", "Content-Length"),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", "Content-Length"),
        (b"Content-Length: 99999999999999999999999\r\n", "Content-Length"),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding"),
        (b"Transfer-Encoding: gzip\r\n", "Transfer-Encoding"),
        (b"", "not valid JSON"),  # no length is no body
    ],
)
def test_a_wrong_length_is_refused(fuzzed: Home, framing: bytes, cause: str) -> None:
    sent = request(fuzzed, b"" if not framing else GOOD, head=framing)
    assert cause.lower() in refused(exchange(fuzzed, sent), 400).lower()


def test_a_body_that_says_to_be_too_large_is_refused_before_it_comes(fuzzed: Home) -> None:
    sent = request(fuzzed, head=b"Content-Length: 99999999999\r\n")
    assert "at most 10,000,000 bytes" in refused(exchange(fuzzed, sent), 413)


@pytest.mark.parametrize("chunks", [b"zz\r\nabc\r\n", b"-1\r\n", b"f" * 20 + b"\r\n", b"3\r\nabcd\r\n", b"3\nabc\n"])
def test_wrong_chunks_are_refused(fuzzed: Home, chunks: bytes) -> None:
    sent = request(fuzzed, chunks, head=b"Transfer-Encoding: chunked\r\n")
    assert "The request is not HTTP/1.1" in refused(exchange(fuzzed, sent), 400)


def test_a_body_in_chunks_is_read(fuzzed: Home) -> None:
    chunks = b"".join(b"%x;an=extension\r\n%b\r\n" % (len(part), part) for part in (GOOD[:7], GOOD[7:]))
    sent = request(fuzzed, chunks + b"0\r\nTrailer: x\r\n\r\n", head=b"Transfer-Encoding: chunked\r\n")
    assert status(exchange(fuzzed, sent)) == 200


@pytest.mark.parametrize(
    ("encoded", "cause"),
    [
        (GOOD, "no gzip"),
        (gzip.compress(GOOD)[:-5], "ends too early"),
        (gzip.compress(GOOD) + b"more", "goes on after its end"),
        (gzip.compress(GOOD)[:-8] + bytes(8), "incorrect data check"),
    ],
)
def test_a_broken_gzip_is_refused(fuzzed: Home, encoded: bytes, cause: str) -> None:
    assert cause in refused(exchange(fuzzed, request(fuzzed, encoded, more=b"Content-Encoding: gzip\r\n")), 400)


@pytest.mark.parametrize("length", [b"-1", b"abc", b"1.5", b"9999999999999", b"999999999999", b"0", b"5", b"\xff", b""])
def test_a_wrong_length_of_the_json_before_a_binary_part_is_refused(fuzzed: Home, length: bytes) -> None:
    header = b"Inference-Header-Content-Length: " + length + b"\r\n"
    assert refused(exchange(fuzzed, request(fuzzed, tensors(), INFER, more=header)), 400)


@pytest.mark.parametrize("size", [-1, 9, 2**70, 1.0, "8", None, True])
def test_a_wrong_size_of_a_binary_tensor_is_refused(fuzzed: Home, size: object) -> None:
    tensor = {"name": "distance", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": size}}
    header = json.dumps({"inputs": [tensor]}).encode()
    length = b"Inference-Header-Content-Length: %d\r\n" % len(header)
    assert "distance" in refused(exchange(fuzzed, request(fuzzed, header + bytes(8), INFER, more=length)), 400)


@pytest.mark.parametrize(
    "authorization",
    [
        *(b"", b"Bearer", b"Bearer \xc3\xa9", b"Bearer " + b"a" * 10_000),
        *(b"Basic !!!", b"Basic \xff\xff", b"Basic /////w==", b"Basic OnM6"),
    ],
)
def test_a_token_that_is_none_is_refused(fuzzed: Home, authorization: bytes) -> None:
    sent = b"GET /metrics HTTP/1.1\r\nAuthorization: " + authorization + b"\r\n\r\n"
    assert "token" in refused(exchange(fuzzed, sent), 401)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/%00", 404),
        (b"/endpoints/%00", 404),
        (b"/endpoints/%ff%fe", 404),
        (b"/endpoints/%ED%A0%80", 404),
        (b"/endpoints/../../etc/passwd", 404),
        (b"/endpoints/%", 404),
        (b"//endpoints//", 404),
        (b"*", 404),
        (b"/v2/models/%ED%A0%80/versions/%ED%A0%80", 404),
        (b"/v2/models/flight-delay/versions/%D9%A3", 400),
        (b"/endpoints/" + b"a" * 60_000, 404),
        (b"/endpoints/" + b"a" * 80_000, 400),
        (b"/endpoints/a\0b", 400),
        (b"/endpoints/\xff", 400),
        (b"", 400),
        (b"a:b", 400),
    ],
)
def test_paths_that_lead_nowhere_are_refused(fuzzed: Home, path: bytes, expected: int) -> None:
    token = f"Authorization: Bearer {fuzzed.admin}\r\n\r\n".encode()
    assert refused(exchange(fuzzed, b"GET " + path + b" HTTP/1.1\r\n" + token), expected)


@pytest.mark.parametrize(
    "sent",
    [
        bytes(100),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"get /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nA\r\n\r\n",
        b"GET /health HTTP/1.1\r\n: b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        b"GET /health HTTP/1.1\r\nA: \0\r\n\r\n",
        b"GET /health HTTP/1.1\nA: b\n\n",
    ],
)
def test_what_is_not_http_is_refused_in_the_one_shape(fuzzed: Home, sent: bytes) -> None:
    assert "The request is not HTTP/1.1" in refused(exchange(fuzzed, sent), 400)


@pytest.mark.parametrize("headers", [b"X: " + b"a" * 5_000_000, b"".join(b"X-%d: a\r\n" % i for i in range(100_000))])
def test_headers_without_end_are_refused(fuzzed: Home, headers: bytes) -> None:
    sent = b"GET /health HTTP/1.1\r\n" + headers
    assert f"at most {HEAD_BYTES:,} bytes" in refused(exchange(fuzzed, sent), 431)


def test_a_head_that_comes_byte_by_byte_is_read(fuzzed: Home) -> None:
    sent = request(fuzzed, GOOD)
    assert status(exchange(fuzzed, *(sent[place : place + 1] for place in range(len(sent))))) == 200


def test_a_body_is_asked_for_when_the_caller_waits_for_that(fuzzed: Home) -> None:
    received = exchange(fuzzed, request(fuzzed, GOOD, more=b"Expect: 100-continue\r\n"))
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
    wrong = exchange(fuzzed, request(fuzzed, GOOD, b"/endpoints/none/invocations", more=b"Expect: 100-continue\r\n"))
    assert wrong.startswith(b"HTTP/1.1 404")


def test_requests_in_a_pipeline_are_answered_in_their_order(fuzzed: Home) -> None:
    sent = [request(fuzzed, GOOD), request(fuzzed, b"{}"), request(fuzzed, GOOD, LABEL)] * 20
    answers = split(exchange(fuzzed, b"".join(sent), answers=60))
    assert [number for number, _ in answers] == [200, 400, 400] * 20
    assert b"Expected exactly one of" in answers[1][1]
    assert b"unknown field" in answers[2][1]


def test_garbage_after_a_request_takes_nothing_from_its_answer(fuzzed: Home) -> None:
    ((number, body),) = split(exchange(fuzzed, request(fuzzed, GOOD) + b"GARBAGE\r\n\r\n", answers=2))
    assert (number, b"prediction_ids" in body) == (200, True)


def test_a_broken_body_in_a_pipeline_is_refused_in_its_turn(fuzzed: Home) -> None:
    broken = request(fuzzed, b"zz\r\n", head=b"Transfer-Encoding: chunked\r\n")
    answers = split(exchange(fuzzed, request(fuzzed, GOOD) + broken, answers=3))
    assert [number for number, _ in answers] == [200, 400]
    assert b"invalid character in chunk size" in answers[1][1]


def test_a_caller_that_has_closed_its_side_gets_its_answer(fuzzed: Home) -> None:
    assert status(exchange(fuzzed, request(fuzzed, GOOD), is_half_closed=True)) == 200
    assert exchange(fuzzed, request(fuzzed, GOOD)[:-5], is_half_closed=True) == b""


@pytest.mark.parametrize("offer", [b"h2c", b"websocket"])
def test_a_request_that_offers_another_protocol_is_answered_in_this_one(fuzzed: Home, offer: bytes) -> None:
    """Java's HTTP client offers HTTP/2 with its first request, and goes on in HTTP/1.1 when nobody takes it up."""
    headers = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + offer + b"\r\nHTTP2-Settings: AAMAAABk\r\n"
    offering = request(fuzzed, GOOD, more=headers)
    chunked = request(
        fuzzed, b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD), head=b"Transfer-Encoding: chunked\r\n", more=headers
    )
    for sent in (
        [offering + request(fuzzed, GOOD)],
        [offering[:-20], offering[-20:], request(fuzzed, GOOD)],
        [offering, offering],
        [chunked, request(fuzzed, GOOD)],
    ):
        assert [number for number, _ in split(exchange(fuzzed, *sent, answers=2))] == [200, 200]


@settings(max_examples=300, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutated_requests_never_fail_the_gateway(fuzzed: Home, data: st.DataObject) -> None:
    path, body = data.draw(st.sampled_from([(INVOKE, GOOD), (INFER, tensors()), (LABEL, b'{"labels":[]}')]))
    mutated = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(mutated)))
        end = data.draw(st.integers(place, min(len(mutated), place + 8)))
        piece = st.sampled_from([b"", b"null", b"1e999", b"[", b'"', b"\\ud800", b"\0", b"-", b"\xff", b"{}"])
        mutated[place:end] = data.draw(piece | st.binary(max_size=4))
    ((number, answer),) = split(exchange(fuzzed, request(fuzzed, bytes(mutated), path)))
    assert number in (200, 400), (number, answer, bytes(mutated))
    assert number == 200 or "error" in json.loads(answer) or "unknown" in json.loads(answer)


@settings(max_examples=200, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutated_heads_never_fail_the_gateway(fuzzed: Home, data: st.DataObject) -> None:
    sent = bytearray(request(fuzzed, GOOD))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(sent) - len(GOOD)))
        piece = st.sampled_from([b"\r\n", b"\r", b"\n", b":", b" ", b"\0", b"%", b"/", b"\xff", b"9"]) | st.binary(
            max_size=3
        )
        sent[place : place + data.draw(st.integers(0, 2))] = data.draw(piece)
    for number, answer in split(exchange(fuzzed, bytes(sent), is_half_closed=True)):
        assert number < 500, (number, answer, bytes(sent))
        assert number == 200 or json.loads(answer)["error"], answer


def test_no_request_above_was_an_error_of_the_gateway(fuzzed: Home) -> None:
    log = (fuzzed.settings.folder("logs") / "gateway-0.log").read_text()
    assert "Traceback" not in log, log[-3000:]
