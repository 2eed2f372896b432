"""A version of a dataset. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class LoadedDataset:
    """What a load gave: the version of the table that holds it, new or already there.

    ``digest`` covers names, types and values, not the order of rows. ``columns`` gives each column's Polars type.
    ``known_through`` is the latest time at which a row became known; None for a source without times.
    """

    name: str
    version: int
    digest: str
    rows: int
    columns: dict[str, str]
    known_through: datetime | None
    is_new: bool


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """A recorded version: of which model's source, from which code, by which workflow."""

    model: str
    source: str
    version: int
    digest: str
    rows: int
    columns: dict[str, str]
    known_through: datetime | None
    snapshot: str
    workflow_id: str
    created_at: datetime
