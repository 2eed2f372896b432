"""The model of the folder ``MODEL``, for the servers whose users write the call. Runs in their environments."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["MODEL"])
COLUMNS = json.loads((FOLDER / "columns.json").read_text())

Predict = Callable[[list[list[Any]]], list[float]]


def load(*, with_pandas: bool = False) -> Predict:
    """From rows to the probabilities of the second class. A booster gets an array, unless ``with_pandas``."""
    import pandas

    if (FOLDER / "booster.txt").exists():
        import lightgbm
        import numpy

        booster = lightgbm.Booster(model_file=FOLDER / "booster.txt")

        def ask_booster(rows: list[list[Any]]) -> list[float]:
            asked = pandas.DataFrame(rows, columns=COLUMNS) if with_pandas else numpy.array(rows, dtype=numpy.float64)
            return booster.predict(asked, num_threads=1).tolist()

        return ask_booster

    import joblib

    pipeline = joblib.load(FOLDER / "model.joblib")

    def ask_pipeline(rows: list[list[Any]]) -> list[float]:
        return pipeline.predict_proba(pandas.DataFrame(rows, columns=COLUMNS))[:, 1].tolist()

    return ask_pipeline
