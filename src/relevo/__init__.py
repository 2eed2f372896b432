"""Relevo brings machine-learning models to production and keeps them healthy."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

__version__ = "0.1.0"


def dataset(name: str, *, version: int | None = None, model: str | None = None) -> pl.LazyFrame:
    """A version of a dataset as a lazy Polars frame. Nothing is read before it is collected.

    The home is that of ``RELEVO_HOME``, else the nearest folder ``.relevo``, here or above. Relevo need not run.

    Args:
        name: Of the source, such as ``flights``, or ``flight-delay/flights`` with its model.
        version: As ``relevo datasets history`` shows it; default: the newest.
        model: Whose source, where several models have one of that name.

    Raises:
        NotFound: There is no such home, dataset or version, or its rows were collected.
        Invalid: Several models have a source of that name.
    """
    reading = import_module("relevo.datasets.reading")  # by its name: every layer may import this package
    frame: pl.LazyFrame = reading.open_dataset(name, version=version, model=model)
    return frame
