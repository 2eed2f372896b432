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


def predict(model: Any, frame: pd.DataFrame, signature: Signature) -> np.ndarray:
    """The answers of the original model for a frame made by ``as_frame``.

    Classification asks ``predict_proba``: of two classes the probability of the second ``(n_rows,)``, of more
    ``(n_rows, n_classes)``. A model without it (a booster, a pyfunc) must itself give probabilities from ``predict``.
    Regression asks ``predict`` and gives ``(n_rows,)``. Warnings of the model's library about numbers are not raised.
    """
    import numpy as np

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if signature.task is Task.CLASSIFICATION and hasattr(model, "predict_proba"):
            answer = np.asarray(model.predict_proba(frame), dtype=np.float64)
        else:
            answer = np.asarray(model.predict(frame), dtype=np.float64)
    return _shaped(answer, len(frame), signature)


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
    if answer.shape != expected:
        raise Invalid(f"Expected the model to answer with shape {expected}, got {answer.shape}.")
    return answer


def check_classes(model: Any, signature: Signature) -> None:
    """Raises Invalid when the model's classes are not those of the signature, in their order."""
    classes = getattr(model, "classes_", None)
    if signature.task is not Task.CLASSIFICATION or classes is None:
        return
    got = tuple(str(label) for label in classes)
    if len(got) != len(signature.classes) or (set(got) == set(signature.classes) and got != signature.classes):
        raise Invalid(f"Expected a model of the classes {list(signature.classes)}, got {list(got)}.")
