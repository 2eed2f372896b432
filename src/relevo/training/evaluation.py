"""Measures a candidate on rows that it was not fitted on, beside the champion and a baseline. Child processes only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from relevo.contract.model import Task
from relevo.errors import RelevoError
from relevo.platform.encoding import parse
from relevo.registry.model import Manifest
from relevo.runtimes import original
from relevo.runtimes.loading import load_runtime
from relevo.runtimes.model import Signature
from relevo.statistics import metrics
from relevo.training import fitting, policy
from relevo.training.folder import RunFolder
from relevo.training.model import Champion, Run
from relevo.training.rows import AT, BUCKET, CHAMPION_INPUT, INPUT, IS_HELD_OUT, LABEL, SLICE, Built

Array = NDArray[np.float64]

_PLACE = "place"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the gates rest on. A metric that is not defined on its rows is left out.

    ``champion_metrics`` is empty when there is none, or when it could not be measured on the same rows;
    ``champion_note`` then says why. ``slices`` are named ``origin=JFK``, and hold ``rows`` beside the metrics; one with
    too few rows, or where a metric is not defined, stands in ``slices_left_out`` with the reason.
    """

    metrics: dict[str, float]
    champion_metrics: dict[str, float]
    baseline_metrics: dict[str, float]
    slices: dict[str, dict[str, float]]
    slices_left_out: dict[str, str]
    rows: int
    holdout: tuple[str, str] | None
    champion: int | None = None
    champion_note: str | None = None


def evaluate(run: Run, folder: RunFolder, champion: Manifest | None) -> Evaluation:
    """Measure the fitted model of a run; keeps its answers on the held-out rows for the bundle's baseline."""
    built = parse(Built, folder.read("built"))
    signature = built.signature
    rows = pl.read_parquet(folder.rows)
    model = fitting.load(folder.model, run.package)
    held = held_out(rows)
    frame = fitting.inputs_of(held, signature, fitting.categories(rows.filter(~pl.col(IS_HELD_OUT)), signature))
    answers = original.predict(model, frame, signature)
    np.save(folder.answers, answers)
    note = None
    theirs: Array | None = None
    if champion is not None and run.champion is not None:
        kept, note = unseen_by(champion, held, built)
        if note is None:
            theirs, note = _asked_champion(run.champion, champion, kept, built)
        if theirs is not None:
            # Both on the rows that neither was trained on, and only on those.
            answers = answers[np.isin(held[_PLACE].to_numpy(), kept[_PLACE].to_numpy())]
            held = kept
    labels = held[LABEL].to_numpy()
    slices, left_out = by_slice(signature, held, answers)
    return Evaluation(
        metrics=measure(signature, labels, answers),
        champion_metrics={} if theirs is None else measure(signature, labels, theirs),
        baseline_metrics=measure(signature, labels, base_rate(rows, signature, held.height)),
        slices=slices,
        slices_left_out=left_out,
        rows=held.height,
        holdout=_first_and_last(held[AT]),
        champion=None if run.champion is None else run.champion.version,
        champion_note=None
        if note is None
        else f"Not compared with version {champion.version if champion else ''}: {note}.",
    )


