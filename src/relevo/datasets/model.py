"""A version of a dataset, and what a load found. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

#: What is done about rows that fail a check.
Action = Literal["fail", "quarantine", "warn"]

#: Whether a load read everything, or what had become known since the version before.
Mode = Literal["full", "incremental"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one rule found: ``failed`` of ``rows`` rows, some of them as text in ``sample``, and what is done then."""

    rule: str
    failed: int
    rows: int
    sample: tuple[str, ...]
    action: Action


@dataclass(frozen=True, slots=True)
class LoadedDataset:
    """What a load gave: the version of the table that holds it, new or already there.

    ``digest`` covers names, types and values, not the order of rows. ``columns`` gives each column's Polars type.
    ``known_through`` is the latest time at which a row became known; None for a source without times.
    ``changes`` says in words how the columns differ from the version before. ``quarantined`` rows are kept apart, in
    version ``quarantine_version`` of the table ``NAME__quarantine``. ``origin`` is the digest of what the rows were
    read by: the declaration, and the code where code of the team gives them.
    """

    name: str
    version: int
    digest: str
    rows: int
    columns: dict[str, str]
    known_through: datetime | None
    is_new: bool
    checks: tuple[CheckResult, ...] = ()
    changes: tuple[str, ...] = ()
    mode: Mode = "full"
    quarantined: int = 0
    quarantine_version: int | None = None
    origin: str = ""


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """A recorded version: of which model's source, from which code, by which workflow.

    Whose content was loaded again keeps its first record; ``checks``, ``quarantined``, ``quarantine_version`` and
    ``origin`` are of the last load. From ``collected_at`` on the rows are not to be read any more, and at
    ``removed_at`` their files were gone.
    """

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
    checks: tuple[CheckResult, ...] = ()
    changes: tuple[str, ...] = ()
    mode: Mode = "full"
    quarantined: int = 0
    quarantine_version: int | None = None
    origin: str = ""
    collected_at: datetime | None = None
    removed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """``version`` of a source and every later one may not be collected until ``holder``, a workflow, has let go."""

    model: str
    source: str
    version: int
    holder: str


def quarantine_of(source: str) -> str:
    """The name of the table that keeps the quarantined rows of ``source``.

    >>> quarantine_of("flights")
    'flights__quarantine'
    """
    return f"{source}__quarantine"
