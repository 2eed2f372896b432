"""Opens a version of a dataset from a home folder, for notebooks and scripts: what ``relevo.dataset`` gives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import sqlalchemy as sa

from relevo.datasets.naming import find
from relevo.datasets.overview import require_rows
from relevo.datasets.service import Datasets
from relevo.datasets.tables import scan_version
from relevo.errors import NotFound, Unavailable
from relevo.platform.settings import Settings
from relevo.platform.state import State

_STATE = "state.db"


def open_dataset(name: str, *, version: int | None = None, model: str | None = None) -> pl.LazyFrame:
    """The rows of a recorded version. What it takes and raises stands at ``relevo.dataset``."""
    settings = _settings()
    with _datasets(settings) as datasets:
        of_model, source = find(name, datasets.names(), model)
        if version is None:
            found = datasets.versions(of_model, source)[0]
        else:
            found = datasets.version(of_model, source, version)
    return scan_version(settings.root / "tables" / of_model, source, require_rows(found).version)


@contextmanager
def _datasets(settings: Settings) -> Iterator[Datasets]:
    if settings.state_url is None and not (settings.root / _STATE).exists():
        raise NotFound(
            f"There is no home folder of Relevo at {settings.root}.",
            hint="Set RELEVO_HOME to the folder that `relevo up` runs on.",
        )
    state = State(settings.state_database)
    try:
        yield Datasets(state)
    except sa.exc.DBAPIError as error:
        raise Unavailable(
            f"The state store of {settings.root} cannot be read: {type(error.orig).__name__}: {error.orig}.",
            hint="Was it made by an earlier version of Relevo? `relevo up` brings it up to date.",
        ) from None
    finally:
        state.close()


def _settings() -> Settings:
    """The settings of the environment; without ``RELEVO_HOME`` the home is the nearest one, here or above."""
    settings = Settings()
    if "RELEVO_HOME" in os.environ or settings.root.exists():
        return settings
    above = (folder / settings.home for folder in Path.cwd().parents)
    home = next((home for home in above if (home / _STATE).exists()), None)
    return settings if home is None else Settings(home=home)
