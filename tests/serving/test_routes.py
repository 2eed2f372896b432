"""Canaries, promotions and roll-backs under traffic."""

from __future__ import annotations

import pytest
from gateway_home import ENDPOINT, Home

from relevo.errors import Unavailable
from relevo.serving.policy import error_rate, p99_ms, since


def live(home: Home, log: str, *versions: int) -> None:
    """A worker that has loaded the versions; the first is in production."""
    home.endpoint(log)
    for version in versions:
        home.place(version)
    home.route((versions[0], 100))
    home.start()
    for version in versions:
        home.serving.await_loaded(ENDPOINT, version, 20)


def follows(home: Home, revision: int) -> bool:
    return all(one.revisions.get(ENDPOINT) == revision for one in home.serving.live_workers())


def test_a_canary_gets_its_share_even_of_few_requests(home: Home) -> None:
    live(home, "buffered", 1, 2)
    home.route((1, 95), (2, 5))
    home.eventually(lambda: follows(home, 2))
    with home.client() as client:
        for _ in range(3):
            got = [home.predict(client).json()["version"] for _ in range(100)]
            assert 4 <= got.count(2) <= 6


def test_routes_change_under_load_without_a_failed_request(home: Home) -> None:
    live(home, "buffered", 1, 2)
    load = home.load()
    load.until(50)
    for arms in ([(1, 95.0), (2, 5.0)], [(1, 50.0), (2, 50.0)], [(2, 100.0)]):
        home.route(*arms)
        load.more(100)
    home.eventually(lambda: follows(home, 4))
    with home.state.transaction() as tx:
        home.serving.unplace(tx, ENDPOINT, 1)
    load.more(100)
    home.place(3)
    home.serving.await_loaded(ENDPOINT, 3, 20)
    home.route((2, 50), (3, 50))
    load.more(200)
    home.route((2, 100))
    load.more(100)
    load.stop()
    assert load.failures == []
    assert set(load.versions) == {1, 2, 3}
    home.eventually(lambda: sum(c.requests for c in home.serving.counters(ENDPOINT).values()) == len(load.acknowledged))
    assert {version: c.requests for version, c in home.serving.counters(ENDPOINT).items()} == load.versions


def test_a_canary_that_fails_costs_no_request_and_is_counted(home: Home) -> None:
    live(home, "buffered", 1)
    home.place(2, weight=1e308)
    home.serving.await_loaded(ENDPOINT, 2, 20)
    before = home.count(2)
    home.route((1, 50), (2, 50))
    home.eventually(lambda: follows(home, 2))
    with home.client() as client:
        answers = [home.predict(client, 100.0) for _ in range(20)]
        assert [answer.status_code for answer in answers] == [200] * 20
        assert {answer.json()["version"] for answer in answers} == {1}
        failed = client.post(
            f"/endpoints/{ENDPOINT}/invocations",
            json={"dataframe_records": [{"distance": 100.0, "carrier": None}]},
            headers={"x-relevo-version": "2"},
        )
    assert failed.status_code == 500
    assert failed.json()["error"]["code"] == "version_failed"
    assert "flight-delay/2 could not answer" in failed.json()["error"]["message"]
    home.eventually(lambda: home.count(1).requests == 20)
    canary = since(home.count(2), before)
    assert 9 <= canary.requests <= 11
    assert error_rate(canary) == 1.0
    assert p99_ms(canary) is not None
    home.eventually(lambda: len([one for one in home.records() if one.status == "failed"]) == canary.requests + 1)
    record = next(one for one in home.records() if one.status == "failed")
    assert (record.version, record.predictions, record.inputs) == (2, [], [[100.0, "UA"]])


def test_a_request_that_the_canary_alone_refuses_counts_against_it(home: Home) -> None:
    live(home, "buffered", 1)
    home.place(2, known_carriers=("AA",))
    home.serving.await_loaded(ENDPOINT, 2, 20)
    home.route((1, 50), (2, 50))
    home.eventually(lambda: follows(home, 2))
    with home.client() as client:
        assert [home.predict(client).status_code for _ in range(10)] == [200] * 10
        wrong = [client.post(f"/endpoints/{ENDPOINT}/invocations", json={}).status_code for _ in range(4)]
    assert wrong == [400] * 4
    home.eventually(lambda: home.count(1).refused == 4)
    assert home.count(2).failed in (4, 5, 6)
    assert home.count(2).refused == 0
    assert (home.count(1).requests, home.count(1).failed) == (10, 0)


def test_a_value_that_the_champion_cannot_answer_is_the_callers_mistake(home: Home) -> None:
    home.endpoint("buffered")
    home.place(1, known_carriers=("AA",))
    home.route((1, 100))
    home.start()
    home.serving.await_loaded(ENDPOINT, 1, 20)
    with home.client() as client:
        answer = home.predict(client)
    assert answer.status_code == 400
    assert answer.json()["error"]["field"] == "carrier"


def test_a_changed_bundle_is_refused_and_the_current_version_keeps_answering(home: Home) -> None:
    live(home, "buffered", 1)
    bundle = home.seal(2)
    home.spoil(bundle)
    with home.state.transaction() as tx:
        home.serving.place(tx, ENDPOINT, 2, bundle)
    with pytest.raises(Unavailable, match="cannot load flight-delay/2"):
        home.serving.await_loaded(ENDPOINT, 2, 20)
    with home.client() as client:
        assert home.predict(client).json()["version"] == 1
        refused = client.post(f"/endpoints/{ENDPOINT}/invocations", json={}, headers={"x-relevo-version": "2"})
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"


def test_an_endpoint_without_a_version_asks_to_try_again(home: Home) -> None:
    home.endpoint("buffered")
    home.start()
    with home.client() as client:
        answer = home.predict(client)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert "no version in production yet" in answer.json()["error"]["message"]
