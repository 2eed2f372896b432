"""Fixtures: a running Relevo for the commands, and a folder in which somebody begins."""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path += [str(Path(__file__).parent), *(str(Path(__file__).parent.parent / name) for name in ("app", "console"))]

from running import Relevo
from typing_commands import Terminal


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relevo]:
    """``relevo up`` in an empty folder."""
    relevo = Relevo(tmp_path_factory.mktemp("first-hour") / ".relevo")
    try:
        relevo.start()
        yield relevo
    finally:
        relevo.close()


@pytest.fixture(scope="module")
def terminal(running: Relevo) -> Terminal:
    """A terminal in the folder of ``relevo up``, with nothing set: address and token are found in the home."""
    return Terminal(running.home.parent, {})


@pytest.fixture
def elsewhere(tmp_path: Path) -> Terminal:
    """A terminal in an empty folder where nothing runs."""
    return Terminal(tmp_path, {})


@pytest.fixture(scope="session")
def churn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as people have them: a text label, missing values, dates, names with blanks."""
    random.seed(5)
    path = tmp_path_factory.mktemp("data") / "churn.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["customer_id", "Monthly Income", "plan", "age", "signed up", "Churn?"])
        for number in range(400):
            income, plan = random.gauss(50, 15), random.choice(["basic", "pro", "team"])
            is_gone = income / 20 + 2 * (plan == "basic") + random.gauss(0, 1) > 3.3
            age = random.choice(["", random.randint(18, 80)])
            day = f"2024-0{number % 9 + 1}-15"
            writer.writerow([f"C{number}", round(income, 2), plan, age, day, "yes" if is_gone else "no"])
    return path
