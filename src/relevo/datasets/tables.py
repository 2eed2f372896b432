"""Versions of a dataset as versions of a Delta table, told apart by a digest of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from relevo.errors import Conflict, NotFound, Unavailable

#: In a table of quarantined rows: the rules that a row fails, as text.
FAILED_RULES = "__failed_rules"

_DIGEST = "relevo.digest"


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


def write_version(
    path: Path, frame: pl.DataFrame, metadata: dict[str, str], last: tuple[int, str] | None = None
) -> tuple[int, str, bool]:
    """Write ``frame`` as the next version of the table at ``path``, unless the last version has the same content.

    A crash or a full disk leaves the last version as it was.

    Args:
        path: The table's folder.
        frame: The whole content of the version.
        metadata: Kept in the table's history.
        last: Version and digest that are recorded as the last; None: what the table says.

    Returns:
        The version that holds the content, its digest, and whether it is new to what is recorded.

    Raises:
        Conflict: Another writer has changed the table, or does so meanwhile. What is recorded stays readable.
        Unavailable: The disk does not take it.
    """
    digest = content_digest(frame)
    table, head = open_own(path, last)
    if last is not None and last[1] == digest:
        return *last, False
    if head is not None and head[1] == digest:  # written by a load that ended before it was recorded
        return *head, last is not None
    try:
        write_deltalake(
            table if table is not None else path,
            frame,
            mode="overwrite",
            schema_mode="overwrite",
            # Without a retry the commit is the one right after what was checked, or none.
            commit_properties=CommitProperties(custom_metadata={**metadata, _DIGEST: digest}, max_commit_retries=0),
            # A version is read by its log entry for as long as anything refers to it.
            post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
        )
    except CommitFailedError as error:
        if "os error" in str(error):
            raise _full(path, error) from None
        raise Conflict(f"the table {path} was written by another writer at the same time; what it had stays") from None
    except (DeltaError, OSError) as error:
        raise _full(path, error) from None
    return 0 if head is None else head[0] + 1, digest, True


def open_own(path: Path, last: tuple[int, str] | None) -> tuple[DeltaTable | None, tuple[int, str] | None]:
    """The table at ``path`` with the version and digest of its last commit; None where there is none.

    Args:
        path: The table's folder.
        last: Version and digest that are recorded as the last.

    Raises:
        Conflict: The table is not as recorded, or has a commit that is not ours.
    """
    try:
        table = DeltaTable(path)
    except TableNotFoundError:
        if last is not None:
            raise _foreign(path, last, "the table is gone") from None
        return None, None
    head = table.version()
    if last is not None and head < last[0]:
        raise _foreign(path, last, f"the table ends with version {head}")
    commits = {int(commit["version"]): commit for commit in table.history(1 if last is None else head - last[0] + 1)}
    foreign = sorted(number for number, commit in commits.items() if _DIGEST not in commit)
    if foreign:
        operation = str(commits[foreign[0]].get("operation", "a commit"))
        raise _foreign(path, last, f"version {foreign[0]} ({operation}) was written by another writer")
    if last is not None and commits[last[0]][_DIGEST] != last[1]:
        raise _foreign(path, last, f"version {last[0]} has other content than is recorded")
    return table, (head, str(commits[head][_DIGEST]))


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


def remove_versions(path: Path, removed: Collection[int]) -> None:
    """Delete the files that only these versions have; every other version stays readable. Idempotent.

    Delta's own vacuum is not used: it adds commits to a table that has one writer, its quick form forgets what it may
    delete after a week, and its full form deletes the files of a version that is being written.

    Raises:
        Unavailable: The files cannot be deleted, or the table cannot be read.
    """
    if not removed:
        return
    files = _files(path)
    kept = set[str]().union(*(found for number, found in files.items() if number not in removed))
    for number in removed:
        for file in files.get(number, set()) - kept:
            Path(file).unlink(missing_ok=True)


def remove_left(path: Path, last: int, before: datetime) -> int:
    """Delete the data files that no version has, as a load leaves them that dies before its commit; gives how many.

    Args:
        path: The table's folder.
        last: The last recorded version. A log that ends before it has lost commits, and so says of no file whose it is.
        before: Files that were written since then stay: their load may yet commit them.

    Raises:
        Unavailable: The table cannot be read, or its log ends before ``last``.
    """
    old = [file for file in path.glob("part-*.parquet*") if file.stat().st_mtime < before.timestamp()]
    if not old:
        return 0
    files = _files(path)
    if last not in files:
        raise Unavailable(f"the table {path} ends before version {last}, which is recorded")
    named = {Path(file).name for found in files.values() for file in found}
    left = [file for file in old if file.name not in named]  # a half-written one has ``#1`` at its end
    for file in left:
        file.unlink(missing_ok=True)
    return len(left)


def _files(path: Path) -> dict[int, set[str]]:
    """The data files of each version; those of removed versions are named, too."""
    try:
        head = DeltaTable(path).version()
        return {number: set(DeltaTable(path, version=number).file_uris()) for number in range(head + 1)}
    except DeltaError as error:
        raise Unavailable(f"the table {path} cannot be read: {error}") from None


def _foreign(path: Path, last: tuple[int, str] | None, what: str) -> Conflict:
    stays = "" if last is None else f" Version {last[0]} is the last good one."
    return Conflict(
        f"the table {path} is not as Relevo left it: {what}.{stays}",
        hint="Nothing else may write there. Restore the folder from a backup, or declare the source under "
        "another name, which begins a new table.",
    )


def _full(path: Path, error: Exception) -> Unavailable:
    return Unavailable(
        f"the table {path} could not be written: {str(error).splitlines()[0]}. Its last version stays as it was.",
        hint="Make room on the disk, and load again.",
    )


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
