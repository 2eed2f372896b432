"""Fixtures: homes with a real gateway."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from gateway_home import ENDPOINT, Home


def _homes(factory: Callable[[], Path]) -> Iterator[Home]:
    home = Home(factory())
    try:
        yield home
    finally:
        home.stop()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home of the test's own."""
    yield from _homes(lambda: tmp_path / "home")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home of the module's own, with one worker and version 1 in production, logging buffered."""
    for home in _homes(lambda: tmp_path_factory.mktemp("serving") / "home"):
        home.endpoint("buffered")
        home.place(1)
        home.place(2)
        home.route((1, 100))
        home.start()
        home.serving.await_loaded(ENDPOINT, 1, 20)
        home.serving.await_loaded(ENDPOINT, 2, 20)
        yield home


@pytest.fixture(scope="module")
def client(shared: Home) -> Iterator[httpx.Client]:
    """An administrator's client."""
    with closing(shared.client()) as client:
        yield client
