"""Fixtures: a real running Relevo, and a team's small project to put through it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from running import Relevo

PROJECT = Path(__file__).parent / "project"
#: Where event time stands when a model is applied: six weeks of parcels are known.
BEGINS = datetime(2024, 2, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Project:
    """A copy of the project under a model's name, and the record of what its code did."""

    model: str
    folder: Path
    witness: Path

    def change(self, file: str, old: str, new: str) -> None:
        """Replace a piece of a file that is in it once."""
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1, f"{file} has {old!r} {text.count(old)} times"
        path.write_text(text.replace(old, new))

    def record(self) -> list[str]:
        """What the code did so far."""
        path = self.witness / "record"
        return path.read_text().splitlines() if path.exists() else []

    def let_go(self, name: str) -> None:
        """Let what waits for that file go on."""
        (self.witness / name).touch()


@pytest.fixture(scope="session")
def relevo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relevo]:
    """A running Relevo with its people. Tests share it, and each has models of its own."""
    started = Relevo(tmp_path_factory.mktemp("app") / "home")
    try:
        started.start()
        started.invite()
        yield started
    finally:
        started.close()


@pytest.fixture(scope="session")
def make_project(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Project]:
    """Makes a copy of the project whose model has the given name."""

    def make(model: str) -> Project:
        base = tmp_path_factory.mktemp(model)
        made = Project(model, base / "project", base)
        shutil.copytree(PROJECT, made.folder, ignore=shutil.ignore_patterns("__pycache__"))
        made.change("relevo.yaml", "model: parcels", f"model: {model}")
        made.change("parcels/witness.py", 'FOLDER = ""', f"FOLDER = {str(base)!r}")
        return made

    return make


@pytest.fixture(scope="session")
def live(relevo: Relevo, make_project: Callable[[str], Project]) -> Project:
    """A model whose first version is live; tests may ask it and label its predictions, and leave its release alone."""
    project = make_project("parcels")
    relevo.replay(project.model, BEGINS)
    relevo.bring_live(relevo.apply(project.folder))
    return project
