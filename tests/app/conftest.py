"""Fixtures: a real running Relevo, and a team's small project to put through it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from running import Relevo
from team import BEGINS, Project, copy_project


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
    return lambda model: copy_project(model, tmp_path_factory.mktemp(model))


@pytest.fixture(scope="session")
def live(relevo: Relevo, make_project: Callable[[str], Project]) -> Project:
    """A model whose first version is live; tests may ask it and label its predictions, and leave its release alone."""
    project = make_project("parcels")
    relevo.replay(project.model, BEGINS)
    relevo.bring_live(relevo.apply(project.folder))
    return project


@pytest.fixture(scope="session")
def contested(relevo: Relevo, make_project: Callable[[str], Project]) -> Project:
    """A model whose first version is live, for tests that bring it challengers; each ends the release that it began."""
    project = make_project("contested")
    relevo.replay(project.model, BEGINS)
    relevo.bring_live(relevo.apply(project.folder))
    return project
