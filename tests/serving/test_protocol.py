"""Answers that go out in one write keep to HTTP: their order, the ends of connections, heads without a body."""

from __future__ import annotations

import pytest
from gateway_home import Home
from raw_http import asked, connected, read_answer, read_head


def test_requests_that_are_sent_together_are_answered_in_their_order(shared: Home) -> None:
    with connected(shared) as (connection, stream):
        connection.sendall(asked(shared) + asked(shared, b"{}") + asked(shared))
        assert [read_answer(stream)[0] for _ in range(3)] == [200, 400, 200]


@pytest.mark.parametrize(("version", "more"), [("1.1", {"Connection": "close"}), ("1.0", {})])
def test_a_connection_that_is_to_be_closed_is_closed_after_its_answer(
    shared: Home, version: str, more: dict[str, str]
) -> None:
    with connected(shared) as (connection, stream):
        connection.sendall(asked(shared, version=version, **more))
        status, headers = read_answer(stream)
        assert (status, headers["connection"]) == (200, "close")
        assert stream.read() == b""


def test_a_head_has_the_length_of_the_body_and_no_body(shared: Home) -> None:
    with connected(shared) as (connection, stream):
        connection.sendall(b"HEAD /health HTTP/1.1\r\nHost: here\r\n\r\n")
        status, headers = read_head(stream)
        assert status == 200
        assert int(headers["content-length"]) > 0
        connection.sendall(asked(shared))
        assert read_answer(stream)[0] == 200


def test_a_caller_who_waits_for_leave_to_send_gets_it(shared: Home) -> None:
    whole = asked(shared, Expect="100-continue")
    head, _, content = whole.partition(b"\r\n\r\n")
    with connected(shared) as (connection, stream):
        connection.sendall(head + b"\r\n\r\n")
        assert read_head(stream)[0] == 100
        connection.sendall(content)
        assert read_answer(stream)[0] == 200


def test_many_answers_that_nobody_reads_yet_all_arrive(shared: Home) -> None:
    with connected(shared) as (connection, stream):
        connection.sendall(asked(shared) * 2000)
        assert {read_answer(stream)[0] for _ in range(2000)} == {200}
