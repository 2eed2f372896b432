"""Many endpoints in few bytes: versions rest, wake, and make room for each other, in real workers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from gateway_home import ENDPOINT, NOW, Home, body

from relevo.errors import Unavailable
from relevo.platform.state import Transaction
from relevo.serving.loader import VERSION_BYTES
from relevo.serving.model import Arm, EndpointSettings, Heartbeat

MANY = 300
#: Each of these models takes a little more than VERSION_BYTES.
ROOM_FOR = 10


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Home]:
    """A home whose gateway has room for ten versions or so."""
    home = Home(tmp_path / "home", gateway_model_bytes=VERSION_BYTES * (ROOM_FOR + 1))
    try:
        yield home
    finally:
        home.stop()


def _register(home: Home, *names: str, version: int = 1) -> None:
    bundles = {name: home.seal(version, endpoint=name) for name in names}
    with home.state.transaction() as tx:
        for name, bundle in bundles.items():
            home.serving.ensure_endpoint(tx, name, EndpointSettings(log="buffered"))
            home.serving.place(tx, name, version, bundle)
            if home.serving.current_route(name, tx) is None:
                _route(home, tx, name, (version, 100))


def _route(home: Home, tx: Transaction, name: str, *arms: tuple[int, float]) -> None:
    split = [Arm(version, percent) for version, percent in arms]
    home.serving.set_route(tx, name, split, reason="test", set_by="ada", effective_event_at=NOW)


def _beat(home: Home) -> Heartbeat:
    [beat] = home.serving.live_workers()
    return beat


def _ask(client: httpx.Client, name: str, version: int | None = None) -> httpx.Response:
    headers = {} if version is None else {"x-relevo-version": str(version)}
    return client.post(f"/endpoints/{name}/invocations", json=body(100.0), headers=headers)


def _ready(home: Home) -> set[tuple[str, int]]:
    loaded = _beat(home).loaded
    return {(name, one) for name, states in loaded.items() for one, state in states.items() if state == "ready"}


def _thirty(home: Home, version: int = 1) -> tuple[list[str], str]:
    """The names of thirty endpoints on a worker, and of one whose version rests."""
    names = [f"model-{number:02d}" for number in range(30)]
    _register(home, *names, version=version)
    home.start()
    home.eventually(lambda: _beat(home).resting >= 20)
    return names, next(name for name in names[::-1] if (name, version) not in _ready(home))


def test_three_hundred_endpoints_answer_from_the_room_of_ten(small: Home) -> None:
    names = [f"model-{number:03d}" for number in range(MANY)]
    _register(small, *names)
    small.start()
    small.eventually(lambda: _beat(small).resting + len(_ready(small)) == MANY)
    assert 0 < len(_ready(small)) <= ROOM_FOR
    with small.client() as client:
        for name in (*names, *names[:20]):
            answer = _ask(client, name)
            assert (answer.status_code, answer.json().get("version")) == (200, 1), answer.text
        shown = client.get(f"/endpoints/{names[100]}").json()
        assert shown["signature"]["inputs"][0]["name"] == "distance"
        metrics = client.get("/metrics").text
    small.eventually(lambda: _beat(small).memory_bytes <= _beat(small).budget_bytes == VERSION_BYTES * (ROOM_FOR + 1))
    assert 'relevo_versions_resting{worker="0"} 29' in metrics
    small.eventually(lambda: sum(small.serving.counters(name)[1].requests for name in names[:5]) == 10)


def test_who_asks_at_the_same_time_waits_for_one_load(small: Home) -> None:
    _, asleep = _thirty(small)
    together = threading.Barrier(8)

    def ask(_: int) -> int:
        with small.client() as client:
            together.wait()
            return _ask(client, asleep).status_code

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(8))) == [200] * 8
    written = "".join(path.read_text() for path in small.settings.folder("logs").iterdir())
    assert written.count(f"{asleep}/1 is ready") == 1


def test_a_split_stays_in_memory_and_what_is_newly_placed_is_loaded(small: Home) -> None:
    names, _ = _thirty(small)
    others, split = names[:-1], names[-1]
    _register(small, split, version=2)
    small.serving.await_loaded(split, 2, 20)
    with small.state.transaction() as tx:
        _route(small, tx, split, (1, 50), (2, 50))
    small.eventually(lambda: _beat(small).revisions[split] == 2)
    small.eventually(lambda: {(split, 1), (split, 2)} <= _ready(small))
    with small.client() as client:
        for name in others:
            assert _ask(client, name).status_code == 200
        assert {(split, 1), (split, 2)} <= _ready(small)
        assert {_ask(client, split).json()["version"] for _ in range(4)} == {1, 2}
        with small.state.transaction() as tx:
            _route(small, tx, split, (2, 100))
        small.eventually(lambda: _beat(small).revisions[split] == 3)
        for name in others:
            assert _ask(client, name).status_code == 200
        small.eventually(lambda: not {(split, 1), (split, 2)} & _ready(small))
        assert _ask(client, split).json()["version"] == 2
        assert _ask(client, split, version=1).json()["version"] == 1


def test_a_version_that_rests_is_loaded_again_before_a_release_goes_on(small: Home) -> None:
    _, asleep = _thirty(small)
    with pytest.raises(Unavailable, match="has not loaded it yet"):
        small.serving.await_loaded(asleep, 1, 0.3)
    _register(small, asleep)
    small.serving.await_loaded(asleep, 1, 20)


def test_a_changed_bundle_is_found_when_the_version_wakes(small: Home) -> None:
    names, asleep = _thirty(small, version=2)
    small.spoil(next(one.bundle for one in small.serving.placements(asleep)))
    with small.client() as client:
        refused = _ask(client, asleep)
        assert _ask(client, names[0]).status_code == 200
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert "was changed" in refused.json()["error"]["message"]


def test_a_fleet_that_fits_is_all_in_memory(home: Home) -> None:
    names = [f"model-{number:02d}" for number in range(20)]
    _register(home, *names, ENDPOINT)
    home.start()
    home.eventually(lambda: len(_ready(home)) == 21)
    assert _beat(home).resting == 0
    assert 21 * VERSION_BYTES <= _beat(home).memory_bytes <= _beat(home).budget_bytes
