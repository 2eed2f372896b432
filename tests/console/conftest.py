"""A new installation, and one with half a year behind it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from explored import explored
from plane import Plane, installation
from playwright.sync_api import Browser
from season import plant

from browser import open_chromium


@pytest.fixture(scope="session")
def season(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A model with a past. Shared: tests read it, and change only what they say."""
    with installation(tmp_path_factory.mktemp("season"), plant) as plane:
        yield plane


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """Two models with real datasets. Tests read them only."""
    with installation(tmp_path_factory.mktemp("data"), explored) as plane:
        yield plane


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A new installation."""
    with installation(tmp_path_factory.mktemp("bare")) as plane:
        yield plane


@pytest.fixture(scope="module")  # while it runs, no other event loop can: it ends with its module
def chromium() -> Iterator[Browser]:
    """A browser."""
    with open_chromium() as browser:
        yield browser
