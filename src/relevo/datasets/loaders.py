"""Calls a team's loader, and finds what else a contract names in its package. Runs in child processes only."""

from __future__ import annotations

import importlib
import inspect
import sys
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from relevo.contract.model import Source
from relevo.errors import Invalid, nearest


def read_loader(source: Source, package: Path, since: datetime | None, until: datetime | None) -> pl.LazyFrame:
    """What the loader of ``source`` gives; it is given those of ``since`` and ``until`` that it takes.

    Raises:
        Invalid: There is no such loader, or it gives no table. What it raises itself comes through as it is.
    """
    assert source.loader is not None
    return _as_frame(source, _call(resolve(source.loader, package), since, until))


def resolve(reference: str, package: Path) -> Any:
    """The object that ``module:name`` refers to, with ``package`` first on the import path.

    Raises:
        Invalid: There is no such name in the module.
    """
    folder = str(package)
    if folder not in sys.path:
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
    module_name, _, name = reference.partition(":")
    module = importlib.import_module(module_name)
    try:
        return getattr(module, name)
    except AttributeError:
        near = nearest(name, [known for known in vars(module) if not known.startswith("_")])
        hint = f"; did you mean {near!r}?" if near else ""
        raise Invalid(f"{reference}: {module_name} has no {name!r}{hint}") from None


def _call(loader: Callable[..., object], since: datetime | None, until: datetime | None) -> object:
    parameters = inspect.signature(loader).parameters.values()
    accepts_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    names = {parameter.name for parameter in parameters if parameter.kind is not parameter.POSITIONAL_ONLY}
    wanted = {"since": since, "until": until}
    return loader(**{name: value for name, value in wanted.items() if accepts_any or name in names})


def _as_frame(source: Source, answer: object) -> pl.LazyFrame:
    if isinstance(answer, pl.LazyFrame):
        return answer
    if isinstance(answer, pl.DataFrame):
        return answer.lazy()
    if type(answer).__module__.split(".")[0] == "pandas" and hasattr(answer, "columns"):
        import pyarrow

        with warnings.catch_warnings():  # pyarrow 25 reads zoned times in a way that pandas 3.1 deprecates
            warnings.simplefilter("ignore", DeprecationWarning)
            return pl.DataFrame(pyarrow.Table.from_pandas(answer, preserve_index=False)).lazy()
    if hasattr(answer, "__arrow_c_stream__"):
        return pl.DataFrame(answer).lazy()
    raise Invalid(
        f"source {source.name}: the loader {source.loader} should give a Polars, pandas or Arrow table, "
        f"got {type(answer).__name__}"
    )
