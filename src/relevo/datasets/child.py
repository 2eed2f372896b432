"""What a job's child process does for datasets: plain JSON in, plain JSON out. Imports the team's package."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from relevo.contract.model import Source
from relevo.datasets.checks import run_checks
from relevo.datasets.incremental import origin_of, read_rows
from relevo.datasets.loading import is_text, known_at
from relevo.datasets.model import DatasetVersion, LoadedDataset, quarantine_of
from relevo.datasets.schemas import compare, conform
from relevo.datasets.tables import open_own, scan_version, write_version
from relevo.errors import Invalid
from relevo.platform.encoding import parse, to_json


def load(
    source: dict[str, Any],
    package: str,
    until: str | None,
    tables_root: str,
    snapshot: str | None = None,
    *,
    last: dict[str, Any] | None = None,
    reads: Collection[str] | None = None,
) -> dict[str, Any]:
    """Load a source as it was known at ``until``, check it, and keep it as a version of its table.

    Idempotent: the same content gives the same version.

    Args:
        source: A ``Source`` of the contract, as JSON.
        package: Folder from which the team's package is imported.
        until: ISO 8601 with an offset; None for everything that the source has.
        tables_root: The folder of the model's tables; the table is the folder ``source`` in it.
        snapshot: Digest of the code snapshot, kept in the table's history.
        last: The last recorded ``DatasetVersion``, as JSON; None when there is none.
        reads: The columns that the contract and the views read, which may not be lost; None: all of them.

    Returns:
        A ``LoadedDataset`` as JSON.

    Raises:
        Invalid: What the source gave is not as declared, has no rows, fails the checks, or has lost a column that is
            read. Nothing is written.
        Conflict: Another writer has changed the table.
        Unavailable: The source cannot be reached, or the disk does not take the version.
    """
    declared, root = parse(Source, source), Path(tables_root)
    before = None if last is None else parse(DatasetVersion, last)
    recorded = None if before is None else (before.version, before.digest)
    open_own(root / declared.name, recorded)  # before anything is read: what is not ours is not read either
    origin, textual = origin_of(declared, snapshot), is_text(declared)
    frame, mode = read_rows(
        declared,
        Path(package),
        until=datetime.fromisoformat(until) if until is not None else None,
        last=before,
        origin=origin,
        tables_root=root,
        is_text=textual,
    )
    if frame.is_empty():
        by_then = f" that were known at {until}" if until is not None else ""
        raise Invalid(f"source {declared.name}: {declared.origin} gave no rows{by_then}")
    changes: tuple[str, ...] = ()
    if before is not None:
        frame, changes = _fitted(declared, frame, before, root, reads, is_textual=textual)
    checked = run_checks(declared, Path(package), frame)
    if checked.kept.is_empty():
        raise Invalid(f"source {declared.name}: all {frame.height} rows fail the checks, so nothing is left to keep")
    metadata = {"relevo.until": until or "", "relevo.snapshot": snapshot or ""}
    apart, apart_version = checked.quarantined, None
    if apart is not None:
        apart_version, _, _ = write_version(root / quarantine_of(declared.name), apart, metadata)
    version, digest, is_new = write_version(root / declared.name, checked.kept, metadata, recorded)
    known = known_at(declared)
    loaded = LoadedDataset(
        name=declared.name,
        version=version,
        digest=digest,
        rows=checked.kept.height,
        columns={name: str(kind) for name, kind in checked.kept.schema.items()},
        known_through=None if known is None else checked.kept.select(known.max()).item(),
        is_new=is_new,
        checks=checked.results,
        changes=changes if is_new else (),
        mode=mode,
        quarantined=0 if apart is None else apart.height,
        quarantine_version=apart_version,
        origin=origin,
    )
    return dict(to_json(loaded))


def _fitted(
    source: Source,
    frame: pl.DataFrame,
    before: DatasetVersion,
    root: Path,
    reads: Collection[str] | None,
    *,
    is_textual: bool,
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The frame with the types of the version before where its own say nothing, and what has changed in words."""
    rows = scan_version(root, source.name, before.version)
    frame = conform(frame, rows.collect_schema(), is_text=is_textual)
    after = {name: str(kind) for name, kind in frame.schema.items()}
    differing = [name for name, kind in before.columns.items() if after.get(name) != kind]
    without_value: list[str] = []
    if differing:
        counts = rows.select(pl.col(name).count() for name in differing).collect()
        without_value = [name for name in differing if not counts[name].item()]
    return frame, compare(source, before.version, before.columns, after, reads=reads, without_value=without_value)
