"""The LightGBM runtime: a booster's text in LightGBM's own C library, without its Python package.

That package costs 0.5 ms a call in pandas, and its import brings scikit-learn. The library is found beside it on disk.
"""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from struct import Struct
from typing import Any

from relevo.errors import Corrupted, Invalid, Unavailable
from relevo.runtimes.explanation import Explanation, explanation_of
from relevo.runtimes.model import ColumnType, Link, Signature
from relevo.runtimes.native_library import find_library

#: Name of the runtime's file in a bundle: the booster as LightGBM writes it, with its categories at the end.
FILE = "runtime/lightgbm.txt"

_NORMAL, _CONTRIBUTIONS = 0, 3
_FLOAT64, _ROW_MAJOR = 1, 1
_PARAMETERS = b"num_threads=1 verbosity=-1"
_CATEGORIES = "pandas_categorical:"
#: From the sum of the trees to the prediction, by the objective as the text names it; others are not explained here.
_LINKS = {
    **dict.fromkeys(("binary sigmoid:1", "cross_entropy"), Link.LOGISTIC),
    **dict.fromkeys(("regression", "regression_l1", "huber", "fair", "quantile", "mape"), Link.IDENTITY),
    **dict.fromkeys(("poisson", "gamma", "tweedie"), Link.EXPONENTIAL),
    "multiclass": Link.SOFTMAX,
}
_NAN = math.nan


class LightgbmRuntime:
    """Answers rows with a booster, on the calling thread alone.

    Thread-safe: a row and its answer are in memory of their own, the booster is only read, and the library guards the
    state of its single-row path with a lock. That path is called with the interpreter's lock held, since it takes less
    time than handing the lock over; batches are called without it. ``close`` must come after the last call.
    """

    def __init__(self, text: str, signature: Signature) -> None:
        self._library, self._held = _library()
        self._booster = ctypes.c_void_p()
        self._fast = ctypes.c_void_p()
        encoded = text.encode()
        trees = ctypes.c_int()
        self._check(self._library.LGBM_BoosterLoadModelFromString(encoded, ctypes.byref(trees), self._out("_booster")))
        self._width = len(signature.inputs)
        self._outputs = len(signature.classes) if len(signature.classes) > 2 else 1
        self._check_shape()
        self._encoders = _encoders(text, signature)
        self._signature = signature
        self._link = _LINKS.get(_objective(text))
        self._pack = Struct(f"{self._width}d").pack
        self._answer = ctypes.c_double * self._outputs
        self._check(
            self._library.LGBM_BoosterPredictForMatSingleRowFastInit(
                self._booster, _NORMAL, 0, -1, _FLOAT64, self._width, _PARAMETERS, self._out("_fast")
            )
        )
        self._length = ctypes.c_int64()  # every call writes the same number into it
        self._length_at = ctypes.byref(self._length)

    @classmethod
    def load(cls, content: bytes, signature: Signature) -> LightgbmRuntime:
        """The runtime of the file's content.

        Raises:
            Corrupted: LightGBM cannot read it, or it does not fit the signature.
            Unavailable: LightGBM's library is not installed here.
        """
        return cls(content.decode(), signature)

    def predict(self, rows: Sequence[Sequence[object]]) -> list[float] | list[list[float]]:
        """Answers ``(n_rows,)``, or ``(n_rows, n_classes)`` for more than two classes. Unseen text counts as null."""
        if not self._fast:
            raise Unavailable("The LightGBM runtime is closed.")
        if len(rows) == 1:
            return self._predict_row(rows[0])
        if not rows:
            return []
        flat = self._predict_rows(rows, _NORMAL, self._outputs)
        if self._outputs == 1:
            return flat
        return [flat[i : i + self._outputs] for i in range(0, len(flat), self._outputs)]

    def explain(self, rows: Sequence[Sequence[object]]) -> Explanation | None:
        """Exact Shapley values of the trees' scores (Lundberg et al. 2018); None for an objective of unknown link."""
        if self._link is None:
            return None
        width = self._outputs * (self._width + 1)
        flat = self._predict_rows(rows, _CONTRIBUTIONS, width)
        return explanation_of([flat[i : i + width] for i in range(0, len(flat), width)], self._signature, self._link)

    def _predict_rows(self, rows: Sequence[Sequence[object]], kind: int, width: int) -> list[float]:
        values = [value for row in rows for value in self._encoded(row)]
        data = (ctypes.c_double * len(values))(*values)
        answers = (ctypes.c_double * (len(rows) * width))()
        self._predict_matrix(ctypes.addressof(data), len(rows), ctypes.addressof(answers), kind)
        return list(answers)

    def predict_matrix(self, data: int, n_rows: int, answers: int) -> None:
        """Answer a whole matrix where it is in memory.

        Args:
            data: Address of float64 values ``(n_rows, n_inputs)``, row after row: text as ``codes``, null as NaN.
            n_rows: How many rows, at least one.
            answers: Address of float64 room for ``(n_rows, outputs)``.
        """
        if not self._fast:
            raise Unavailable("The LightGBM runtime is closed.")
        self._predict_matrix(data, n_rows, answers, _NORMAL)

    @property
    def codes(self) -> Sequence[Mapping[object, float] | None]:
        """Per input the codes of its categories, None for a number; unseen text has no code and is NaN."""
        return self._encoders

    @property
    def outputs(self) -> int:
        """Numbers in an answer."""
        return self._outputs

    def close(self) -> None:
        """Free the booster. Calling it twice is harmless."""
        if self._fast:
            self._library.LGBM_FastConfigFree(self._fast)
            self._fast = ctypes.c_void_p()
        if self._booster:
            self._library.LGBM_BoosterFree(self._booster)
            self._booster = ctypes.c_void_p()

    def _predict_matrix(self, data: int, n_rows: int, answers: int, kind: int) -> None:
        shape = (_FLOAT64, n_rows, self._width, _ROW_MAJOR, kind, 0, -1, _PARAMETERS)
        length = ctypes.byref(ctypes.c_int64())
        self._check(self._library.LGBM_BoosterPredictForMat(self._booster, data, *shape, length, answers))

    def _predict_row(self, row: Sequence[object]) -> list[float] | list[list[float]]:
        answer = self._answer()
        data = self._pack(*self._encoded(row))
        self._check(self._held(self._fast, data, self._length_at, answer))
        return list(answer) if self._outputs == 1 else [list(answer)]

    def _encoded(self, row: Sequence[Any]) -> list[float]:
        return [
            (_NAN if value is None else value) if codes is None else codes.get(value, _NAN)
            for codes, value in zip(self._encoders, row, strict=True)
        ]

    def _check_shape(self) -> None:
        for what, expected, function in (
            ("inputs", self._width, self._library.LGBM_BoosterGetNumFeature),
            ("outputs", self._outputs, self._library.LGBM_BoosterGetNumClasses),
        ):
            got = ctypes.c_int()
            self._check(function(self._booster, ctypes.byref(got)))
            if got.value != expected:
                raise Corrupted(f"The booster has {got.value} {what}, the signature {expected}.")

    def _out(self, name: str) -> object:
        return ctypes.byref(getattr(self, name))

    def _check(self, status: int) -> None:
        if status != 0:
            raise Corrupted(f"LightGBM refused: {self._library.LGBM_GetLastError().decode(errors='replace')}")


