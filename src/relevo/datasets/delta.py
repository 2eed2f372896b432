"""Reads an existing Delta table that somebody else writes, lazily. Runs in child processes only."""

from __future__ import annotations

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from relevo.contract.model import Source
from relevo.datasets.files import first_line
from relevo.errors import Invalid, NotFound


def read_table(source: Source) -> pl.LazyFrame:
    """The newest version of the table; what is written to it meanwhile is not seen.

    Raises:
        NotFound: There is no Delta table.
        Invalid: The table needs something of its readers that this one does not know.
    """
    assert source.table is not None
    try:
        frame = pl.scan_delta(DeltaTable(source.table))
        frame.collect_schema()
    except (TableNotFoundError, FileNotFoundError):
        raise NotFound(
            f"source {source.name}: expected a Delta table at {source.table}, got none",
            hint="The path is looked for on the machine of the control plane.",
        ) from None
    except (DeltaError, pl.exceptions.PolarsError, OSError, NotImplementedError) as error:
        raise Invalid(
            f"source {source.name}: the Delta table {source.table} cannot be read: {first_line(error)}"
        ) from None
    return frame
