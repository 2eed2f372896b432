"""The input: what it is, what tells it from another, and its rows, some at a time.

A query is asked once and copied to files first: asked again it may give other rows, or the same in another order, and
a resumed run would lose some and repeat others.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from relevo.contract.model import Source
from relevo.datasets.files import first_line
from relevo.datasets.queries import stream_query
from relevo.errors import Invalid, NotFound
from relevo.scoring.model import Asked, Chunk, File, InputFacts, Kind, Piece

QUERY = "query:"


def find_input(asked: Asked) -> InputFacts:
    """What the input is now.

    Raises:
        NotFound: There is no such file, folder or table, or no such version of it.
        Invalid: An option does not fit it.
    """
    if asked.input.startswith(QUERY):
        if asked.connection is None:
            hint = "--connection warehouse takes the URL in RELEVO_CONNECTION_WAREHOUSE."
            raise Invalid("A query needs the connection that it is asked on.", field="connection", hint=hint)
        facts = InputFacts(Kind.QUERY, asked.input.removeprefix(QUERY).strip(), connection=asked.connection)
    elif (Path(asked.input) / "_delta_log").is_dir():
        facts = _delta(asked)
    else:
        facts = InputFacts(Kind.PARQUET, _place(asked.input), files=_files(asked.input))
    if asked.connection is not None and facts.kind is not Kind.QUERY:
        raise Invalid("A connection is asked a query: --input 'query:SELECT ...'.", field="connection")
    if asked.input_version is not None and facts.kind is not Kind.DELTA:
        raise Invalid(f"{asked.input} is no Delta table, and has no versions.", field="input-version")
    return facts


def copy_query(facts: InputFacts, into: Path, on_rows: Callable[[int], None]) -> None:
    """Write the rows of a query to Parquet files in the folder ``into``, which appears only when all are there.

    Rows come from a cursor of the database, some at a time. ``on_rows`` is told how many there are by now.

    Raises:
        Unavailable: The connection is not set, or the database does not answer.
        Invalid: The query fails.
    """
    draft = into.with_name(f"{into.name}.writing")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    source = Source(name="input", query=facts.place, connection=facts.connection, key=())
    rows = 0
    for number, frame in enumerate(stream_query(source)):
        frame.write_parquet(draft / f"{number:06}.parquet", compression="lz4")
        rows += frame.height
        on_rows(rows)
    draft.rename(into)


class Reader:
    """Reads rows of the input, all with the same columns and types. Not thread-safe.

    Args:
        facts: The input.
        copied: The folder of a copied query.

    Raises:
        Invalid: Files differ in their columns, or cannot be read.
    """

    def __init__(self, facts: InputFacts, copied: Path, schema: pl.Schema | None = None) -> None:
        self._facts = facts
        self._table: pl.LazyFrame | None = None
        if facts.kind is Kind.DELTA:
            self._table = pl.scan_delta(DeltaTable(facts.place, version=facts.version))
        elif facts.kind is Kind.QUERY:
            self._paths = [str(path) for path in sorted(copied.glob("*.parquet"))]
        else:
            self._paths = [file.path for file in facts.files]
        self.schema = schema if schema is not None else self._schema()

    def chunks(self, size: int) -> Iterator[Chunk]:
        """The whole input, ``size`` rows at a time; of an empty one a chunk without rows."""
        if self._table is not None:
            total = int(self._table.select(pl.len()).collect(engine="streaming").item())
            for number, first in enumerate(range(0, max(total, 1), size)):
                yield Chunk(number, first, min(size, total - first))
            return
        number = first = rows = 0
        pieces: list[Piece] = []
        for path in self._paths:
            at, left = 0, int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())
            while left:
                taken = min(left, size - rows)
                pieces.append(Piece(path, at, taken))
                at, left, rows = at + taken, left - taken, rows + taken
                if rows == size:
                    yield Chunk(number, first, rows, tuple(pieces))
                    number, first, rows, pieces = number + 1, first + rows, 0, []
        if rows or number == 0:
            yield Chunk(number, first, rows, tuple(pieces))

    def read(self, chunk: Chunk) -> pl.DataFrame:
        """The rows of a chunk, in their order."""
        if self._table is not None:
            return self._table.slice(chunk.first, chunk.rows).collect()
        if not chunk.pieces:
            return pl.DataFrame(schema=self.schema)
        frames = [pl.scan_parquet(p.path, glob=False).slice(p.first, p.rows).collect() for p in chunk.pieces]
        casts = [pl.col(name).cast(kind) for name, kind in self.schema.items()]
        return pl.concat([frame.select(casts) for frame in frames])

    def _schema(self) -> pl.Schema:
        if self._table is not None:
            try:
                return self._table.collect_schema()
            except (pl.exceptions.PolarsError, DeltaError, OSError, NotImplementedError) as error:
                message = f"The Delta table {self._facts.place} cannot be read: {first_line(error)}"
                raise Invalid(message, field="input") from None
        together: pl.DataFrame | None = None
        for path in self._paths:
            together = _joined(together, path)
        assert together is not None
        return together.schema


def _joined(known: pl.DataFrame | None, path: str) -> pl.DataFrame:
    """The columns of the files so far, widened by those of another."""
    try:
        own = pl.DataFrame(schema=pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise Invalid(f"{path} cannot be read as Parquet: {first_line(error)}", field="input") from None
    if known is None:
        return own
    different = set(known.columns) ^ set(own.columns)
    if different:
        name = min(different)
        has = "lacks" if name in known.columns else "has"
        raise Invalid(f"{path} {has} the column {name!r}, other than the files before it.", field=name)
    for name in known.columns:
        try:
            pl.concat([known.select(name), own.select(name)], how="vertical_relaxed")
        except pl.exceptions.PolarsError:
            message = f"{path}: column {name!r} is {own.schema[name]}, and {known.schema[name]} in the files before it."
            raise Invalid(message, field=name) from None
    return pl.concat([known, own.select(known.columns)], how="vertical_relaxed")


def _delta(asked: Asked) -> InputFacts:
    try:
        table = DeltaTable(asked.input, version=asked.input_version)
        return InputFacts(Kind.DELTA, _place(asked.input), table=str(table.metadata().id), version=int(table.version()))
    except (DeltaError, OSError) as error:
        raise NotFound(f"The Delta table {asked.input} cannot be read: {first_line(error)}", field="input") from None


def _place(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - a glob is no path to resolve


def _files(given: str) -> tuple[File, ...]:
    path = Path(given)
    if path.is_dir():
        found: Sequence[Path] = sorted(path.glob("*.parquet"))
    elif path.is_file():
        found = [path]
    else:
        found = sorted(Path(each) for each in glob.glob(given, recursive=True))  # noqa: PTH207 - as a shell reads it
        found = [each for each in found if each.is_file()]
    if not found:
        what = "a Parquet file, a folder of *.parquet, a glob, a Delta table, or 'query:SELECT ...'"
        raise NotFound(f"Expected {what} at {given}, got nothing there.", field="input")
    return tuple(File(_place(str(each)), each.stat().st_size, each.stat().st_mtime_ns) for each in found)
