"""Calls a team's ``train`` function, and asks the estimator that it gave. Runs in child processes only."""

from __future__ import annotations

import inspect
import pickle
import random
import sys
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import polars as pl

from relevo.contract.model import Task
from relevo.datasets.loaders import resolve
from relevo.errors import Invalid
from relevo.runtimes.frames import categories_of, frame_of_columns
from relevo.runtimes.model import Categories, Signature
from relevo.runtimes.original import check_classes, check_no_labels, check_probabilities
from relevo.training.model import Run, TrainingSet
from relevo.training.rows import AT, INPUT, LABEL

SEED = 7
#: Training rows that a model without ``predict_proba`` is asked about.
_ASKED_ROWS = 200


def training_set(run: Run, signature: Signature, rows: pl.DataFrame) -> TrainingSet:
    """The fitted part of a run's rows as a team's function gets it."""
    is_classification = signature.task is Task.CLASSIFICATION
    label = rows[LABEL].to_numpy()
    return TrainingSet(
        inputs=inputs_of(rows, signature, categories(rows, signature)),
        label=pd.Series(label.astype(np.int64) if is_classification else label, name=run.contract.label.column),
        asked_at=None if rows[AT].null_count() == rows.height else pd.Series(rows[AT].to_pandas(), name=AT),
        params={**run.contract.training.params, **run.parameters},
        classes=signature.classes,
    )


def categories(rows: pl.DataFrame, signature: Signature) -> dict[str, list[str]]:
    """The categories of each text input among ``rows``."""
    return categories_of({column.name: rows[INPUT + column.name] for column in signature.inputs}, signature)


def inputs_of(rows: pl.DataFrame, signature: Signature, categories: Categories) -> pd.DataFrame:
    """The inputs of ``rows`` ``(n_rows, n_inputs)`` as the model sees them."""
    return frame_of_columns(
        {column.name: rows[INPUT + column.name] for column in signature.inputs}, signature, categories
    )


def fit(run: Run, signature: Signature, training: TrainingSet) -> Any:
    """The estimator of the team's function.

    Raises:
        Invalid: The function takes other arguments, gave nothing that predicts, or labels instead of probabilities.
    """
    entry = resolve(run.contract.training.entry, Path(run.package))
    # For code that draws from the global generators; estimators have a seed of their own.
    random.seed(SEED)
    np.random.seed(SEED)
    try:
        inspect.signature(entry).bind(training, training.params)
    except TypeError as error:
        raise Invalid(f"{run.contract.training.entry} should take (training, params): {error}") from error
    model = entry(training, dict(training.params))
    is_classification = signature.task is Task.CLASSIFICATION
    if not (hasattr(model, "predict") or (is_classification and hasattr(model, "predict_proba"))):
        needed = "predict_proba or predict" if is_classification else "predict"
        raise Invalid(
            f"{run.contract.training.entry} should give a fitted model with {needed}, got {type(model).__name__}"
        )
    if is_classification:
        check_no_labels(model)
    check_classes(model, signature)
    check_probabilities(model, training.inputs.head(_ASKED_ROWS), signature)
    return model


def save(model: Any, path: Path) -> None:
    """Write the estimator, whole or not at all."""
    temporary = path.with_suffix(".writing")
    temporary.write_bytes(cloudpickle.dumps(model))
    temporary.replace(path)


def load(path: Path, package: str) -> Any:
    """The estimator again, with the team's package importable."""
    if package not in sys.path:
        sys.path.insert(0, package)
    return pickle.loads(path.read_bytes())  # noqa: S301  # a child of ours reads what a child of this run wrote
