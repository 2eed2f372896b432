"""Delta tables of the log, with one writer: appended exactly once, on the disk before their source is deleted."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from relevo.errors import Invalid
from relevo.platform.files import sync

COMMITS_A_COMPACTION = 200
_COMPACTED_BYTES = 64 << 20
_ENDPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DELTA_TYPES: dict[str, pl.DataType] = {
    "double": pl.Float64(),
    "long": pl.Int64(),
    "string": pl.String(),
    "boolean": pl.Boolean(),
    "binary": pl.Binary(),
    "timestamp": pl.Datetime("us", "UTC"),
}

logger = logging.getLogger(__name__)


def is_endpoint_name(name: str) -> bool:
    """Whether ``name`` can name a folder of a table."""
    return _ENDPOINT.fullmatch(name) is not None


def table_path(root: Path, kind: str, endpoint: str) -> Path:
    """Where the ``predictions`` or ``labels`` table of ``endpoint`` lies.

    Raises:
        Invalid: The name cannot name a folder.
    """
    if not is_endpoint_name(endpoint):
        raise Invalid(f"An endpoint is named by letters, digits, '.', '_' and '-', got {endpoint!r}.", field="endpoint")
    return root / kind / endpoint


def scan(path: Path) -> pl.LazyFrame | None:
    """The table as it is now, or None when there is none yet; later commits and compactions do not change it."""
    if not DeltaTable.is_deltatable(str(path)):
        return None
    return pl.scan_delta(DeltaTable(str(path)))  # given a path, each collect would read another version


class LogTable:
    """A table that this process alone writes.

    An append and the transactions that it covers are one commit, so a source that is found again after a crash is
    recognised by `transaction`. When `append` returns, data and commit have been synced.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._delta: DeltaTable | None = None
        self._synced_version = -1
        self._commits = 0
        if (path / "_delta_log").is_dir():
            _drop_unsynced(path)
            if DeltaTable.is_deltatable(str(path)):
                self._delta = DeltaTable(str(path))
                self._synced_version = self._delta.version()

    def columns(self) -> dict[str, pl.DataType]:
        """Columns with their types; those of nested types are left out."""
        if self._delta is None:
            return {}
        types = {field.name: getattr(field.type, "type", "") for field in self._delta.schema().fields}
        return {name: _DELTA_TYPES[kind] for name, kind in types.items() if kind in _DELTA_TYPES}

    def transaction(self, app_id: str) -> int:
        """The last version that was committed under ``app_id``, 0 when there is none."""
        version = None if self._delta is None else self._delta.transaction_version(app_id)
        return 0 if version is None else int(version)

    def append(self, rows: pl.DataFrame, transactions: Mapping[str, int]) -> None:
        """Add ``rows`` and record ``transactions`` (version by app id) in one commit; new columns are added."""
        properties = CommitProperties(app_transactions=[Transaction(*item) for item in transactions.items()])
        if self._delta is None:
            write_deltalake(str(self._path), rows, mode="append", commit_properties=properties)
            self._delta = DeltaTable(str(self._path))
            for folder in (self._path.parent, self._path.parent.parent):
                sync(folder)
        else:
            write_deltalake(self._delta, rows, mode="append", schema_mode="merge", commit_properties=properties)
        self._sync_commits()
        self._commits += 1
        if self._commits % COMMITS_A_COMPACTION == 0:
            self.compact()

    def compact(self) -> None:
        """Join small files. Readers go on with the files of the version that they opened, for a week at least."""
        if self._delta is None:
            return
        self._delta.optimize.compact(target_size=_COMPACTED_BYTES)
        self._sync_commits()
        self._delta.vacuum(dry_run=False)  # of what was replaced longer ago than the default of 7 days
        self._sync_commits()

    def _sync_commits(self) -> None:
        """Sync the files of each commit since the last sync, then the commits, then the folders that name them."""
        assert self._delta is not None
        log = self._path / "_delta_log"
        version = self._delta.version()
        for number in range(self._synced_version + 1, version + 1):
            commit = log / f"{number:020d}.json"
            for name in _added(commit.read_text()):
                sync(self._path / name)
            sync(commit)
            for checkpoint in log.glob(f"{number:020d}.checkpoint*.parquet"):
                sync(checkpoint)
                sync(log / "_last_checkpoint")
        sync(self._path)
        sync(log)
        self._synced_version = version


def _added(commit: str) -> dict[str, int]:
    """Files that a commit adds, relative to the table, with their sizes in bytes."""
    actions = [json.loads(line) for line in commit.splitlines() if line]
    return {action["add"]["path"]: action["add"]["size"] for action in actions if "add" in action}


def _drop_unsynced(path: Path) -> None:
    """Remove what a power cut left of a commit or checkpoint that was not synced; its source is still there."""
    log = path / "_delta_log"
    for checkpoint in sorted(log.glob("*.checkpoint*.parquet"))[-1:]:
        data = checkpoint.read_bytes()
        if len(data) < 8 or data[:4] != b"PAR1" or data[-4:] != b"PAR1":
            logger.warning("%s was not written whole; it is removed", checkpoint)
            checkpoint.unlink()
            (log / "_last_checkpoint").unlink(missing_ok=True)
    for commit in sorted(log.glob("*.json"), reverse=True):
        if _is_whole(path, commit):
            return
        logger.warning("%s was not written whole; it is removed", commit)
        commit.unlink()


def _is_whole(path: Path, commit: Path) -> bool:
    try:
        text = commit.read_text()
        added = _added(text)
        return bool(text.strip()) and all((path / name).stat().st_size == size for name, size in added.items())
    except (ValueError, KeyError, FileNotFoundError):
        return False
