"""Reads the files that match a source's pattern, lazily. Runs in child processes only."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from relevo.contract.model import Source
from relevo.errors import Invalid, NotFound


def read_files(source: Source, project: Path) -> pl.LazyFrame:
    """The rows of all files, in the order of their paths. A column that some files lack is null there.

    Types of CSV and JSON lines are found in the whole file. Numbers of different width widen.

    Args:
        source: Its ``files`` is a pattern.
        project: Folder of the code snapshot, in which a relative pattern is looked for.

    Raises:
        NotFound: No file matches.
        Invalid: A file cannot be read as what its name says.
    """
    assert source.files is not None
    paths = _matching(source, project)
    frames = [_scan(source, path) for path in paths]
    if len(frames) == 1:
        return frames[0]
    return pl.concat(frames, how="diagonal_relaxed")


def _matching(source: Source, project: Path) -> list[Path]:
    pattern = str(source.files)
    where = "" if pattern.startswith("/") else f" in the project {project.name[:12]}"
    folder = Path("/") if pattern.startswith("/") else project
    paths = sorted(path for path in folder.glob(pattern.lstrip("/")) if path.is_file())
    if not paths:
        raise NotFound(
            f"source {source.name}: expected at least one file that matches {pattern}{where}, got none",
            hint="An absolute pattern is looked for on the machine of the control plane; a relative one travels with "
            "the project when it is applied.",
        )
    return paths


def _scan(source: Source, path: Path) -> pl.LazyFrame:
    try:
        match path.suffix:
            case ".parquet":
                frame = pl.scan_parquet(path)
            case ".csv":
                frame = pl.scan_csv(path, infer_schema_length=None)
            case _:
                frame = pl.scan_ndjson(path, infer_schema_length=None)
        frame.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        what = {".parquet": "Parquet", ".csv": "CSV"}.get(path.suffix, "JSON lines")
        raise Invalid(f"source {source.name}: {path} cannot be read as {what}: {first_line(error)}") from None
    return frame


def first_line(error: Exception) -> str:
    """The first line of an error's message; Polars adds what it was about to do."""
    return (str(error).splitlines() or [type(error).__name__])[0]
