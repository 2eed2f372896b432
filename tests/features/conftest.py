"""Makes the slow reference importable, and gives the example's sources with real flights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are imported one by one, without a package

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"


@pytest.fixture(scope="session")
def flights_package() -> Path:
    """The folder with the example's package ``flight_delay``."""
    return FLIGHTS
