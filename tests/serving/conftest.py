"""Fixtures: homes with a real gateway."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from gateway_home import Home, live_home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home of the test's own."""
    home = Home(tmp_path / "home")
    try:
        yield home
    finally:
        home.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home of the module's own, with one worker and version 1 in production, logging buffered."""
    with live_home(tmp_path_factory.mktemp("serving") / "home", versions=(1, 2)) as home:
        yield home


@pytest.fixture(scope="module")
def client(shared: Home) -> Iterator[httpx.Client]:
    """An administrator's client."""
    with closing(shared.client()) as client:
        yield client
