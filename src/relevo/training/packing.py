"""From a fitted, evaluated model to what a bundle holds. Runs in child processes only."""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from relevo.features.model import definition_of
from relevo.platform.encoding import canonical
from relevo.registry.bundles import LOCK_FILE, write_bundle
from relevo.registry.load_rows import LOAD_ROWS_FILE, MOST_LOAD_ROWS, LoadRows
from relevo.runtimes.compilation import compile_model
from relevo.runtimes.loading import ISOLATED
from relevo.runtimes.model import ColumnType
from relevo.statistics import baseline
from relevo.training import environment, tracking
from relevo.training.folder import RunFolder
from relevo.training.importances import importances
from relevo.training.model import Run
from relevo.training.results import Result
from relevo.training.rows import AT, INPUT, KEY


def pack(run: Run, folder: RunFolder) -> dict[str, Any]:
    """Write the bundle of a run, compiled if that agrees with the original; gives its manifest as JSON."""
    result = Result(run, folder)
    frame = result.frame(result.held_out)
    labels = result.held_out["label"].to_numpy()
    compiled = compile_model(result.model, result.signature, frame, package=Path(run.package))
    lock = None if run.lock is None else Path(run.lock)
    text = environment.environment_text(lock)
    shares = importances(result.model, frame, labels, result.signature)
    files = {
        **compiled.files,
        # An isolated runtime asks the very folder that it was compared in; a compiled one has its original beside it.
        **({} if compiled.runtime == ISOLATED else _original(run, result)),
        LOAD_ROWS_FILE: msgspec.json.encode(_load_rows(result)),
        "baseline.json": canonical(_baseline(result)),
        "importances.json": canonical(shares),
        "environment.txt": text.encode(),
        "training_set.json": canonical(_pins(run, result)),
    }
    if lock is not None:
        files[LOCK_FILE] = text.encode()
    facts = {
        **_pins(run, result),
        "agreement": compiled.agreement,
        "environment": environment.environment_digest(text),
        "importances": shares,
        "metrics": result.evaluation.metrics,
    }
    shutil.rmtree(folder.bundle, ignore_errors=True)
    tracked = folder.read("tracked")
    manifest = write_bundle(
        folder.bundle,
        model=run.model,
        version=int(tracked["version"]),
        run_id=str(tracked["run"]),
        runtime=compiled.runtime,
        signature=result.signature,
        views=run.views,
        transforms=run.transforms,
        files=files,
        facts=facts,
    )
    return {"runtime": manifest.runtime, "version": manifest.version, "facts": manifest.facts}


def _pins(run: Run, result: Result) -> dict[str, Any]:
    """What the training set was made of, so that it can be made again, and what may be concluded from it."""
    built = result.built
    return {
        "as_of": run.as_of,
        "workflow_id": run.workflow_id,
        "contract_revision": run.revision,
        "snapshot": run.snapshot,
        "git_commit": run.git_commit,
        "datasets": {
            name: {"version": loaded["version"], "digest": loaded["digest"], "rows": loaded["rows"]}
            for name, loaded in result.sources.items()
        },
        "views": {view.name: definition_of(view) for view in run.views},
        "training_set": built.digest,
        "rows": {"fitted": built.fitted, "held_out": built.held_out, "unlabelled": built.unlabelled},
        "trained_from": result.fitted[AT].min(),
        "trained_until": None if built.split is None else built.split.holdout_start,
        "holdout_fraction": built.holdout_fraction,
        "champion_note": result.evaluation.champion_note,
        "slices_left_out": result.evaluation.slices_left_out,
    }


def _load_rows(result: Result) -> LoadRows:
    """Held-out rows, spread evenly over the holdout, with what a caller may send."""
    inputs = [column for column in result.signature.inputs if not column.is_computed]
    held_out = result.held_out.gather_every(max(1, -(-result.held_out.height // MOST_LOAD_ROWS)))
    columns = [_as_sent(held_out[INPUT + column.name], column.type) for column in inputs]
    columns += [_as_sent(held_out[KEY + column.name], column.type) for column in result.signature.keys]
    names = [column.name for column in (*inputs, *result.signature.keys)]
    return LoadRows(tuple(names), [list(row) for row in zip(*columns, strict=True)])


def _as_sent(values: pl.Series, kind: ColumnType) -> list[Any]:
    """Values as JSON has them; what is not finite is null."""
    if kind is ColumnType.TIME:
        return [None if value is None else value.isoformat() for value in values.to_list()]
    if kind is ColumnType.FLOAT:
        return [value if value is not None and math.isfinite(value) else None for value in values.cast(pl.Float64)]
    return values.cast(pl.String).to_list() if kind is ColumnType.TEXT else values.to_list()


def _original(run: Run, result: Result) -> dict[str, bytes]:
    """The MLflow model folder under ``model/``: what a compiled runtime stands for."""
    with tempfile.TemporaryDirectory(prefix="relevo-pack-") as temporary:
        root = Path(temporary) / "model"
        tracking.save_original(run, result, root)
        return {
            f"model/{path.relative_to(root).as_posix()}": path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }


def _baseline(result: Result) -> baseline.Baseline:
    """Profiles of the inputs as they were fitted on, and of the answers on rows that were not."""
    columns: dict[str, baseline.Profile] = {}
    for column in result.signature.inputs:
        values = result.fitted[INPUT + column.name]
        if column.type is ColumnType.TEXT:
            columns[column.name] = baseline.category_profile(values.to_list())
        elif column.type is not ColumnType.TIME:  # a time only ever grows: it has no profile to come back to
            numbers = values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
            columns[column.name] = baseline.numeric_profile(numbers)
    # Of many classes there is no one number to profile.
    prediction = baseline.numeric_profile(result.answers) if result.answers.ndim == 1 else None
    return baseline.Baseline(columns=columns, prediction=prediction)
