"""The flights of the example, as the benchmarks use them: contract, tables, views, and an online store."""

from __future__ import annotations

import importlib
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from relevo.contract.model import Contract
from relevo.contract.parsing import parse_contract
from relevo.datasets.loading import read_source
from relevo.features.materialise import Materialiser
from relevo.features.model import FeatureView
from relevo.features.online import OnlineStore

PACKAGE = Path(__file__).parents[1] / "examples" / "flights"
#: Until when the online store is filled; requests ask about the hours before.
THROUGH = datetime(2013, 4, 1, tzinfo=UTC)


def contract() -> Contract:
    path = PACKAGE / "relevo.yaml"
    return parse_contract(path.read_text(), path)


def views() -> list[FeatureView]:
    """The five views of the example."""
    _import_from_example()
    module = importlib.import_module(str(contract().features))
    return [value for value in vars(module).values() if isinstance(value, FeatureView)]


def scheduled() -> pl.DataFrame:
    """Each of the 336,776 scheduled flights, by schedule."""
    _import_from_example()
    return importlib.import_module("flight_delay.sources").scheduled().collect()


def tables(until: datetime | None = None) -> dict[str, pl.DataFrame]:
    """The rows of every source, as they were known at ``until``."""
    return {source.name: read_source(source, PACKAGE, until=until) for source in contract().sources}


def fill(path: Path, model: str) -> None:
    """An online store that answers the five views of ``model`` as of ``THROUGH``."""
    with closing(OnlineStore(path)) as store:
        Materialiser(
            store, model=model, views=views(), sources=contract().sources, package=PACKAGE, origin="bench"
        ).materialise(THROUGH)


def _import_from_example() -> None:
    if str(PACKAGE) not in sys.path:
        sys.path.insert(0, str(PACKAGE))
