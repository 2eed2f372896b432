"""From a fitted, evaluated model to what MLflow keeps and what a bundle holds. Runs in child processes only."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
from numpy.typing import NDArray

from relevo.errors import NotFound
from relevo.platform.encoding import canonical, parse
from relevo.registry.bundles import write_bundle
from relevo.runtimes.compilation import compile_model
from relevo.runtimes.model import ColumnType, Signature
from relevo.statistics import baseline
from relevo.training import environment, evaluation, fitting, tracking
from relevo.training.folder import RunFolder
from relevo.training.importances import importances
from relevo.training.model import Run
from relevo.training.rows import AT, INPUT, IS_HELD_OUT, Built

_SAMPLE_ROWS = 20


class _Result:
    """What the earlier steps of a run left, read back."""

    def __init__(self, run: Run, folder: RunFolder) -> None:
        rows = pl.read_parquet(folder.rows)
        self.built = parse(Built, folder.read("built"))
        self.fitted = rows.filter(~pl.col(IS_HELD_OUT))
        self.held_out = evaluation.held_out(rows)
        self.model = fitting.load(folder.model, run.package)
        self.evaluation = parse(evaluation.Evaluation, folder.read("evaluation"))
        self.sources = folder.read("sources")
        self.params: dict[str, object] = folder.read("fitted")["params"]
        self.answers: NDArray[np.float64] = np.load(folder.answers)

    @property
    def signature(self) -> Signature:
        """Of the model."""
        return self.built.signature

    def frame(self, rows: pl.DataFrame) -> pd.DataFrame:
        """Rows as the model sees them."""
        return fitting.inputs_of(rows, self.signature, fitting.categories(self.fitted, self.signature))


def track(run: Run, folder: RunFolder) -> dict[str, Any]:
    """Write the run to MLflow; gives MLflow's run id and the version's number."""
    if run.tracking_url is None:
        raise NotFound(f"Run {run.id} names no tracking server, so its model can get no version.")
    result = _Result(run, folder)
    lock = None if run.lock is None else Path(run.lock)
    baselines = {f"baseline_{name}": value for name, value in result.evaluation.baseline_metrics.items()}
    champions = {f"champion_{name}": value for name, value in result.evaluation.champion_metrics.items()}
    return tracking.track(
        run.tracking_url,
        model_name=run.model,
        workflow_id=run.workflow_id,
        model=result.model,
        sample=result.frame(result.held_out.head(_SAMPLE_ROWS)),
        answers=result.answers[:_SAMPLE_ROWS],
        params=result.params,
        metrics=result.evaluation.metrics | baselines | champions,
        tags=_tags(run, result, environment.environment_digest(environment.environment_text(lock))),
        requirements=environment.requirements(lock),
    )


def pack(run: Run, folder: RunFolder) -> dict[str, Any]:
    """Write the bundle of a run, compiled if that agrees with the original; gives its manifest as JSON."""
    result = _Result(run, folder)
    frame = result.frame(result.held_out)
    labels = result.held_out["label"].to_numpy()
    compiled = compile_model(result.model, result.signature, frame)
    lock = None if run.lock is None else Path(run.lock)
    text = environment.environment_text(lock)
    shares = importances(result.model, frame, labels, result.signature)
    files = {
        **compiled.files,
        "baseline.json": canonical(_baseline(result)),
        "importances.json": canonical(shares),
        "environment.txt": text.encode(),
        "training_set.json": canonical(_pins(run, result)),
    }
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
        files=files,
        facts=facts,
    )
    return {"runtime": manifest.runtime, "version": manifest.version, "facts": manifest.facts}


def _pins(run: Run, result: _Result) -> dict[str, Any]:
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
        "training_set": built.digest,
        "rows": {"fitted": built.fitted, "held_out": built.held_out, "unlabelled": built.unlabelled},
        "trained_from": result.fitted[AT].min(),
        "trained_until": None if built.split is None else built.split.holdout_start,
        "holdout_fraction": built.holdout_fraction,
        "champion_note": result.evaluation.champion_note,
        "slices_left_out": result.evaluation.slices_left_out,
    }


def _tags(run: Run, result: _Result, environment_digest: str) -> dict[str, str]:
    datasets = {f"relevo.dataset.{name}": str(loaded["version"]) for name, loaded in result.sources.items()}
    return {
        "mlflow.source.git.commit": run.git_commit or "",
        "relevo.git_commit": run.git_commit or "",
        "relevo.as_of": run.as_of.isoformat(),
        "relevo.contract_revision": str(run.revision),
        "relevo.snapshot": run.snapshot,
        "relevo.environment": environment_digest,
        "relevo.training_set": result.built.digest,
        **datasets,
    }


def _baseline(result: _Result) -> baseline.Baseline:
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
