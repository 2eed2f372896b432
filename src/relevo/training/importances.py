"""How much each input moves a model's answers. Runs in child processes only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from relevo.runtimes import original
from relevo.runtimes.model import Signature
from relevo.statistics import metrics

_MAX_ROWS = 2_000
_SEED = 7


def importances(model: Any, frame: pd.DataFrame, labels: NDArray[np.float64], signature: Signature) -> dict[str, float]:
    """The share of each input, all summing to 1; all 0 for a model that uses none.

    A LightGBM model tells its gain. Any other is measured by permutation (Breiman 2001): how much the log loss, or the
    squared error, of at most 2,000 held-out rows grows when the column is shuffled; what does not grow counts as 0.
    """
    found = _gains(model, signature)
    if found is None:
        found = _permuted(model, frame, labels, signature)
    total = sum(found.values())
    return {name: value / total if total > 0 else 0.0 for name, value in found.items()}


def _gains(model: Any, signature: Signature) -> Mapping[str, float] | None:
    booster = getattr(model, "booster_", model)
    if type(booster).__module__.split(".")[0] != "lightgbm" or not hasattr(booster, "feature_importance"):
        return None
    gains = booster.feature_importance("gain")
    if len(gains) != len(signature.inputs):
        return None
    return {column.name: float(gain) for column, gain in zip(signature.inputs, gains, strict=True)}


def _permuted(
    model: Any, frame: pd.DataFrame, labels: NDArray[np.float64], signature: Signature
) -> Mapping[str, float]:
    random = np.random.default_rng(_SEED)
    chosen = np.sort(random.permutation(len(frame))[:_MAX_ROWS])
    frame, labels = frame.iloc[chosen].reset_index(drop=True), labels[chosen]
    before = _loss(model, frame, labels, signature)
    found = {}
    for column in signature.inputs:
        shuffled = frame.copy()
        shuffled[column.name] = frame[column.name].take(random.permutation(len(frame))).array
        found[column.name] = max(0.0, _loss(model, shuffled, labels, signature) - before)
    return found


def _loss(model: Any, frame: pd.DataFrame, labels: NDArray[np.float64], signature: Signature) -> float:
    answers = original.predict(model, frame, signature)
    if signature.classes:
        return metrics.log_loss(labels, answers)
    return float(np.mean((labels - answers) ** 2))
