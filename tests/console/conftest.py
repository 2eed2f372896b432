"""A new installation, and one with half a year behind it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from explored import explored
from plane import Plane, control_plane
from season import plant


@pytest.fixture(scope="session")
def season(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A model with a past. Shared: tests read it, and change only what they say."""
    app, services, tokens = control_plane(tmp_path_factory.mktemp("season"))
    plant(services)
    yield app, services, tokens
    services.close()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """Two models with real datasets. Tests read them only."""
    app, services, tokens = control_plane(tmp_path_factory.mktemp("data"))
    explored(services)
    yield app, services, tokens
    services.close()


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A new installation."""
    app, services, tokens = control_plane(tmp_path_factory.mktemp("bare"))
    yield app, services, tokens
    services.close()
