"""The world of a release, on both databases."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from relevo.platform.settings import Settings
from relevo.platform.state import State

sys.path.insert(0, str(Path(__file__).parent))

from release_world import World


@pytest.fixture
def world(state: State, tmp_path: Path) -> World:
    made = World(state, Settings(home=tmp_path / "home"))
    made.apply()
    return made
