"""Versions of a dataset as versions of a Delta table, told apart by a digest of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from relevo.errors import NotFound

_DIGEST = "relevo.digest"
_COMMIT_RETRIES = 5


def content_digest(frame: pl.DataFrame) -> str:
    """SHA-256 over names, types and values; columns in the order of their names, rows as they are.

    Rows sorted by what names them (as ``read_source`` gives them) have one order, so that the same content has the same
    digest however the loader ordered it. It does not depend on the version of a library: only values are read.
    """
    sha = hashlib.sha256()
    for name in sorted(frame.columns):
        column = frame[name]
        sha.update(f"{name}\0{column.dtype}\0{len(column)}\0".encode())
        for part in _bytes_of(column):
            sha.update(part)
    return sha.hexdigest()


def write_version(path: Path, frame: pl.DataFrame, metadata: dict[str, str]) -> tuple[int, str, bool]:
    """Write ``frame`` as the next version of the table at ``path``, unless the last version has the same content.

    One process at a time writes a table. A crash leaves the last version as it was.

    Returns:
        The version that holds the content, its digest, and whether it is new.
    """
    digest = content_digest(frame)
    last = _last_version(path)
    if last is not None and last[1] == digest:
        return *last, False
    write_deltalake(
        path,
        frame,
        mode="overwrite",
        schema_mode="overwrite",
        commit_properties=CommitProperties(
            custom_metadata={**metadata, _DIGEST: digest}, max_commit_retries=_COMMIT_RETRIES
        ),
    )
    return DeltaTable(path).version(), digest, True


def scan_version(tables_root: Path, source: str, version: int) -> pl.LazyFrame:
    """A version of a dataset as a lazy frame.

    Raises:
        NotFound: There is no such table or version.
    """
    try:
        table = DeltaTable(tables_root / source, version=version)
    except DeltaError as error:
        raise NotFound(f"dataset {source} has no version {version} under {tables_root}: {error}") from None
    return pl.scan_delta(table)


def _last_version(path: Path) -> tuple[int, str] | None:
    try:
        table = DeltaTable(path)
    except TableNotFoundError:
        return None
    return table.version(), str(table.history(1)[0].get(_DIGEST))


def _bytes_of(column: pl.Series) -> Iterator[bytes]:
    """What identifies the values: which are null, then the values with nulls as zeros; for text, lengths before it."""
    yield np.packbits(column.is_null().to_numpy()).tobytes()
    kind = column.dtype
    if kind == pl.String:
        column = column.fill_null("")
        yield column.str.len_bytes().to_numpy().tobytes()
        yield column.str.join("").item().encode()
    elif kind == pl.Boolean:
        yield np.packbits(column.fill_null(False).to_numpy()).tobytes()
    elif kind.is_temporal() or kind.is_integer() or kind.is_float():
        yield column.to_physical().fill_null(0).to_numpy().tobytes()
    else:
        yield repr(column.to_list()).encode()
