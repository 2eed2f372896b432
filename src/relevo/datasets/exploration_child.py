"""Compares and profiles versions of datasets: a job's child process, which runs no code of a team."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relevo.platform.encoding import to_json
from relevo.platform.jobs import progress, serve


def compare(tables_root: str, source: str, before: int, after: int, names: list[str]) -> dict[str, Any]:
    """Two versions beside each other, as a ``Comparison`` in JSON.

    Args:
        tables_root: The folder of the model's tables.
        source: Which of them.
        before: The earlier version.
        after: The later one.
        names: The columns that name a row.

    Raises:
        NotFound: There is no such version.
    """
    from relevo.datasets.comparison import compare
    from relevo.datasets.tables import scan_version

    progress(f"comparing {source} {before} and {after}")
    root = Path(tables_root)
    return dict(to_json(compare(scan_version(root, source, before), scan_version(root, source, after), names)))


def profile(tables_root: str, source: str, version: int, seed: str, title: str, output: str) -> dict[str, Any]:
    """Write a version's profile to ``output``; which rows it is drawn from.

    Args:
        tables_root: The folder of the model's tables.
        source: Which of them.
        version: Of the source.
        seed: Of the sample.
        title: Above the report.
        output: The file to write.

    Raises:
        NotFound: There is no such version.
    """
    from relevo.datasets.profile import report, sample
    from relevo.datasets.tables import scan_version

    found = sample(scan_version(Path(tables_root), source, version), seed)
    progress(f"profiling {source} {version}")
    Path(output).write_text(report(found, title), encoding="utf-8")
    return {"rows": found.frame.height, "of_rows": found.of_rows}


if __name__ == "__main__":
    serve({"compare": compare, "profile": profile})
