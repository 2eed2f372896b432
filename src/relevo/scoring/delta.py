"""Finished parts as one commit of a new Delta table: a reader sees all of a run or nothing of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from relevo.errors import Conflict, Unavailable

_RUN = "relevo.run"


def commit_parts(parts: Sequence[Path], table: Path, run: str) -> None:
    """Write the rows of the parts, in their order, as the first version of the table. Idempotent for one run.

    Raises:
        Conflict: There is a table of something else.
        Unavailable: The disk does not take it.
    """
    if committed_run(table) == run:
        return
    schema = _without_nulls(pq.read_schema(parts[0]))
    rows = pa.RecordBatchReader.from_batches(schema, _batches(parts, schema))
    try:
        write_deltalake(table, rows, mode="error", commit_properties=CommitProperties(custom_metadata={_RUN: run}))
    except (DeltaError, OSError) as error:
        if committed_run(table) is not None:
            raise Conflict(f"{table} became a Delta table of something else meanwhile.") from None
        raise Unavailable(f"The Delta table {table} could not be written: {str(error).splitlines()[0]}") from None


def committed_run(table: Path) -> str | None:
    """The run whose rows are the table's first version; empty of another writer's; None where there is no table."""
    try:
        commits = DeltaTable(table).history()
    except TableNotFoundError:
        return None
    return str(commits[-1].get(_RUN, ""))


def _batches(parts: Sequence[Path], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for path in parts:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield batch.cast(schema)


def _without_nulls(schema: pa.Schema) -> pa.Schema:
    """Delta has no type of nothing: a column without any value is text."""
    fields = [field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in schema]
    return pa.schema(fields)
