"""Fixtures: a home with sealed versions, and runs over it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

from bulk import Bulk
from gateway_home import Home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home of the test's own; no gateway runs until the test starts one."""
    home = Home(tmp_path / "home")
    try:
        yield home
    finally:
        home.stop()


@pytest.fixture
def bulk(home: Home, tmp_path: Path) -> Bulk:
    """Runs over version 1, which answers ``1 + 2 * distance``."""
    return Bulk(home.settings.root, {1: home.seal(1, weight=2.0)}, tmp_path / "work")