def _encoders(text: str, signature: Signature) -> list[dict[object, float] | None]:
    """Per input the codes of its categories, None for a number. The text lists them in the order of the columns."""
    last = text.rstrip().rpartition("\n")[2]
    listed = json.loads(last.removeprefix(_CATEGORIES)) if last.startswith(_CATEGORIES) else None
    categories = iter(listed or [])
    encoders: list[dict[object, float] | None] = []
    for column in signature.inputs:
        if column.type is ColumnType.TIME:
            raise Invalid(f"column {column.name!r}: LightGBM takes no times")
        if column.type is not ColumnType.TEXT:
            encoders.append(None)
            continue
        codes = next(categories, None)
        if codes is None:
            raise Corrupted(f"The booster has no categories of the text column {column.name!r}.")
        encoders.append({value: float(code) for code, value in enumerate(codes)})
    if next(categories, None) is not None:
        raise Corrupted("The booster has categories of more columns than the signature has text columns.")
    return encoders


def _objective(text: str) -> str:
    """The objective with its parameters, without the number of classes: ``binary sigmoid:1``."""
    line = next((line for line in text.splitlines() if line.startswith("objective=")), "objective=")
    return line.removeprefix("objective=").partition(" num_class:")[0].strip()


@cache
def _library() -> tuple[ctypes.CDLL, Any]:
    """LightGBM's C library, and its single-row call that keeps the interpreter's lock."""
    path = find_library("lightgbm", "lib_lightgbm.*", "Install the package lightgbm.")
    library = ctypes.CDLL(str(path))
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    pointer, integer, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    library.LGBM_BoosterLoadModelFromString.argtypes = [text, pointer, pointer]
    library.LGBM_BoosterGetNumFeature.argtypes = [pointer, pointer]
    library.LGBM_BoosterGetNumClasses.argtypes = [pointer, pointer]
    library.LGBM_BoosterFree.argtypes = [pointer]
    library.LGBM_FastConfigFree.argtypes = [pointer]
    library.LGBM_BoosterPredictForMatSingleRowFastInit.argtypes = [
        *(pointer, integer, integer, integer, integer, ctypes.c_int32, text, pointer)
    ]
    library.LGBM_BoosterPredictForMat.argtypes = [
        *(pointer, pointer, integer, ctypes.c_int32, ctypes.c_int32, integer),
        *(integer, integer, integer, text, pointer, pointer),
    ]
    held = ctypes.PyDLL(str(path)).LGBM_BoosterPredictForMatSingleRowFast
    held.argtypes = [pointer, ctypes.c_char_p, pointer, pointer]
    return library, held
