"""What is scored by what, and how a run stands. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

#: Columns of the output beside those of the input.
PREDICTION, VERSION, ROW, ERROR = "prediction", "version", "input_row", "error"

#: Rows that one child has in memory at once.
CHUNK_ROWS = 65_536


class Format(StrEnum):
    """How the output is written."""

    PARQUET = "parquet"
    DELTA = "delta"


class OnError(StrEnum):
    """What is done about a row that cannot be answered: end the run, or write null and say why beside it."""

    FAIL = "fail"
    NULL = "null"


class Kind(StrEnum):
    """What the input is."""

    PARQUET = "parquet"
    DELTA = "delta"
    QUERY = "query"


@dataclass(frozen=True, slots=True)
class Plan:
    """Which version answers, and up to which event time rows can be asked."""

    model: str
    version: int
    bundle: str
    as_of: datetime


@dataclass(frozen=True, slots=True)
class Sources:
    """The loaded sources of feature views: a folder that holds ``NAME.arrow`` for each, and how they are declared."""

    folder: str
    sources: tuple[dict[str, object], ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the caller asks for. Everything but ``workers`` belongs to the run, and cannot change while it is resumed.

    ``keep`` names the input columns that go into the output; None keeps all. ``input_version`` is that of a Delta
    table; None takes the newest.
    """

    model: str
    input: str
    output: Path
    version: int | None = None
    connection: str | None = None
    input_version: int | None = None
    format: Format = Format.PARQUET
    keep: tuple[str, ...] | None = None
    on_error: OnError = OnError.FAIL
    chunk_rows: int = CHUNK_ROWS
    workers: int = 1


@dataclass(frozen=True, slots=True)
class File:
    """A Parquet file of the input, as it was when the run began."""

    path: str
    size_bytes: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class InputFacts:
    """What tells one input from another. ``version`` and ``table`` are a Delta table's number and id."""

    kind: Kind
    place: str
    connection: str | None = None
    files: tuple[File, ...] = ()
    table: str | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it is recorded beside its output. ``outcome`` is None until it is done."""

    id: str
    plan: Plan
    input: InputFacts
    format: Format
    keep: tuple[str, ...] | None
    on_error: OnError
    chunk_rows: int
    began_at: datetime
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one Parquet file, from ``first`` on."""

    path: str
    first: int
    rows: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of the input that become one part. A Delta table has no ``pieces``: ``first`` says which."""

    number: int
    first: int
    rows: int
    pieces: tuple[Piece, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """A finished part. ``failed`` rows have no prediction; ``first_error`` names the first of them."""

    rows: int
    failed: int
    first_error: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run. ``rows_in_flight`` is the most that children had in memory at once, in this command."""

    model: str
    version: int
    output: str
    rows: int
    failed: int
    first_error: str | None
    parts: int
    resumed_parts: int
    rows_in_flight: int
    restarts: int
    seconds: float
