"""What a job's child process does for datasets: plain JSON in, plain JSON out. Imports the team's package."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from relevo.contract.model import Source
from relevo.datasets.checks import run_checks
from relevo.datasets.loading import known_at, read_source
from relevo.datasets.model import LoadedDataset
from relevo.datasets.tables import write_version
from relevo.errors import Invalid
from relevo.platform.encoding import parse, to_json


def load(
    source: dict[str, Any], package: str, until: str | None, tables_root: str, snapshot: str | None = None
) -> dict[str, Any]:
    """Load a source as it was known at ``until``, check it, and keep it as a version of its table.

    Idempotent: the same content gives the same version.

    Args:
        source: A ``Source`` of the contract, as JSON.
        package: Folder from which the team's package is imported.
        until: ISO 8601 with an offset; None for everything that the loader has.
        tables_root: The folder of the model's tables; the table is the folder ``source`` in it.
        snapshot: Digest of the code snapshot, kept in the table's history.

    Returns:
        A ``LoadedDataset`` as JSON.

    Raises:
        Invalid: The loader's answer is not as declared, has no rows, or fails the checks. Nothing is written.
    """
    declared = parse(Source, source)
    last = datetime.fromisoformat(until) if until is not None else None
    frame = read_source(declared, Path(package), until=last)
    if frame.is_empty():
        by_then = f" that were known at {until}" if until is not None else ""
        raise Invalid(f"source {declared.name}: {declared.origin} gave no rows{by_then}")
    run_checks(declared, Path(package), frame)
    metadata = {"relevo.until": until or "", "relevo.snapshot": snapshot or ""}
    version, digest, is_new = write_version(Path(tables_root) / declared.name, frame, metadata)
    known = known_at(declared)
    loaded = LoadedDataset(
        name=declared.name,
        version=version,
        digest=digest,
        rows=frame.height,
        columns={name: str(kind) for name, kind in frame.schema.items()},
        known_through=None if known is None else frame.select(known.max()).item(),
        is_new=is_new,
    )
    return dict(to_json(loaded))
