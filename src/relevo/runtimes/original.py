"""How the model that the team returned is asked: the yardstick of every compiled runtime."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from relevo.contract.model import Task
from relevo.errors import Invalid
from relevo.runtimes.model import Signature

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_PROBABILITIES = "Give the model a predict_proba, or a predict that gives the probability of each class."
_ROWS_OF_LABELS = 20


def predict(model: Any, frame: pd.DataFrame, signature: Signature) -> np.ndarray:
    """The answers of the original model for a frame made by ``as_frame``.

    Classification asks ``predict_proba``: of two classes the probability of the second ``(n_rows,)``, of more
    ``(n_rows, n_classes)``. A model without it (a booster, a pyfunc) must itself give probabilities from ``predict``.
    Regression asks ``predict`` and gives ``(n_rows,)``. Warnings of the model's library about numbers are not raised.
    """
    import numpy as np

    return _shaped(np.asarray(_asked(model, frame, signature), dtype=np.float64), len(frame), signature)


def is_single(model: Any, frame: pd.DataFrame, signature: Signature) -> bool:
    """Whether the model itself answers in float32, as XGBoost does."""
    import numpy as np

    return np.asarray(_asked(model, frame, signature)).dtype == np.float32


def _asked(model: Any, frame: pd.DataFrame, signature: Signature) -> Any:
    import numpy as np

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if signature.task is Task.CLASSIFICATION and hasattr(model, "predict_proba"):
            return model.predict_proba(frame)
        return _predict(model, frame)


def _predict(model: Any, frame: pd.DataFrame) -> Any:
    """The model's own answer. XGBoost's booster takes frames by another name."""
    if type(model).__name__ == "Booster" and type(model).__module__.startswith("xgboost"):
        return model.inplace_predict(frame)
    return model.predict(frame)


def _shaped(answer: np.ndarray, n_rows: int, signature: Signature) -> np.ndarray:
    n_classes = len(signature.classes)
    if n_classes > 2:
        expected: tuple[int, ...] = (n_rows, n_classes)
    else:
        if answer.shape == (n_rows, 2) and n_classes == 2:
            answer = answer[:, 1]
        elif answer.shape == (n_rows, 1):
            answer = answer[:, 0]
        expected = (n_rows,)
    if len(expected) == 1 and answer.ndim == 2 and len(answer) == n_rows:
        raise Invalid(
            f"Expected the model to answer one number a row, got {answer.shape[1]}.",
            hint="An endpoint answers one output: make a model for each, or say its classes.",
        )
    if answer.shape != expected:
        raise Invalid(f"Expected the model to answer with shape {expected}, got {answer.shape}.")
    return answer


def check_classes(model: Any, signature: Signature) -> None:
    """Raises Invalid when the model's classes are neither those of the signature nor their indices, in order."""
    classes = getattr(model, "classes_", None)
    if signature.task is not Task.CLASSIFICATION or classes is None:
        return
    got = [str(int(label)) if _is_whole(label) else str(label) for label in classes]
    indices = [str(index) for index in range(len(signature.classes))]
    if got not in (list(signature.classes), indices):
        raise Invalid(f"Expected a model of the classes {list(signature.classes)} or their indices, got {got}.")


def check_no_labels(model: Any) -> None:
    """Raises Invalid when the model is a classifier that gives labels only: an endpoint answers probabilities."""
    if hasattr(model, "predict_proba"):
        return
    if getattr(model, "_estimator_type", None) == "classifier" or hasattr(model, "classes_"):
        raise Invalid(
            f"{type(model).__name__} gives labels and no probabilities.",
            hint="Wrap it in sklearn.calibration.CalibratedClassifierCV, which has predict_proba.",
        )


def check_probabilities(model: Any, frame: pd.DataFrame, signature: Signature) -> None:
    """Raises Invalid when a model without ``predict_proba`` does not give probabilities for the rows of ``frame``.

    Only zeros and ones for dozens of rows are labels.
    """
    if signature.task is not Task.CLASSIFICATION or hasattr(model, "predict_proba"):
        return
    kind = type(model).__name__
    try:
        answers = predict(model, frame, signature)
    except ValueError as error:
        raise Invalid(f"Expected {kind}.predict to give probabilities, got {error}.", hint=_PROBABILITIES) from error
    outside = answers[(answers < 0) | (answers > 1)]
    if outside.size:
        raise Invalid(f"Expected {kind}.predict to give probabilities, got {outside[0]:g}.", hint=_PROBABILITIES)
    if len(frame) >= _ROWS_OF_LABELS and ((answers == 0) | (answers == 1)).all():
        raise Invalid(
            f"Expected {kind}.predict to give probabilities, got only 0 and 1 for {len(frame)} rows.",
            hint=_PROBABILITIES,
        )


def _is_whole(label: object) -> bool:
    """Whether it is a number without fraction; booleans are not."""
    import numpy as np

    return isinstance(label, int | np.integer | float | np.floating) and type(label) is not bool and label % 1 == 0
