"""Runs the checks that a source declares over the rows of a load. Runs in child processes only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from relevo.contract.model import Source
from relevo.datasets.loaders import resolve
from relevo.datasets.loading import describe_rows, naming
from relevo.datasets.model import CheckResult
from relevo.datasets.tables import FAILED_RULES
from relevo.errors import Invalid

_SAMPLE_ROWS = 3
_MOST_COLUMNS = 12
_ROW = "relevo_row"


@dataclass(frozen=True, slots=True)
class Checked:
    """The rows that stay; those that are kept apart, each with the rules that it fails; and what each rule found."""

    kept: pl.DataFrame
    quarantined: pl.DataFrame | None
    results: tuple[CheckResult, ...]


def run_checks(source: Source, package: Path, frame: pl.DataFrame) -> Checked:
    """Run ``source.checks`` and do what ``source.on_failure`` says about rows that fail.

    Checks are a dataframely schema, or a function of the frame. The function may raise, which stops the load whatever
    ``on_failure`` says, for it names no rows. Or it returns what is wrong: a boolean Series, true for each bad row; a
    frame with the bad rows; or several of these by the name of their rule. None: nothing is wrong.

    Raises:
        Invalid: A rule fails and that is to stop the load; the message names each failing rule, how many rows fail it,
            and shows some. Or the columns are not those of the schema, or the function returns something else.
    """
    if source.checks is None:
        return Checked(frame, None, ())
    checks = resolve(source.checks, package)
    if hasattr(checks, "filter"):
        failed = _failed_by_schema(source, checks, frame)
    elif callable(checks):
        failed = _failed_by_function(source, checks, frame)
    else:
        raise Invalid(f"source {source.name}: {source.checks} should be a dataframely schema or a function")
    judged = checks.column_names() if hasattr(checks, "column_names") else frame.columns
    shown = list(dict.fromkeys([*naming(source), *judged]))[:_MOST_COLUMNS]
    results = tuple(_result(source, rule, rows, frame.select(shown)) for rule, rows in failed.items())
    if source.on_failure == "fail":
        _require_passed(source, results)
    if source.on_failure != "quarantine" or not any(result.failed for result in results):
        return Checked(frame, None, results)
    return _set_apart(frame, failed, results)


def without_quarantined(source: Source, package: Path, frame: pl.DataFrame) -> pl.DataFrame:
    """``frame`` without the rows that a load of it would set apart, so that nothing is served that was not trained on.

    Rules over groups of rows judge the rows of this frame alone.

    Raises:
        Invalid: As ``run_checks``.
    """
    if source.on_failure != "quarantine" or frame.is_empty():
        return frame
    return run_checks(source, package, frame).kept


def _failed_by_schema(source: Source, schema: Any, frame: pl.DataFrame) -> dict[str, pl.Series]:
    """Row numbers that fail, by rule; rules that pass included."""
    import dataframely as dy
    from dataframely.exc import SchemaError

    # What fails comes back with the schema's columns only, which need not name a row: its number comes along.
    numbered = type(schema)(schema.__name__, (schema,), {_ROW: dy.UInt32()})
    try:
        _, failures = numbered.filter(frame.with_row_index(_ROW))
    except SchemaError as error:
        raise Invalid(f"source {source.name}: checks {source.checks}: {str(error).splitlines()[0]}") from None
    details = failures.details()
    rules = [name for name in details.columns if name not in numbered.column_names() and not name.startswith(_ROW)]
    return {rule: details.filter(pl.col(rule) == "invalid")[_ROW] for rule in rules}


def _failed_by_function(source: Source, check: Any, frame: pl.DataFrame) -> dict[str, pl.Series]:
    answer = check(frame)
    found = answer if isinstance(answer, Mapping) else {str(source.checks).rpartition(":")[2]: answer}
    return {str(rule): _numbers(source, bad, frame) for rule, bad in found.items()}


def _numbers(source: Source, bad: object, frame: pl.DataFrame) -> pl.Series:
    """The numbers of the rows that a function calls bad."""
    names = naming(source)
    if bad is None:
        return pl.Series(_ROW, [], dtype=pl.UInt32)
    if isinstance(bad, pl.Series) and bad.dtype == pl.Boolean and len(bad) == frame.height:
        return pl.Series(_ROW, bad.fill_null(False).arg_true())
    if isinstance(bad, pl.LazyFrame):
        bad = bad.collect()
    if isinstance(bad, pl.DataFrame) and set(names) <= set(bad.columns):
        where = frame.select(names).with_row_index(_ROW)
        return where.join(bad.select(names), on=names, how="semi", maintain_order="left")[_ROW]
    got = type(bad).__name__
    if isinstance(bad, pl.Series):
        got = f"a Series of {len(bad)} values of type {bad.dtype}"
    elif isinstance(bad, pl.DataFrame):
        got = f"a frame of {', '.join(bad.columns)}"
    raise Invalid(
        f"source {source.name}: checks {source.checks} should return None, a boolean Series of {frame.height} values, "
        f"a frame with {', '.join(names)}, or a dictionary of these by rule; got {got}"
    )


def _result(source: Source, rule: str, rows: pl.Series, frame: pl.DataFrame) -> CheckResult:
    sample = frame[rows.head(_SAMPLE_ROWS)] if len(rows) else frame.clear()
    return CheckResult(
        rule=rule,
        failed=len(rows),
        rows=frame.height,
        sample=tuple(describe_rows(sample[number]) for number in range(sample.height)),
        action=source.on_failure,
    )


def _require_passed(source: Source, results: tuple[CheckResult, ...]) -> None:
    failed = [
        f"{result.rule} fails on {result.failed} of {result.rows} rows, for example {'; '.join(result.sample)}"
        for result in results
        if result.failed
    ]
    if failed:
        raise Invalid(f"source {source.name}: checks {source.checks}: " + ". ".join(failed))


def _set_apart(frame: pl.DataFrame, failed: Mapping[str, pl.Series], results: tuple[CheckResult, ...]) -> Checked:
    rules = pl.concat(
        [
            pl.DataFrame({_ROW: rows.cast(pl.UInt32)}).with_columns(pl.lit(rule).alias(FAILED_RULES))
            for rule, rows in failed.items()
        ]
    )
    by_row = rules.group_by(_ROW, maintain_order=True).agg(pl.col(FAILED_RULES).str.join(", "))
    numbered = frame.with_row_index(_ROW)
    apart = numbered.join(by_row, on=_ROW, how="inner", maintain_order="left").drop(_ROW)
    kept = numbered.join(by_row, on=_ROW, how="anti", maintain_order="left").drop(_ROW)
    return Checked(kept, apart, results)
