"""Where keys fall in a split, alone and in real workers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import httpx
import pytest
from gateway_home import ENDPOINT, SIGNATURE, Home
from hypothesis import given
from hypothesis import strategies as st

from relevo.runtimes.model import Column, ColumnType, Signature
from relevo.serving.model import Arm
from relevo.serving.policy import bounds
from relevo.serving.splitting import key_of, place_of

SECRET = b"s" * 32
KEYED = Signature(
    SIGNATURE.task,
    (*SIGNATURE.inputs, Column("customer", ColumnType.INTEGER)),
    at=SIGNATURE.at,
    keys=(Column("plane", ColumnType.TEXT),),
)


def _arm(split: tuple[Arm, ...], key: bytes) -> int:
    place = place_of(SECRET, ENDPOINT, key)
    return next(arm.version for arm, bound in zip(split, bounds(split), strict=True) if place < bound)


@given(st.lists(st.integers(1, 99), min_size=2, max_size=8, unique=True).map(sorted), st.binary(min_size=1))
def test_a_canary_that_grows_never_gives_a_key_back(percents: list[int], key: bytes) -> None:
    arms = [_arm((Arm(1, 100 - percent), Arm(2, percent)), key) for percent in percents]
    assert arms == sorted(arms)


@given(st.binary(min_size=1), st.sampled_from(["a", "flight-delay"]))
def test_a_key_has_one_place(key: bytes, endpoint: str) -> None:
    place = place_of(SECRET, endpoint, key)
    assert 0 <= place < 1
    assert place == place_of(SECRET, endpoint, key)


def test_keys_divide_as_the_shares_say_and_differently_by_endpoint_and_installation() -> None:
    keys = [b"%d" % number for number in range(20_000)]
    for secret, endpoint in ((SECRET, "one"), (SECRET, "two"), (b"t" * 32, "one")):
        below = {key for key in keys if place_of(secret, endpoint, key) < 0.05}
        assert len(below) == pytest.approx(1_000, abs=120)
    met = [{key for key in keys if place_of(SECRET, name, key) < 0.05} for name in ("one", "two")]
    assert len(met[0] & met[1]) < 100


def test_a_value_is_one_key_however_it_is_written() -> None:
    noon = datetime(2013, 4, 1, 12, tzinfo=UTC)
    assert key_of(noon) == key_of(noon.astimezone(timezone(timedelta(hours=2))))
    assert key_of(2**60) == b"%d" % 2**60
    assert key_of(0.5) == b"0.5"
    assert key_of("") == b""


def _live(home: Home, signature: Signature = KEYED, **settings: str) -> None:
    home.endpoint("buffered", **settings)
    for version in (1, 2):
        home.place(version, signature=signature)
    home.route((1, 100))
    for worker in (0, 1):
        home.start(worker)
    for version in (1, 2):
        home.serving.await_loaded(ENDPOINT, version, 20)


def _follow(home: Home, *arms: tuple[int, float]) -> None:
    home.route(*arms)
    route = home.serving.current_route(ENDPOINT)
    assert route is not None
    home.eventually(lambda: all(one.revisions[ENDPOINT] == route.revision for one in home.serving.live_workers()))


def _ask(client: httpx.Client, *customers: int | None, key: str | None = None, plane: str = "N1") -> int:
    records = [{"distance": 1.0, "carrier": "UA", "customer": one, "plane": plane} for one in customers]
    headers = {} if key is None else {"x-relevo-key": key}
    answer = client.post(f"/endpoints/{ENDPOINT}/invocations", json={"dataframe_records": records}, headers=headers)
    assert answer.status_code == 200, answer.text
    version: int = answer.json()["version"]
    return version


def test_a_customer_stays_with_a_version_over_workers_restarts_and_steps(home: Home) -> None:
    _live(home, sticky="customer")
    customers = range(60)

    def asked() -> dict[int, int]:
        found = {}
        for _ in range(2):
            with home.client() as client:  # another connection may meet another worker
                for customer in customers:
                    version = _ask(client, customer)
                    assert found.setdefault(customer, version) == version
        return found

    _follow(home, (1, 70), (2, 30))
    few = asked()
    assert set(few.values()) == {1, 2}
    home.stop_workers()
    home.start(0)
    home.serving.await_loaded(ENDPOINT, 2, 20)
    assert asked() == few
    _follow(home, (1, 40), (2, 60))
    more = asked()
    assert {customer for customer in customers if few[customer] == 2} < {
        customer for customer in customers if more[customer] == 2
    }


def test_the_first_row_decides_a_header_wins_and_null_takes_turns(home: Home) -> None:
    _live(home, sticky="customer")
    _follow(home, (1, 50), (2, 50))
    with home.client() as client:
        alone = {customer: _ask(client, customer) for customer in range(20)}
        first, second = 0, next(one for one in alone if alone[one] != alone[0])
        assert [_ask(client, first, second), _ask(client, second, first)] == [alone[first], alone[second]]
        assert {_ask(client, second, key=str(first)) for _ in range(6)} == {alone[first]}
        assert {_ask(client, None) for _ in range(6)} == {1, 2}
        refused = client.post(f"/endpoints/{ENDPOINT}/invocations", json={"dataframe_records": [{"distance": "far"}]})
    assert refused.status_code == 400
    home.eventually(lambda: home.count(1).refused == 1)
    assert home.count(2).refused == 0


def test_a_split_sticks_to_a_key_that_is_no_input(home: Home) -> None:
    _live(home, sticky="plane")
    _follow(home, (1, 50), (2, 50))
    planes = [f"N{number}" for number in range(20)]
    with home.client() as client:
        versions = [[_ask(client, number, plane=plane) for number in range(3)] for plane in planes]
    assert all(len(set(one)) == 1 for one in versions)
    assert {one[0] for one in versions} == {1, 2}


def test_without_a_sticky_column_the_arms_take_turns_and_a_header_sticks(home: Home) -> None:
    _live(home)
    _follow(home, (1, 50), (2, 50))
    with home.client() as client:
        assert {_ask(client, 7) for _ in range(8)} == {1, 2}
        assert len({_ask(client, 7, key="c-7") for _ in range(8)}) == 1
