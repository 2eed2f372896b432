"""Runs the checks that a source declares over the rows of a load. Runs in child processes only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from relevo.contract.model import Source
from relevo.datasets.loaders import resolve
from relevo.datasets.loading import describe_rows
from relevo.errors import Invalid


def run_checks(source: Source, package: Path, frame: pl.DataFrame) -> None:
    """Run ``source.checks``: a dataframely schema, or a callable that raises when it is given a wrong frame.

    Raises:
        Invalid: A rule fails; the message names each failing rule, how many rows fail it, and shows some.
    """
    if source.checks is None:
        return
    checks = resolve(source.checks, package)
    if hasattr(checks, "filter"):
        _run_schema(source, checks, frame)
    elif callable(checks):
        checks(frame)
    else:
        raise Invalid(f"source {source.name}: {source.checks} should be a dataframely schema or a function")


def _run_schema(source: Source, schema: Any, frame: pl.DataFrame) -> None:
    from dataframely.exc import SchemaError

    try:
        _, failures = schema.filter(frame)
    except SchemaError as error:
        raise Invalid(f"source {source.name}: checks {source.checks}: {str(error).splitlines()[0]}") from None
    counts: dict[str, int] = failures.counts()
    if not counts:
        return
    details = failures.details()
    columns = [name for name in frame.columns if name in details.columns]
    failed = [
        f"{rule} fails on {count} of {frame.height} rows, for example "
        f"{describe_rows(details.filter(pl.col(rule) == 'invalid').select(columns))}"
        for rule, count in counts.items()
    ]
    raise Invalid(f"source {source.name}: checks {source.checks}: " + ". ".join(failed))