def held_out(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows to measure on: held out, with a label of a known class."""
    return rows.filter(pl.col(IS_HELD_OUT) & pl.col(LABEL).is_not_null()).with_row_index(_PLACE)


def unseen_by(champion: Manifest, rows: pl.DataFrame, built: Built) -> tuple[pl.DataFrame, str | None]:
    """The rows that the champion was not trained on either; or none, and why.

    Args:
        champion: Its facts say until when, or on which share of the keys, it was trained.
        rows: The held-out rows.
        built: How they were held out.
    """
    none = rows.clear()
    if tuple(champion.signature.classes) != built.classes:
        return none, f"it knows the classes {list(champion.signature.classes)}, these rows have {list(built.classes)}"
    until, fraction = champion.facts.get("trained_until"), champion.facts.get("holdout_fraction")
    if built.split is not None:
        if not isinstance(until, str):
            return none, "its facts do not say until when it was trained"
        start = policy.comparable_from(built.split.holdout_start, datetime.fromisoformat(until))
        kept = rows.filter(pl.col(AT) >= start)
        return kept, None if kept.height else f"it was trained until {until}, on all of the held-out rows"
    if not isinstance(fraction, float) or built.holdout_fraction is None or until is not None:
        return none, "its facts do not say which rows it was trained on"
    # Buckets below both fractions were held out in both runs.
    return rows.filter(pl.col(BUCKET) < fraction * policy.BUCKETS), None


def base_rate(rows: pl.DataFrame, signature: Signature, n_rows: int) -> Array:
    """The simple baseline: what the fitted rows say on average, for each of ``n_rows`` rows."""
    labels = rows.filter(~pl.col(IS_HELD_OUT))[LABEL].drop_nulls().to_numpy()
    if signature.task is Task.CLASSIFICATION and len(signature.classes) > 2:
        shares = np.bincount(labels.astype(np.int64), minlength=len(signature.classes)) / len(labels)
        return np.tile(shares, (n_rows, 1))
    return np.full(n_rows, labels.mean())


def measure(signature: Signature, labels: Array, predictions: Array) -> dict[str, float]:
    """Every metric of the task that is defined here."""
    measured = metrics.evaluate(signature.task.value, labels, predictions)
    return {name: value for name, value in measured.items() if math.isfinite(value)}


def by_slice(
    signature: Signature, rows: pl.DataFrame, predictions: Array
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Metrics of each value of each slice column, and the values that are left out with the reason."""
    measured: dict[str, dict[str, float]] = {}
    left_out: dict[str, str] = {}
    n_metrics = len(metrics.METRICS[signature.task.value])
    labels = rows[LABEL].to_numpy()
    for name, places in _slices(rows):
        if len(places) < policy.MIN_SLICE_ROWS:
            left_out[name] = f"{len(places)} rows, fewer than {policy.MIN_SLICE_ROWS}"
            continue
        found = measure(signature, labels[places], predictions[places])
        if len(found) < n_metrics:
            left_out[name] = f"of its {len(places)} rows not every metric is defined"
            continue
        measured[name] = {**found, "rows": float(len(places))}
    return measured, left_out


def _asked_champion(
    asked: Champion, champion: Manifest, rows: pl.DataFrame, built: Built
) -> tuple[Array | None, str | None]:
    """What the champion's own runtime answers, from the features that it would look up; or None, and why."""
    has_own = any(column.startswith(CHAMPION_INPUT) for column in rows.columns)
    prefix = CHAMPION_INPUT if has_own else INPUT
    columns = [prefix + column.name for column in champion.signature.inputs]
    lacking = [column for column in columns if column not in rows.columns]
    if lacking:
        return None, f"its input {lacking[0].removeprefix(prefix)} cannot be had any more"
    runtime = load_runtime(Path(asked.folder), champion, python=Path(asked.python))
    try:
        answers = runtime.predict([list(row) for row in rows.select(columns).iter_rows()])
    except RelevoError as error:
        return None, error.message
    finally:
        runtime.close()
    return np.asarray(answers, dtype=np.float64), None


def needs_own_inputs(champion: Manifest, asked: Run) -> bool:
    """Whether the champion's inputs come from other views, transforms or columns than the candidate's."""
    names = tuple(column.name for column in champion.signature.inputs)
    return names != asked.inputs or champion.views != asked.views or champion.transforms != asked.transforms


def _first_and_last(times: pl.Series) -> tuple[str, str] | None:
    first, last = times.min(), times.max()
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        return None
    return first.isoformat(), last.isoformat()


def _slices(rows: pl.DataFrame) -> Iterator[tuple[str, NDArray[np.intp]]]:
    for column in (name for name in rows.columns if name.startswith(SLICE)):
        groups = rows.select(pl.col(column).cast(pl.String), pl.int_range(pl.len()).alias("place"))
        for (value,), group in groups.group_by(column, maintain_order=True):
            yield f"{column.removeprefix(SLICE)}={'null' if value is None else value}", group["place"].to_numpy()
