"""Tokens that may send so many requests, at the real gateway."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gateway_home import ENDPOINT, Home, live_home

from relevo.identity.model import RELEVO, Role
from relevo.serving.rates import Bucket


def limited(home: Home, name: str, rate: str | None) -> str:
    with home.state.transaction() as tx:
        home.identity.create_principal(tx, name, Role.APPLICATION)
        return home.identity.create_token(tx, name, Role.APPLICATION, note="test", rate=rate)


def statuses(home: Home, token: str, requests: int) -> list[int]:
    with home.client(token) as client:
        return [home.predict(client).status_code for _ in range(requests)]


def test_a_token_with_a_rate_gets_its_requests_and_no_more(shared: Home) -> None:
    token = limited(shared, "hourly", "3/h")
    assert statuses(shared, token, 5) == [200] * 3 + [429] * 2
    with shared.client(token) as client:
        refused = shared.predict(client)
        assert refused.json()["error"]["code"] == "overloaded"
        assert refused.json()["error"]["message"] == (
            "The token of hourly may send 3/h requests to the gateway, and has sent more."
        )
        assert 1_100 <= int(refused.headers["retry-after"]) <= 1_200
        other = client.post(f"/v2/models/{ENDPOINT}/infer", json={"inputs": []})
        assert other.status_code == 429


def test_what_is_used_up_stays_so_when_the_tokens_are_read_again(shared: Home) -> None:
    token = limited(shared, "again", "2/h")
    assert statuses(shared, token, 2) == [200] * 2
    assert statuses(shared, limited(shared, "unlimited", None), 20) == [200] * 20  # it is new: all are read again
    assert statuses(shared, token, 1) == [429]


def test_a_bucket_is_filled_again(shared: Home) -> None:
    token = limited(shared, "quick", "2/s")
    with shared.client(token) as client:
        shared.eventually(lambda: shared.predict(client).status_code == 429)
        shared.eventually(lambda: shared.predict(client).status_code == 200)


def test_refusals_are_counted(shared: Home) -> None:
    def counted() -> float:
        with shared.client() as client:
            lines = client.get("/metrics").text.splitlines()
        found = [line for line in lines if line.startswith('relevo_shed_requests_total{endpoint="",reason="rate"}')]
        return float(found[0].split()[-1]) if found else 0.0

    before = counted()
    statuses(shared, limited(shared, "counted", "1/h"), 4)
    assert counted() == before + 3


def test_the_token_of_a_load_test_is_not_limited(shared: Home) -> None:
    with shared.state.transaction() as tx:
        token = shared.identity.create_token(tx, RELEVO.name, Role.LOAD_TEST, note="test", rate="1/h")
    with shared.client(token) as client:
        client.headers["x-relevo-version"] = "1"
        assert [shared.predict(client).status_code for _ in range(5)] == [200] * 5


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Home]:
    """Two workers on one port."""
    with live_home(tmp_path / "home", gateway_workers=2) as home:
        yield home


def test_workers_divide_a_rate_evenly(pair: Home) -> None:
    token = limited(pair, "divided", "6/h")
    answered: list[int] = []

    def both_refuse() -> bool:
        with ThreadPoolExecutor(8) as callers:  # a connection each, so that both workers get some
            answered.extend(status for [status] in callers.map(lambda _: statuses(pair, token, 1), range(8)))
        return len([one for one in pair.serving.live_workers() if one.shed]) == 2

    pair.eventually(both_refuse, 30)
    assert answered.count(200) == 6
    assert set(answered) == {200, 429}


def test_a_share_below_one_request_is_one() -> None:
    bucket = Bucket.of("1/min", workers=4, now=0.0)
    assert bucket.take(0.0) == 0.0
    assert bucket.take(0.0) == pytest.approx(240.0)
    assert bucket.take(240.0) == 0.0


def test_a_bucket_never_holds_more_than_its_size() -> None:
    bucket = Bucket.of("5/s", workers=1, now=0.0)
    assert [bucket.take(1_000.0) for _ in range(6)][:5] == [0.0] * 5
    assert bucket.take(1_000.0) > 0
